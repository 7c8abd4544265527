"""All workers of the device with their supervisors."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from gateway.admission.gradient import GradientLimit
from gateway.config import REMOTE, WorkerConfig
from gateway.device.sensors import Reading
from gateway.device.thermal import Heat
from gateway.dispatch.disposable import Disposables
from gateway.dispatch.launch import Launched, WorkerTerms, instances_of, process_settings
from gateway.dispatch.pool import Worker
from gateway.dispatch.remote.keeper import RemoteKeeper
from gateway.dispatch.remote.ports import Connect
from gateway.dispatch.remote.worker import RemoteWorker
from gateway.dispatch.supervisor import Supervisor
from gateway.dispatch.zygote import Zygote
from gateway.request import Signature
from gateway.target import LoadOrder, Target

START_WAIT = 10.0
"""Seconds to wait for a worker to say which files it loads; one that takes longer is believed to load all."""


class Workers:
    """The workers by name, in the order of the device config."""

    def __init__(
        self,
        configs: Sequence[WorkerConfig],
        terms: WorkerTerms,
        launched: dict[str, Launched],
        emit: Callable[..., None],
        changed: Callable[[], None],
        max_bytes: int,
        connect: Connect,
    ) -> None:
        """Args:
        configs: of all of them, the CPU's among them.
        terms: what they are told alike.
        launched: their first processes, where they are started already; ``start`` takes them out.
        emit: records an event.
        changed: called when a worker's state has changed.
        max_bytes: largest answer.
        connect: makes connections to remote endpoints.
        """
        self._launched = launched
        self._workers: dict[str, Worker] = {}
        self._keepers: list[RemoteKeeper] = []
        for config in configs:
            if config.backend == REMOTE:
                remote = RemoteWorker(config, emit, changed)
                self._workers[config.name] = remote
                self._keepers.append(RemoteKeeper(remote, connect, max_bytes))
            else:
                self._workers[config.name] = Worker(config, instances_of(config, terms.inherited), emit, changed)
        self.own = own = next(worker.config for worker in self._workers.values() if worker.backend == "cpu")
        """Config of the CPU's worker."""
        self._zygote = Zygote("cpu", own.python, own.env, terms.inherited)
        self.disposables = Disposables(self._zygote, process_settings(own, terms.inherited), max_bytes)
        self._supervisors = {
            worker.name: Supervisor(worker, emit, max_bytes, terms) for worker in self if not worker.remote
        }

    def start(self) -> None:
        for name, supervisor in self._supervisors.items():
            supervisor.start(self._launched.pop(name, None))
        for keeper in self._keepers:
            keeper.start()

    def start_spares(self) -> None:
        """Have disposable workers at hand; once the others are up, which have more use for the cores."""
        self._zygote.start()
        self.disposables.start()

    async def stop(self) -> None:
        await self.disposables.stop()
        await asyncio.gather(
            self._zygote.stop(),
            *(supervisor.stop() for supervisor in self._supervisors.values()),
            *(keeper.stop() for keeper in self._keepers),
        )

    async def introduced(self) -> None:
        """Returns when every worker has come up or failed to, but after ``START_WAIT`` at the latest."""
        waits = [asyncio.create_task(worker.introduced.wait()) for worker in self]
        if waits:
            _, late = await asyncio.wait(waits, timeout=START_WAIT)
            for task in late:
                task.cancel()

    def service_ratio(self, name: str) -> float | None:
        """Service time of a worker over its calibrated baseline; None where nothing ran of late."""
        return self._workers[name].ratio(time.monotonic())

    def troubled(self, name: str) -> bool:
        """Whether something is the matter with a worker or its device: what runs there then says nothing of a model."""
        worker = self._workers.get(name)
        if worker is None or worker.state in ("lost", "hot", "unknown"):
            return True
        return worker.heat.sheds != "nominal" or bool(worker.heat.throttled)

    def felt(self, name: str, heat: Heat) -> None:
        self._workers[name].felt(heat)

    def report_to(self, posted: Callable[[str, Reading], None]) -> None:
        """Hand on what worker processes say of their device's heat."""
        for worker in self:
            worker.posted = posted

    def __iter__(self) -> Iterator[Worker]:
        return iter(self._workers.values())

    def resolve(self, entry: str) -> Sequence[str]:
        """Names of the workers that an entry of ``targets`` means: a name wins, a kind means all of it."""
        if entry in self._workers:
            return [entry]
        return [worker.name for worker in self if worker.backend == entry]

    def remote(self, entry: str) -> bool:
        """Whether an entry of ``targets`` means remote workers, and no others."""
        return bool(self.resolve(entry)) and all(self._workers[name].remote for name in self.resolve(entry))

    def everyone(self) -> Sequence[str]:
        """All workers of this device, accelerators first, otherwise in the order of the device config."""
        here = (worker for worker in self if not worker.remote)
        return [worker.name for worker in sorted(here, key=lambda worker: worker.backend == "cpu")]

    async def target(self, worker: str, preference: int, suffix: Callable[[str], str]) -> Target:
        found = self._workers[worker]
        await asyncio.wait({asyncio.create_task(found.introduced.wait())}, timeout=START_WAIT)
        target = Target(worker, preference, found)
        if found.config.adaptive_limit:
            target.limit = GradientLimit(initial=2 * found.instances, lowest=found.instances)
        wanted = suffix(found.backend)
        if not found.loads(wanted):
            target.failure = f"{found.backend} loads {', '.join(found.formats)}, not {wanted}"
        return target

    def load(self, target: Target, order: LoadOrder) -> asyncio.Future[Signature]:
        target.order = order
        loaded = self._workers[target.name].want(target, order)
        if self._workers[target.name].backend == "cpu":
            loaded.add_done_callback(partial(self._prepare, order))
        return loaded

    def unload(self, target: Target) -> None:
        self._workers[target.name].drop(target)
        if target.order is not None and self._workers[target.name].backend == "cpu":
            self.disposables.forget(target.order)

    def _prepare(self, order: LoadOrder, loaded: asyncio.Future[Signature]) -> None:
        """What the CPU could load, a disposable worker has at hand too, if it is small."""
        if not loaded.cancelled() and loaded.exception() is None:
            self.disposables.prepare(order)
