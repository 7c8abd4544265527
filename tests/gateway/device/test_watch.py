"""DeviceWatch and MemoryWatch: what their threads read arrives on the loop, and nothing blocks it."""

from __future__ import annotations

import asyncio
import threading

from gateway.device.memory import MemoryReader, MemoryState, MemoryWatch
from gateway.device.sensors import Reading
from gateway.device.watch import DeviceWatch

LIMIT = 10.0


class Steady:
    """A sensor that always answers."""

    def read(self, now: float) -> Reading:
        return Reading("steady", now, 40.0)


class Blocking:
    """A sensor whose bus hangs until it is let go."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.let_go = threading.Event()

    def read(self, now: float) -> Reading:
        self.entered.set()
        self.let_go.wait(LIMIT)
        return Reading("blocking", now, 41.0)


class Broken:
    def read(self, now: float) -> Reading:
        raise RuntimeError("a bug in a reader")


class Inbox:
    """What was posted, and on which thread."""

    def __init__(self) -> None:
        self.readings: dict[str, list[Reading]] = {}
        self.threads: set[int] = set()
        self.arrived = asyncio.Event()

    def post(self, worker: str, reading: Reading) -> None:
        self.readings.setdefault(worker, []).append(reading)
        self.threads.add(threading.get_ident())
        self.arrived.set()

    async def until(self, worker: str, count: int) -> list[Reading]:
        while len(self.readings.get(worker, [])) < count:
            self.arrived.clear()
            await asyncio.wait_for(self.arrived.wait(), LIMIT)
        return self.readings[worker]


async def test_readings_arrive_on_the_loop_with_the_time_they_were_read():
    inbox = Inbox()
    watch = DeviceWatch({"cpu": [Steady()]}, 0.01, inbox.post)
    watch.start(asyncio.get_running_loop())
    readings = await inbox.until("cpu", 3)
    watch.stop()
    assert await asyncio.to_thread(watch.join, LIMIT)
    assert inbox.threads == {threading.get_ident()}
    times = [reading.at for reading in readings]
    assert times == sorted(set(times))
    assert readings[0].temperature_c == 40.0


async def test_a_sensor_that_blocks_delays_no_other_worker_and_not_the_loop():
    inbox, blocking = Inbox(), Blocking()
    watch = DeviceWatch({"slow": [blocking], "fast": [Steady()]}, 0.01, inbox.post)
    watch.start(asyncio.get_running_loop())
    await asyncio.to_thread(blocking.entered.wait, LIMIT)
    await inbox.until("fast", 3)
    assert "slow" not in inbox.readings
    blocking.let_go.set()
    await inbox.until("slow", 1)
    watch.stop()
    assert await asyncio.to_thread(watch.join, LIMIT)


async def test_stop_does_not_wait_for_a_sensor_that_blocks_and_its_reading_is_dropped():
    inbox, blocking = Inbox(), Blocking()
    watch = DeviceWatch({"slow": [blocking]}, 0.01, inbox.post)
    watch.start(asyncio.get_running_loop())
    await asyncio.to_thread(blocking.entered.wait, LIMIT)
    watch.stop()
    assert not watch.join(0.0)
    blocking.let_go.set()
    assert await asyncio.to_thread(watch.join, LIMIT)
    await asyncio.sleep(0)  # what the thread may have handed over would be posted now
    assert inbox.readings == {}


async def test_a_reader_with_a_bug_is_a_problem_and_not_the_end():
    inbox = Inbox()
    watch = DeviceWatch({"cpu": [Broken()]}, 0.01, inbox.post)
    watch.start(asyncio.get_running_loop())
    readings = await inbox.until("cpu", 2)
    watch.stop()
    assert await asyncio.to_thread(watch.join, LIMIT)
    assert readings[1].problem == "RuntimeError: a bug in a reader"
    assert readings[1].temperature_c is None


async def test_a_loop_that_was_late_gets_only_the_newest_reading():
    inbox = Inbox()
    watch = DeviceWatch({"cpu": [Steady()]}, 0.001, inbox.post)
    loop = asyncio.get_running_loop()
    watch._hand_over(loop, "cpu", Reading("s", 1.0, 40.0))
    watch._hand_over(loop, "cpu", Reading("s", 2.0, 41.0))
    readings = await inbox.until("cpu", 1)
    assert [reading.at for reading in readings] == [2.0]


def test_a_loop_that_is_closed_ends_the_threads():
    async def start() -> DeviceWatch:
        watch = DeviceWatch({"cpu": [Steady()]}, 0.01, lambda worker, reading: None)
        watch.start(asyncio.get_running_loop())
        return watch

    assert asyncio.run(start()).join(LIMIT)


def test_a_worker_without_sensors_needs_no_thread():
    watch = DeviceWatch({"cpu": []}, 0.01, lambda worker, reading: None)
    assert repr(watch) == "<DeviceWatch nothing each 0.01 s>"


async def test_the_state_of_memory_arrives_on_the_loop(tree):
    tree.put("meminfo", "MemAvailable:    1024 kB")
    tree.put("pressure/memory", "some avg10=0.00 avg60=0.00 avg300=0.00 total=0")
    told: asyncio.Queue[MemoryState] = asyncio.Queue()
    watch = MemoryWatch(MemoryReader(tree.root, tree.root / "cgroup"), 20.0, told.put_nowait, interval=0.01)
    watch.start(asyncio.get_running_loop())
    state = await asyncio.wait_for(told.get(), LIMIT)
    watch.stop()
    assert await asyncio.to_thread(watch.join, LIMIT)
    assert state.available.free == 1 << 20
    assert watch.state.available.free == 1 << 20
