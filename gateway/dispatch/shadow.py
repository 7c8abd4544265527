"""The worker process in which shadow versions run on the CPU: apart from those whose answers somebody waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial

import msgspec

from gateway.config import WorkerConfig
from gateway.dispatch.launch import WorkerTerms
from gateway.dispatch.pool import Worker
from gateway.dispatch.supervisor import Supervisor
from gateway.request import Signature
from gateway.target import LoadOrder, Target

NAME = "shadow"
_LEAST_NICE = 19


class ShadowWorker:
    """One process with the CPU files of all shadow versions. It runs while there are any.

    Its runs get only the time that no other process wants, and what crashes or hangs there takes no answer along. The
    price is a second copy of those models in memory.
    """

    def __init__(self, own: WorkerConfig, emit: Callable[..., None], max_bytes: int, terms: WorkerTerms) -> None:
        """``own``: the CPU worker's; ``emit``, ``max_bytes``, ``terms``: as of other workers."""
        self._config = msgspec.structs.replace(
            own,
            name=NAME,
            instances=1,
            nice=_LEAST_NICE,
            realtime_priority=0,
            lock_memory=False,
            spin_microseconds=0,
        )
        self._emit = emit
        self._max_bytes = max_bytes
        self._terms = replace(terms, inherited=replace(terms.inherited, nice=0, realtime=0))
        self._targets: dict[LoadOrder, Target] = {}
        self._running: tuple[Worker, Supervisor] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._stopped = False

    def target(self, order: LoadOrder) -> Target | None:
        """Where this file can be run now; None while there is no such place."""
        target = self._targets.get(order)
        return target if target is not None and target.accepts_work else None

    def keep(self, orders: Collection[LoadOrder]) -> None:
        """Load these files, and unload all others."""
        if self._stopped:
            return
        for order in [each for each in self._targets if each not in orders]:
            target = self._targets.pop(order)
            if self._running is not None:
                self._running[0].drop(target)
        if not orders:
            self._end()
            return
        worker = self._worker()
        for order in orders:
            if order not in self._targets:
                target = self._targets[order] = Target(NAME, 0, worker, order=order)
                worker.want(target, order).add_done_callback(partial(self._loaded, order))

    async def stop(self) -> None:
        """End the process, if there is one, and wait until it is gone."""
        self._stopped = True
        self._targets.clear()
        self._end()
        if self._ending:
            await asyncio.wait(self._ending)

    def _worker(self) -> Worker:
        if self._running is None:
            worker = Worker(self._config, 1, self._emit, lambda: None)
            supervisor = Supervisor(worker, self._emit, self._max_bytes, self._terms)
            supervisor.start()
            self._running = worker, supervisor
        return self._running[0]

    def _end(self) -> None:
        if self._running is not None:
            _, supervisor = self._running
            self._running = None
            task = asyncio.ensure_future(supervisor.stop())
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    def _loaded(self, order: LoadOrder, done: asyncio.Future[Signature]) -> None:
        if not done.cancelled() and done.exception() is not None:
            problem = f"it gets no copies on the CPU: {done.exception()}"
            self._emit("shadow-failed", problem, worker=NAME, deployment=order.name, version=order.version)

    def __repr__(self) -> str:
        return f"<ShadowWorker {len(self._targets)} files, {self._running[0] if self._running else 'no process'}>"
