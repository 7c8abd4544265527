"""Loading: a version's files, fetched and verified, become targets on the workers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from edgeway.process import stand_back
from gateway.models.artifact import Artifact, ArtifactRefused
from gateway.models.fetches import Fetches
from gateway.models.likeness import difference
from gateway.models.manifest import Check
from gateway.models.revision import Plan, PlannedArtifact, Revision
from gateway.models.stage import reasons, stage
from gateway.models.states import OVER
from gateway.remote.agreement import mismatch
from gateway.request import Signature
from gateway.target import Golden, LoadOrder, Target, Version

GRACE = 0.3
"""Seconds that slower targets get to join before a version goes into traffic on the first one."""
FETCHED_AT_ONCE = 4
"""Files, of all versions together: more would only share the same link."""
_GOLDEN = "golden samples"

_Loads = dict[asyncio.Task[Signature], Target]


class NoTargetLoads(Exception):
    """Every target refused the file."""


class Barred(NoTargetLoads):
    """No target took the version, and on one at least it disagrees with its golden samples."""


class Workers(Protocol):
    """What loading needs of the pool of workers."""

    def resolve(self, entry: str) -> Sequence[str]:
        """Names of the workers that an entry of ``targets`` means; empty: this device has none."""
        ...

    def remote(self, entry: str) -> bool:
        """Whether an entry of ``targets`` means targets beyond this device only."""
        ...

    def everyone(self) -> Sequence[str]:
        """All workers, accelerators first, in the order of the device config."""
        ...

    async def target(self, worker: str, preference: int, suffix: Callable[[str], str]) -> Target:
        """A target on this worker, not loaded yet. ``suffix(backend)`` says what files it would get; ``failure`` is set
        where it can't load such files.
        """
        ...

    def load(self, target: Target, order: LoadOrder) -> asyncio.Future[Signature]:
        """The first outcome: what the model takes and gives, or an exception, with ``target.failure`` set."""
        ...

    def unload(self, target: Target) -> None: ...


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a target gets its file from."""

    target: Target
    planned: PlannedArtifact
    fetched: asyncio.Task[Artifact]


