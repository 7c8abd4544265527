"""DeviceHeat and MemoryRelief: sensors, reports and service times come together, and something follows."""

from __future__ import annotations

import asyncio

import msgspec

from gateway.config import HeatSettings, WorkerConfig
from gateway.device.heat import DeviceHeat, readers_by_worker
from gateway.device.memory import MemoryState
from gateway.device.relief import MemoryRelief
from gateway.device.sensors import Reading, reported
from gateway.device.thermal import Heat


class Applied(dict[str, Heat]):
    """The newest heat of each worker."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived = asyncio.Event()

    def __call__(self, worker: str, heat: Heat) -> None:
        self[worker] = heat
        self.arrived.set()


def device(applied: Applied, ratios: dict[str, float] | None = None) -> DeviceHeat:
    return DeviceHeat({"tpu": [], "cpu": []}, HeatSettings(), lambda worker: (ratios or {}).get(worker), applied)


async def test_a_worker_without_sensors_is_unknown_and_sheds_nothing():
    applied = Applied()
    device(applied).step(1.0)
    assert (applied["tpu"].band, applied["tpu"].sheds) == ("unknown", "nominal")


async def test_what_a_worker_reports_is_its_own_heat_and_no_other_ones():
    applied = Applied()
    heat = device(applied)
    heat.post("tpu", reported("tpu", 1.0, 77.0, None))
    heat.step(1.0)
    assert (applied["tpu"].sheds, applied["cpu"].sheds) == ("hot", "nominal")


async def test_sensors_and_reports_that_came_between_two_steps_are_both_taken():
    applied = Applied()
    heat = device(applied)
    heat.post("tpu", Reading("sensors", 1.0, 50.0, load=0.3))
    heat.post("tpu", reported("tpu", 1.1, 66.0, None))
    heat.step(1.2)
    assert (applied["tpu"].band, applied["tpu"].load) == ("warm", 0.3)


async def test_events_of_a_reading_are_not_lost_behind_a_newer_one():
    applied = Applied()
    heat = device(applied)
    heat.post("tpu", Reading("sensors", 1.0, 50.0, throttled=True, throttle_events=2))
    heat.post("tpu", Reading("sensors", 1.5, 50.0, throttled=False))
    heat.step(1.6)
    assert applied["tpu"].throttle_events == 2


async def test_readings_that_wait_do_not_pile_up():
    applied = Applied()
    heat = device(applied)
    for tick in range(1000):
        heat.post("tpu", reported("tpu", tick * 0.1, 50.0, None))
    assert len(heat._pending["tpu"]) == 1


async def test_service_times_reach_their_worker():
    applied = Applied()
    heat = device(applied, {"tpu": 3.0})
    for tick in range(10):
        heat.step(tick * 0.2)
    assert (applied["tpu"].witness, applied["cpu"].witness) == ("service-time", "")


async def test_a_tree_of_sensors_is_read_and_stepped_until_cancelled(tree):
    tree.zone(0, "sim-thermal", 77500)
    options = {"sysfsRoot": str(tree.root)}
    worker = msgspec.convert({"name": "sim", "backend": "simulated", "options": options}, WorkerConfig)
    settings = HeatSettings(interval_seconds=0.05)
    applied = Applied()
    heat = DeviceHeat(readers_by_worker([worker], settings), settings, lambda name: None, applied)
    running = asyncio.create_task(heat.run())
    while applied.get("sim", Heat()).band == "unknown":
        applied.arrived.clear()
        await asyncio.wait_for(applied.arrived.wait(), 10)
    running.cancel()
    await asyncio.wait([running])
    assert (applied["sim"].band, applied["sim"].sheds) == ("hot", "hot")
    assert await asyncio.to_thread(heat._watch.join, 10)


class Room:
    def __init__(self) -> None:
        self.asked: list[str] = []

    def relieve(self):
        self.asked.append("relieve")
        return []

    def retry(self):
        self.asked.append("retry")
        return []


def test_short_memory_makes_room_and_calm_memory_uses_it_and_both_are_told_once():
    room, events = Room(), []
    relief = MemoryRelief(room, lambda kind, message: events.append((kind, message)))
    for pressed in (False, True, True, False):
        relief.sampled(MemoryState(34.0 if pressed else 0.0, pressed))
    assert room.asked == ["retry", "relieve", "relieve", "retry"]
    assert events == [
        ("memory-pressure", "tasks wait for memory 34 % of the time"),
        ("memory-calm", "memory is not short any more"),
    ]
