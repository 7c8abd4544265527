"""All workers of the device with their supervisors."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence

import msgspec

from gateway.config import WorkerConfig
from gateway.dispatch.pool import Worker
from gateway.dispatch.supervisor import Supervisor
from gateway.request import Signature
from gateway.target import LoadOrder, Target

START_WAIT = 10.0
"""Seconds to wait for a worker to say which files it loads; one that takes longer is believed to load all."""


class Workers:
    """The workers by name, in the order of the device config."""

    def __init__(
        self,
        configs: Sequence[WorkerConfig],
        emit: Callable[..., None],
        changed: Callable[[], None],
        max_bytes: int,
    ) -> None:
        self._workers = {config.name: Worker(config, instances_of(config), emit, changed) for config in configs}
        self._supervisors = [Supervisor(worker, emit, max_bytes) for worker in self._workers.values()]

    def start(self) -> None:
        for supervisor in self._supervisors:
            supervisor.start()

    async def stop(self) -> None:
        await asyncio.gather(*(supervisor.stop() for supervisor in self._supervisors))

    async def introduced(self) -> None:
        """Returns when every worker has come up or failed to, but after ``START_WAIT`` at the latest."""
        waits = [asyncio.create_task(worker.introduced.wait()) for worker in self]
        if waits:
            _, late = await asyncio.wait(waits, timeout=START_WAIT)
            for task in late:
                task.cancel()

    def __iter__(self) -> Iterator[Worker]:
        return iter(self._workers.values())

    def resolve(self, entry: str) -> Sequence[str]:
        """Names of the workers that an entry of ``targets`` means: a name wins, a kind means all of it."""
        if entry in self._workers:
            return [entry]
        return [worker.name for worker in self if worker.backend == entry]

    def everyone(self) -> Sequence[str]:
        """All workers, accelerators first, otherwise in the order of the device config."""
        return [worker.name for worker in sorted(self, key=lambda worker: worker.backend == "cpu")]

    async def target(self, worker: str, preference: int, suffix: str) -> Target:
        found = self._workers[worker]
        await asyncio.wait({asyncio.create_task(found.introduced.wait())}, timeout=START_WAIT)
        target = Target(worker, preference, found)
        if not found.loads(suffix):
            target.failure = f"{found.backend} loads {', '.join(found.formats)}, not {suffix}"
        return target

    def load(self, target: Target, order: LoadOrder) -> asyncio.Future[Signature]:
        return self._workers[target.name].want(target, order)

    def unload(self, target: Target) -> None:
        self._workers[target.name].drop(target)


def instances_of(config: WorkerConfig) -> int:
    """Runs at a time: as configured, else 2 for the CPU where there are two cores or more, else 1."""
    if config.instances is not None:
        return config.instances
    return 2 if config.backend == "cpu" and len(os.sched_getaffinity(0)) >= 2 else 1


def default_workers(configs: Sequence[WorkerConfig]) -> list[WorkerConfig]:
    """The configured workers, and always one for the CPU."""
    workers = list(configs)
    if not any(config.backend == "cpu" for config in workers):
        taken = {config.name for config in workers}
        name = next(name for name in ("cpu", "cpu-path", "cpu-path-2") if name not in taken)
        workers.append(msgspec.convert({"name": name, "backend": "cpu"}, WorkerConfig))
    return workers
