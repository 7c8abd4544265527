"""Loading: a version's files, fetched and verified, become targets on the workers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from gateway.models.revision import Plan, Revision
from gateway.request import Signature
from gateway.target import LoadOrder, Target, Version

GRACE = 0.3
"""Seconds that slower targets get to join before a version goes into traffic on the first one."""


class NoTargetLoads(Exception):
    """Every target refused the file."""


class Workers(Protocol):
    """What loading needs of the pool of workers."""

    def resolve(self, entry: str) -> Sequence[str]:
        """Names of the workers that an entry of ``targets`` means; empty: this device has none."""
        ...

    def everyone(self) -> Sequence[str]:
        """All workers, accelerators first, in the order of the device config."""
        ...

    async def target(self, worker: str, preference: int, suffix: str) -> Target:
        """A target on this worker, not loaded yet; ``failure`` is set where it can't load such files."""
        ...

    def load(self, target: Target, order: LoadOrder) -> asyncio.Future[Signature]:
        """The first outcome: what the model takes and gives, or an exception, with ``target.failure`` set."""
        ...

    def unload(self, target: Target) -> None: ...


class Loader:
    """Brings a revision's files onto the workers, and off again."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers

    async def fetch(self, revision: Revision, become: Callable[[str, str], None]) -> None:
        """Have the files that this device's workers load. ``become(state, reason)`` is told where it is.

        Raises:
            ArtifactRefused
        """
        planned = revision.plan.artifacts[0]
        become("verifying" if planned.local else "fetching", "")

        def told(done: int, total: int) -> None:
            revision.progress = done, total

        artifact = await asyncio.to_thread(planned.fetch, told)
        revision.progress = None
        revision.artifact, revision.sha256 = artifact, artifact.sha256

    def unload(self, revision: Revision) -> None:
        for target in revision.targets:
            if target.worker is not None:
                self._workers.unload(target)

    async def load(self, revision: Revision) -> Version:
        """Load on all targets at once; a version is up with the first, the others join as they come."""
        plan, artifact = revision.plan, revision.artifact
        assert artifact is not None
        targets = await self._targets(plan, artifact.suffix)
        revision.targets = targets
        batching = plan.batch_size, plan.batch_delay
        order = LoadOrder(plan.name, plan.version, str(artifact.path), artifact.sha256, *batching)
        loading = {
            self._workers.load(target, order): target
            for target in targets
            if target.worker is not None and not target.failure
        }
        waiting: set[asyncio.Future[Signature]] = set(loading)
        signature: Signature | None = None
        while waiting and signature is None:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            signature = next((f.result() for f in done if not f.cancelled() and f.exception() is None), None)
        if signature is None:
            raise NoTargetLoads("; ".join(f"{t.name}: {t.failure or 'no such worker here'}" for t in targets))
        if waiting:
            await asyncio.wait(waiting, timeout=GRACE)
        for future, target in loading.items():
            future.add_done_callback(partial(_must_agree, target, signature))
        return Version(plan.version, signature, tuple(targets))

    async def _targets(self, plan: Plan, suffix: str) -> list[Target]:
        targets: list[Target] = []
        names: dict[str, bool] = {}
        for entry in plan.targets:
            workers = self._workers.resolve(entry)
            names.update((worker, True) for worker in workers if worker not in names)
            if not workers:
                names[entry] = False
        if not plan.targets:
            names = dict.fromkeys(self._workers.everyone(), True)
        for name, exists in names.items():
            if exists:
                targets.append(await self._workers.target(name, len(targets), suffix))
            else:
                targets.append(Target(name, len(targets), None))
        return targets


def _must_agree(target: Target, signature: Signature, future: asyncio.Future[Signature]) -> None:
    """A target whose file takes or gives other tensors is not the same logical model."""
    if future.cancelled() or future.exception() is not None:
        return
    theirs = future.result()
    if _names(theirs) != _names(signature):
        target.failure = f"takes or gives other tensors than the first target: {_names(theirs)}"


def _names(signature: Signature) -> tuple[tuple[tuple[str, str], ...], ...]:
    return tuple(tuple((spec.name, spec.datatype) for spec in side) for side in (signature.inputs, signature.outputs))
