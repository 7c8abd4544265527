"""DeviceHeat: the heat of every worker as it is now, stepped on the loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from gateway.config import HeatSettings, WorkerConfig
from gateway.device.inventory import readers_of
from gateway.device.sensors import Reader, Reading
from gateway.device.thermal import Heat, tracker_of
from gateway.device.watch import DeviceWatch

STEP = 0.2
"""Seconds between two steps: a throttle that shows in service times acts within 1 s of its first slow runs."""

Told = Callable[[str, Reading | None, float | None, float, Heat], None]
"""Takes worker, reading, service-time ratio, monotonic seconds and heat of a step."""


class DeviceHeat:
    """Joins sensors, reports of workers and service times into one ``Heat`` per worker. Belongs to the loop."""

    def __init__(
        self,
        readers: Mapping[str, Sequence[Reader]],
        settings: HeatSettings,
        ratio: Callable[[str], float | None],
        apply: Callable[[str, Heat], None],
        clock: Callable[[], float] = time.monotonic,
        told: Told | None = None,
    ) -> None:
        """
        Args:
            readers: of every worker by name; a worker without sensors has an empty list, and still has a heat.
            settings: bands, dwell and intervals.
            ratio: service time of a worker over its calibrated baseline, of what ran of late; None: nothing did.
            apply: called after every step of a worker, also when nothing changed.
            clock: monotonic seconds.
            told: hears of every step; for the journal.
        """
        self._trackers = {worker: tracker_of(settings) for worker in readers}
        self._told = told
        self._watch = DeviceWatch(readers, settings.interval_seconds, self.post, clock)
        self._pending: dict[str, list[Reading]] = {worker: [] for worker in readers}
        self._ratio = ratio
        self._apply = apply
        self._clock = clock

    def post(self, worker: str, reading: Reading) -> None:
        """Take a reading at the next step: from the sensors, or what the worker reported (``sensors.reported``)."""
        pending = self._pending[worker]
        if pending and pending[-1].source == reading.source and not pending[-1].throttle_events:
            pending.pop()
        pending.append(reading)

    def step(self, now: float) -> None:
        """One step of every worker."""
        for worker, tracker in self._trackers.items():
            readings: list[Reading | None] = [*self._pending[worker]]
            self._pending[worker].clear()
            ratio = self._ratio(worker)
            for reading in readings or [None]:
                heat = tracker.step(reading, ratio, now)
                if self._told is not None:
                    self._told(worker, reading, ratio, now, heat)
            self._apply(worker, heat)

    async def run(self) -> None:
        """Read and step until cancelled."""
        self._watch.start(asyncio.get_running_loop())
        try:
            while True:
                self.step(self._clock())
                await asyncio.sleep(STEP)
        finally:
            self._watch.stop()

    def __repr__(self) -> str:
        return f"<DeviceHeat {self._trackers}>"


def readers_by_worker(
    workers: Sequence[WorkerConfig], settings: HeatSettings, proc_root: Path = Path("/proc")
) -> dict[str, list[Reader]]:
    """The sensors of every worker of the device."""
    return {worker.name: readers_of(worker, settings, proc_root) for worker in workers}
