"""DeviceWatch: reads the sensors of every worker on threads, and hands the readings to the loop."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from gateway.device.sensors import Reader, Reading, read_all

log = logging.getLogger(__name__)


class DeviceWatch:
    """One thread per worker that has sensors: a sensor on a slow bus delays neither the loop nor other workers."""

    def __init__(
        self,
        readers: Mapping[str, Sequence[Reader]],
        interval: float,
        post: Callable[[str, Reading], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``post(worker, reading)`` is called on the loop; ``interval``: seconds from one reading to the next."""
        self._readers = {worker: tuple(each) for worker, each in readers.items() if each}
        self._interval = interval
        self._post = post
        self._clock = clock
        self._stop = threading.Event()
        self._newest: dict[str, Reading] = {}
        self._threads: list[threading.Thread] = []

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._threads = [
            threading.Thread(target=self._watch, args=(loop, worker), name=f"sensors of {worker}", daemon=True)
            for worker in self._readers
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """No reading is posted after this. A thread that a sensor blocks ends when the sensor answers."""
        self._stop.set()

    def join(self, timeout: float) -> bool:
        """Whether all threads have ended within so many seconds. Blocks."""
        until = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _watch(self, loop: asyncio.AbstractEventLoop, worker: str) -> None:
        readers, broken = self._readers[worker], False
        while not self._stop.is_set():
            began = self._clock()
            try:
                reading = read_all("sensors", readers, began)
            except Exception as failed:  # the edge of a thread: without this the sensor just goes silent
                reading = Reading("sensors", began, problem=f"{type(failed).__name__}: {failed}")
                if not broken:
                    log.exception("reading the sensors of %s failed", worker)
                broken = True
            if not self._hand_over(loop, worker, reading):
                return
            self._stop.wait(max(0.0, self._interval - (self._clock() - began)))

    def _hand_over(self, loop: asyncio.AbstractEventLoop, worker: str, reading: Reading) -> bool:
        """Whether the loop still runs. While it is late, only the newest reading waits for it."""
        waiting = worker in self._newest
        self._newest[worker] = reading
        if not waiting:
            try:
                loop.call_soon_threadsafe(self._deliver, worker)
            except RuntimeError:  # closed
                return False
        return True

    def _deliver(self, worker: str) -> None:
        reading = self._newest.pop(worker, None)
        if reading is not None and not self._stop.is_set():
            self._post(worker, reading)

    def __repr__(self) -> str:
        return f"<DeviceWatch {', '.join(self._readers) or 'nothing'} each {self._interval:g} s>"