class Loader:
    """Brings a revision's files onto the workers, and off again. Each target takes the file for its kind of
    accelerator, else the model's own; the first file that is here is loaded while others still come.
    """

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._threads = ThreadPoolExecutor(FETCHED_AT_ONCE, "fetch", stand_back)  # hashing takes a core for a while
        self._under_way: set[Fetches] = set()
        self._sources: dict[Fetches, list[_Source]] = {}

    async def fetch(self, revision: Revision, become: Callable[[str, str], None]) -> None:
        """Returns when one of the files that this device's workers load is here, and the golden samples are; the other
        files go on coming. ``become(state, reason)`` is told where it is.

        Raises:
            ArtifactRefused: none of them can be had.
        """
        plan = revision.plan
        fetches = self._begun(revision)
        state = "verifying" if all(planned.local for planned in plan.artifacts) else "fetching"
        become(state, "")
        coming = True

        def waits(reason: str, targets: Sequence[Target] = ()) -> None:
            for target in targets:
                target.failure = reason
            if coming:
                become("fetching", reason)

        try:
            golden = fetches.start(_GOLDEN, plan.golden, waits) if plan.golden is not None else None
            revision.abroad = plan.may_leave and all(self._workers.remote(entry) for entry in plan.targets)
            if len(plan.artifacts) == 1 and not revision.abroad:  # whatever the workers say, it is this one
                fetches.start("0", plan.artifacts[0].fetch, waits)
            revision.targets = await self._targets(plan)
            sources = self._sources[fetches] = []
            for number, planned in enumerate(plan.artifacts):
                takers = [t for t in revision.targets if _here(t) and _chosen(plan, t) is planned]
                able = [target for target in takers if not target.failure]
                if able:
                    fetched = fetches.start(str(number), planned.fetch, partial(waits, targets=able))
                    sources += [_Source(target, planned, fetched) for target in able]
            if golden is not None:
                await _samples(golden)
            if revision.abroad:
                return  # it needs no file
            try:
                await self._first(revision, sources, fetches)
            except ArtifactRefused as refused:
                if not any(_remote(target) for target in revision.targets):
                    raise
                become(state, str(refused))
        except asyncio.CancelledError:
            self._end(revision)
            raise
        except ArtifactRefused:
            self._end(revision)
            raise
        finally:
            coming = False

    async def load(self, revision: Revision, become: Callable[[str, str], None]) -> Version:
        """Load on all targets at once; a version is up with the first, the others join as they come.

        ``become(state, reason)`` is told where it is, also the same again: loading or warming; and failed or barred
        where all that could still load it has been out of reach for as long as a load may take, or an endpoint's model
        disagrees. What is out of reach may come all the same, so this goes on.

        Raises:
            NoTargetLoads
        """
        fetches, targets = revision.fetches, revision.targets
        assert fetches is not None
        golden = fetches.start(_GOLDEN, revision.plan.golden).result() if revision.plan.golden is not None else None
        loading: _Loads = {}
        for source in self._sources.pop(fetches, []):
            task = asyncio.create_task(self._bring(revision, source, golden), name=f"load on {source.target.name}")
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            fetches.add(task)
            loading[task] = source.target
        abroad: _Loads = {}
        for target in targets:
            if _remote(target) and not target.failure:
                task = asyncio.create_task(self._reach(revision, target, golden), name=f"load on {target.name}")
                task.add_done_callback(lambda done: done.cancelled() or done.exception())
                fetches.add(task)
                abroad[task] = target
        try:
            signature = await self._first_up(revision, loading, abroad, become)
            waiting = [task for task in (*loading, *abroad) if not task.done()]
            if waiting:
                await asyncio.wait(waiting, timeout=GRACE)
        except asyncio.CancelledError:
            self._end(revision)
            raise
        for target in targets:
            target.signature = signature
        for future, target in (loading | abroad).items():
            future.add_done_callback(partial(_must_agree, target, signature))
        return Version(revision.plan.version, signature, tuple(targets))

    async def _first_up(
        self, revision: Revision, loading: _Loads, abroad: _Loads, become: Callable[[str, str], None]
    ) -> Signature:
        """What the first target that is up takes and gives. Remote ones count when no other can be had: what is here
        says what the model is.

        Raises:
            NoTargetLoads
        """
        clock = asyncio.get_running_loop().time
        waiting, targets, since, state, with_remotes = dict(loading), revision.targets, clock(), "loading", False
        while True:
            revision.stirred.clear()
            done = [task for task in waiting if task.done()]
            up = next((task for task in done if not task.cancelled() and task.exception() is None), None)
            if up is not None:
                if state in OVER:
                    become("loading", "")
                return up.result()
            for task in done:
                del waiting[task]
            left = since + max((_limit(target) for target in waiting.values()), default=0.0) - clock()
            late = left <= 0 or state in OVER
            before, state = state, stage(list(waiting.values()), targets, late)
            if state in OVER and abroad and not with_remotes:
                with_remotes = revision.abroad = True
                waiting |= abroad
                state = before
                continue
            if not waiting:
                if before in OVER:
                    become("loading", "")
                raise (Barred if state == "barred" else NoTargetLoads)(reasons(targets))
            if before in OVER and state not in OVER:
                since = clock()
            become(state, reasons(targets))
            await _first_of(waiting, revision.stirred, None if late else left)

    def unload(self, revision: Revision) -> None:
        self._end(revision)
        for target in revision.targets:
            if target.worker is not None:
                self._workers.unload(target)

    def close(self) -> None:
        """End what is being fetched."""
        for fetches in list(self._under_way):
            fetches.end()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _begun(self, revision: Revision) -> Fetches:
        self._end(revision)

        def told(progress: tuple[int, int] | None) -> None:
            revision.progress = progress

        revision.fetches = Fetches(self._threads, told)
        self._under_way.add(revision.fetches)
        return revision.fetches

    def _end(self, revision: Revision) -> None:
        if revision.fetches is not None:
            revision.fetches.end()
            self._under_way.discard(revision.fetches)
            self._sources.pop(revision.fetches, None)

    async def _first(self, revision: Revision, sources: Sequence[_Source], fetches: Fetches) -> None:
        """Returns when a file is here. Raises ArtifactRefused: none will be."""
        model = revision.plan.artifacts[0]
        by_task = {source.fetched: source.planned for source in sources}
        if len(revision.plan.artifacts) == 1:  # is looked at, though no worker loads it
            by_task[fetches.start("0", model.fetch)] = model
        for task, planned in by_task.items():
            if planned is model:
                task.add_done_callback(partial(_model_is_here, revision))
        waiting: set[asyncio.Task[Artifact]] = set(by_task)
        refusals: list[BaseException] = []
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            refused = [failed for task in done if (failed := task.exception()) is not None]
            if len(refused) < len(done):
                return
            refusals += refused
        if refusals:
            raise refusals[0]

    async def _bring(self, revision: Revision, source: _Source, golden: Artifact | None) -> Signature:
        target = source.target
        try:
            artifact = await asyncio.shield(source.fetched)
        except ArtifactRefused as refused:
            target.failure = str(refused)
            raise
        target.failure = ""
        held = golden_of(golden, source.planned.check) if golden is not None else None
        return await self._ordered(revision, target, order_of(revision.plan, artifact, held))

    async def _reach(self, revision: Revision, target: Target, golden: Artifact | None) -> Signature:
        """A remote target needs no file, only the name of what it should have, and what that must answer."""
        plan = revision.plan
        held = golden_of(golden, _chosen(plan, target).check) if golden is not None else None
        order = LoadOrder(plan.name, plan.version, "", plan.checksum, plan.batch_size, plan.batch_delay, golden=held)
        return await self._ordered(revision, target, order)

    async def _ordered(self, revision: Revision, target: Target, order: LoadOrder) -> Signature:
        loaded = self._workers.load(target, order)
        revision.stirred.set()  # its worker may be lost
        return await loaded

    async def _targets(self, plan: Plan) -> list[Target]:
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
                target = await self._workers.target(name, len(targets), lambda kind: _for(plan, kind).suffix)
                if _remote(target) and not plan.may_leave:
                    target.failure = "it is remote, and only a manifest that names it in targets may use it"
                targets.append(target)
            else:
                targets.append(Target(name, len(targets), None))
        return targets


async def _first_of(tasks: Iterable[asyncio.Task[Signature]], stirred: asyncio.Event, seconds: float | None) -> None:
    """Returns when one of the tasks has ended, the event is set, or the time is over."""
    waking = asyncio.ensure_future(stirred.wait())
    try:
        await asyncio.wait({*tasks, waking}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waking.cancel()


def _limit(target: Target) -> float:
    """Seconds that it may be out of reach before a version that only waits for it has failed."""
    assert target.worker is not None
    return target.worker.load_limit


def _remote(target: Target) -> bool:
    return target.worker is not None and target.worker.remote


def _here(target: Target) -> bool:
    return target.worker is not None and not target.worker.remote


async def _samples(golden: asyncio.Task[Artifact]) -> None:
    """Raises ArtifactRefused."""
    try:
        await golden
    except ArtifactRefused as refused:
        raise ArtifactRefused(f"golden samples: {refused}") from refused


def order_of(plan: Plan, artifact: Artifact, golden: Golden | None) -> LoadOrder:
    """What a worker is told of a file."""
    return LoadOrder(
        plan.name,
        plan.version,
        str(artifact.path),
        artifact.sha256,
        plan.batch_size,
        plan.batch_delay,
        artifact.external,
        golden,
    )


def golden_of(samples: Artifact, check: Check | None) -> Golden:
    """How an artifact is held to the samples."""
    tolerance = check.tolerance if check is not None else None
    return Golden(
        str(samples.path),
        samples.sha256,
        (tolerance.rtol, tolerance.atol) if tolerance is not None else None,
        check.top1 if check is not None else None,
        check.cosine if check is not None else None,
    )


def _chosen(plan: Plan, target: Target) -> PlannedArtifact:
    if target.worker is None or len(plan.artifacts) == 1:
        return plan.artifacts[0]
    return _for(plan, target.worker.backend)


def _for(plan: Plan, backend: str) -> PlannedArtifact:
    """The file for workers of this kind."""
    own = (planned for planned in plan.artifacts if planned.accelerator == backend)
    return next(own, plan.artifacts[0])


def _model_is_here(revision: Revision, fetched: asyncio.Task[Artifact]) -> None:
    if not fetched.cancelled() and fetched.exception() is None:
        revision.artifact = fetched.result()
        revision.sha256 = revision.artifact.sha256


def _must_agree(target: Target, signature: Signature, future: asyncio.Future[Signature]) -> None:
    """A target whose file takes or gives other tensors is not the same logical model."""
    if future.cancelled() or future.exception() is not None:
        return
    theirs = future.result()
    problem = mismatch(signature, theirs) if _remote(target) else difference(signature, theirs)
    if problem:
        target.failure = f"it is not the same model: {problem}" if _remote(target) else problem
