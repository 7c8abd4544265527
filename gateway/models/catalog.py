"""The catalog: every deployment with its versions, from manifest or repository to traffic."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial

import msgspec

from gateway.errors import Conflict, NotFound, Unavailable
from gateway.models.artifact import ArtifactRefused
from gateway.models.loading import Barred, Loader, NoTargetLoads
from gateway.models.revision import Deployment, Plan, Revision
from gateway.models.rollout import Rollout, declare, withdraw
from gateway.models.stage import reasons
from gateway.models.states import COMING, OVER, follow
from gateway.request import Description, IndexEntry
from gateway.routing.places import reassign
from gateway.routing.split import Split
from gateway.routing.table import Route, Table
from gateway.target import Version

GRACE = 0.3
"""Seconds that slower targets get to join before a version goes into traffic on the first one."""
_AGAIN = 0.1
"""Seconds after which a version may have turned out to wait for a remote target only."""
UNUSED_AFTER = 60.0
"""Seconds without a request after which a version that only pins reach makes room when memory is short."""
RETURN_AFTER = 300.0
"""Seconds until it comes back at the earliest: it may be what made memory short."""

log = logging.getLogger(__name__)


class Catalog:
    """Owns deployments and the route table. All methods belong to the loop."""

    def __init__(
        self,
        table: Table,
        loader: Loader,
        emit: Callable[..., None],
        refusal: Callable[[Plan, int], str] = lambda plan, promised: "",
        clock: Callable[[], float] = time.monotonic,
        moved: Callable[[str], None] = lambda name: None,
    ) -> None:
        """``emit(kind, message, deployment=..., version=...)`` records an event; ``refusal(plan, promised)`` says why
        memory is too short for a load beside those that are under way and were promised so many bytes, or nothing;
        ``moved(name)`` is told that keys of a deployment belong to other versions now.
        """
        self._table = table
        self._loader = loader
        self._emit = emit
        self._refusal = refusal
        self._clock = clock
        self._moved = moved
        self._deployments: dict[str, Deployment] = {}
        self.needed: Mapping[str, str] = {}
        """Keys of the files in the store that traffic or a roll-back may need, each with who does. Replaced whole, so
        that any thread may look.
        """
        self.wanted: frozenset[str] = frozenset()
        """Keys of the files in the store of all versions that are known. Replaced whole, too."""
        self._listeners: list[Callable[[], None]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    # -- bringing up and taking down ---------------------------------------------------------------------------

    def restore(self, rollouts: Mapping[str, Rollout]) -> None:
        """Take over how deployments stood before the process started, before any of their versions is offered."""
        for name, rollout in rollouts.items():
            self._deployments[name] = Deployment(name, rollout)

    def offer(self, plan: Plan) -> Revision:
        """Bring up a version behind the ones that serve. The same label replaces its older content once ready."""
        return self.offer_all([plan])[0]

    def offer_all(self, plans: Sequence[Plan]) -> list[Revision]:
        """Several at once, so that none is loaded only because a newer one of its deployment comes a moment later."""
        made = [self._declare(plan) for plan in plans]
        for name in dict.fromkeys(plan.name for plan in plans):
            self._publish(self._deployments[name])
        return made

    def _declare(self, plan: Plan) -> Revision:
        deployment = self._deployments.setdefault(plan.name, Deployment(plan.name))
        deployment.rollout = declare(deployment.rollout, plan.standing())
        revision = Revision(plan, last_update=time.time())
        twin = deployment.serving(plan.version)
        for each in deployment.supersede(revision):
            self._stop(each)
        if twin is not None and twin.plan.same_file(plan) and twin.version is not None:
            revision.adopt(twin)
            self._become(revision, "ready", "")
        elif twin is not None:
            self._begin(deployment, revision)
        return revision

    def adopt(self, name: str, rollout: Rollout) -> None:
        """Make a changed roll-out the one in force."""
        deployment = self._deployments[name]
        deployment.rollout = rollout
        self._publish(deployment)

    @contextlib.asynccontextmanager
    async def at_hand(self, name: str, label: str) -> AsyncIterator[None]:
        """Have a version loaded, whatever the roll-out says, for as long as the block takes.

        Raises:
            NotFound: no such deployment or version.
            Conflict: it can't be loaded.
        """
        deployment = self.deployment(name)
        revision = deployment.newest(label)
        if revision is None:
            raise NotFound(f"deployment {name} has no version {label}")
        if revision.state in ("failed", "barred"):
            raise Conflict(f"version {label} of {name} is {revision.state}: {revision.reason}")
        revision.held = True
        try:
            if not revision.ready and revision.state not in COMING:
                self._begin(deployment, revision)
            await self._outcome(revision)
            if not revision.ready:
                raise Conflict(f"version {label} of {name} is {revision.state}: {revision.reason}")
            yield
        finally:
            revision.held = False
            if name in self._deployments:
                self._publish(self._deployments[name])

    def withdraw(self, name: str, version: str = "") -> list[str]:
        """Take versions out of traffic and unload them. Empty version: the whole deployment.

        Raises:
            NotFound: no such deployment or version.
        """
        deployment = self.deployment(name)
        gone = [revision for revision in deployment.revisions if version in ("", revision.label)]
        if not gone:
            raise NotFound(f"deployment {name} has no version {version}")
        for revision in gone:
            deployment.revisions.remove(revision)
        labels = {revision.label for revision in gone}
        deployment.rollout = withdraw(deployment.rollout, labels)
        if not deployment.revisions:
            del self._deployments[name]
        self._publish(deployment)
        for revision in gone:
            self._stop(revision)
            self._emit("version-deleted", "taken out of service", deployment=name, version=revision.label)
        return sorted(labels)

    def relieve(self) -> list[str]:
        """Memory is short: unload what nobody uses, that is what neither has a share nor was pinned of late.

        Returns:
            what was unloaded, as ``name version``.
        """
        now = self._clock()
        relieved: list[str] = []
        for deployment in list(self._deployments.values()):
            unused = [r for r in deployment.unshared() if now - r.last_used >= UNUSED_AFTER and not _in_use(r)]
            for revision in unused:
                revision.short_of_memory, revision.retry_at = True, now + RETURN_AFTER
                self._put_down(revision, f"memory: unused for {UNUSED_AFTER:.0f} s while memory is short")
                relieved.append(f"{deployment.name} {revision.label}")
            if unused:
                self._publish(deployment)
        return relieved

    def retry(self) -> list[str]:
        """Bring up again what memory was too short for, as far as there is room now. Cheap: call it every few seconds.

        Returns:
            what is on its way, as ``name version``.
        """
        begun: list[str] = []
        for deployment in list(self._deployments.values()):
            for revision in list(deployment.revisions):
                if not revision.short_of_memory or deployment.newest(revision.label) is not revision:
                    continue
                if self._clock() < revision.retry_at or self._refusal(revision.plan, self._promised()):
                    continue
                revision.short_of_memory, revision.granted = False, True
                self._begin(deployment, revision)
                begun.append(f"{deployment.name} {revision.label}")
        return begun

    async def close(self) -> None:
        """Stop what is under way."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._loader.close()

    async def _outcome(self, revision: Revision) -> None:
        """Returns when it is not on its way up any more, though it may come back later."""
        stirred = asyncio.Event()
        unsubscribe = self.subscribe(stirred.set)
        try:
            while revision.task is not None and not revision.task.done() and not revision.waits:
                stirred.clear()
                waking = asyncio.ensure_future(stirred.wait())
                await asyncio.wait({revision.task, waking}, return_when=asyncio.FIRST_COMPLETED)
                waking.cancel()
        finally:
            unsubscribe()

    async def settled(self) -> None:
        """Returns when no version is on its way up any more, but for those that wait for what is out of reach."""
        while waiting := [task for task in self._tasks - self._abroad() if not task.done()]:
            await asyncio.wait(waiting, timeout=_AGAIN)

    def _abroad(self) -> set[asyncio.Task[None]]:
        revisions = (revision for deployment in self._deployments.values() for revision in deployment.revisions)
        return {r.task for r in revisions if (r.abroad or r.waits) and r.task is not None}

    def _begin(self, deployment: Deployment, revision: Revision) -> None:
        revision.task = self._spawn(self._bring_up(deployment, revision))

    async def _bring_up(self, deployment: Deployment, revision: Revision) -> None:
        plan = revision.plan
        try:
            await self._loader.fetch(revision, partial(self._become, revision))
            refusal = self._refusal(plan, self._promised(revision))
            if refusal:
                raise _MemoryShort(f"memory: {refusal}")
            revision.granted = True
            self._become(revision, "loading", "")
            revision.version = await self._loader.load(revision, partial(self._rise, deployment, revision))
        except _MemoryShort as refused:
            revision.short_of_memory = True
            self._become(revision, "failed", str(refused))
        except ArtifactRefused as refused:
            self._become(revision, "failed", str(refused))
        except NoTargetLoads as refused:
            self._become(revision, "barred" if isinstance(refused, Barred) else "failed", str(refused))
            self._loader.unload(revision)  # a worker that is restarted need not try it again
        else:
            self._become(revision, "ready", "")
        finally:
            revision.granted = False
        self._publish(deployment)

    def _rise(self, deployment: Deployment, revision: Revision, state: str, reason: str) -> None:
        """Where its load is, which may be where it was."""
        if state == revision.state:
            revision.reason = reason
            return
        self._become(revision, state, reason)
        if revision.waits != (state in OVER):
            revision.waits, revision.granted = state in OVER, False
            self._publish(deployment)

    def _promised(self, besides: Revision | None = None) -> int:
        """Bytes that versions on their way up were granted and may not have taken yet."""
        every = (revision for deployment in self._deployments.values() for revision in deployment.revisions)
        return sum(r.plan.min_memory for r in every if r.granted and r is not besides)

    def _stop(self, revision: Revision) -> None:
        """Nobody is to use it any more: end its loading, or unload it when its last request has left."""
        if revision.task is not None:
            revision.task.cancel()
        if revision.adopted:
            return  # the same loaded files go on under newer settings
        unload = partial(self._loader.unload, revision)
        if revision.version is not None:
            revision.version.retire_when_idle(unload)
        else:
            unload()

    def _publish(self, deployment: Deployment) -> None:
        """Make the routes say what the roll-out and the revisions do; load and unload what follows from it."""
        for revision in deployment.replaced():
            deployment.revisions.remove(revision)
            self._release(revision)
        for revision in list(deployment.revisions):
            standing = deployment.rollout.find(revision.label)
            if standing is not None and standing.left and revision.state != "rolledBack" and not revision.held:
                self._leave(revision, standing.left)
        for revision in deployment.surplus():
            self._put_down(revision, "neither current nor previous")
        for revision in deployment.missing():
            self._begin(deployment, revision)
        for revision in deployment.revisions:
            if revision.state == "new" and revision.task is None:
                self._become(revision, "unloaded", "neither current nor previous")
        if deployment.revisions:
            self._split(deployment)
            self._table.routes[deployment.name] = deployment.route()
        else:
            self._table.routes.pop(deployment.name, None)
        self.needed = {key: who for each in self._deployments.values() for key, who in each.needed().items()}
        known = (revision for each in self._deployments.values() for revision in each.revisions)
        self.wanted = frozenset(key for revision in known for key in revision.plan.keys)
        self._tell()

    def _split(self, deployment: Deployment) -> None:
        """Have a split of the present shares that goes on where the one before is.

        The places of keys are those of the shares as they will be when all that comes is there: a version that is away
        for a moment, as at a start, gets its own keys back.
        """
        rollout = deployment.rollout
        places = reassign(rollout.places, rollout.shares(deployment.able()))
        if places != rollout.places:
            deployment.rollout = msgspec.structs.replace(rollout, places=places)
            self._moved(deployment.name)
        current = deployment.current
        sticky = current is None or current.plan.traffic.sticky_by == "route-key"
        deployment.split = Split.continuing(deployment.split, deployment.shares(), places, sticky)

    def _leave(self, revision: Revision, why: str) -> None:
        """It was rolled back: out of traffic at once, and out of memory."""
        if revision.task is not None and not revision.task.done():
            revision.task.cancel()
        self._become(revision, "rolledBack", why)
        self._release(revision)

    def _put_down(self, revision: Revision, reason: str) -> None:
        """Unload a version that stays known."""
        self._become(revision, "unloaded", reason)
        self._release(revision)

    def _release(self, revision: Revision) -> None:
        self._stop(revision)
        revision.version, revision.task, revision.waits = None, None, False

    def _become(self, revision: Revision, state: str, reason: str) -> None:
        revision.state, revision.reason, revision.last_update = follow(revision.state, state), reason, time.time()
        message = state + (f": {reason}" if reason else "")
        self._emit(f"version-{state}", message, deployment=revision.plan.name, version=revision.label)

    def _spawn(self, work: Awaitable[None]) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("bringing up a version failed", exc_info=task.exception())

    # -- what others read --------------------------------------------------------------------------------------

    @property
    def deployments(self) -> Mapping[str, Deployment]:
        return {name: deployment for name, deployment in self._deployments.items() if deployment.revisions}

    def deployment(self, name: str) -> Deployment:
        """Raises NotFound."""
        found = self._deployments.get(name)
        if found is None or not found.revisions:
            raise NotFound(f"no deployment is called {name!r}")
        return found

    def describe(self, name: str, version: str) -> Description:
        """What a version takes and gives. Raises NotFound, or Unavailable while it is not loaded."""
        route = self._route(name)
        label = route.resolve(version)
        if label is None:
            raise Unavailable(f"model {name} has no version that is ready")
        loaded = route.versions.get(label)
        if loaded is None:
            if label in route.known:
                raise Unavailable(f"version {label} of model {name} is not ready")
            raise NotFound(f"model {name} has no version {version}")
        versions = tuple(sorted(route.versions))
        return Description(name, label, versions, loaded.signature)

    def is_ready(self, name: str, version: str) -> bool:
        """Whether some target can serve it now. Raises NotFound."""
        route = self._route(name)
        label = route.resolve(version)
        loaded = route.versions.get(label) if label is not None else None
        if loaded is None and label is not None and label not in route.known:
            raise NotFound(f"model {name} has no version {version}")
        return loaded is not None and _usable(loaded, route.degrade)

    def index(self) -> list[IndexEntry]:
        states = {"ready": "READY", **dict.fromkeys(OVER, "UNAVAILABLE")}
        return [
            IndexEntry(name, revision.label, states.get(revision.state, "LOADING"), revision.reason)
            for name, deployment in sorted(self._deployments.items())
            for revision in deployment.revisions
        ]

    def serving(self) -> Mapping[str, bool]:
        """Whether each deployment has a target that can serve its split or its current version."""
        return {
            name: any(_usable(version, route.degrade) for version in route.versions.values())
            for name, route in self._table.routes.items()
        }

    def subscribe(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call ``changed`` whenever ``serving`` may have; returns what ends it."""
        self._listeners.append(changed)
        return lambda: self._listeners.remove(changed)

    def changed(self) -> None:
        """A worker or a target is not as it was: versions follow."""
        for deployment in list(self._deployments.values()):
            turned = False
            for revision in deployment.revisions:
                revision.stirred.set()
                if revision.ready and revision.refused:
                    turned = True
                    self._become(revision, "failed", reasons(revision.targets))
                elif revision.state == "failed" and revision.version and _usable(revision.version, "allow"):
                    turned = True
                    self._become(revision, "ready", "")
            if turned:
                self._publish(deployment)
        self._tell()

    def _tell(self) -> None:
        for listener in list(self._listeners):
            listener()

    def _route(self, name: str) -> Route:
        return self._table.find(name)


class _MemoryShort(Exception):
    """There is not the memory that the version needs."""


def _in_use(revision: Revision) -> bool:
    return revision.version is not None and revision.version.users > 0


def _usable(version: Version, degrade: str) -> bool:
    """Whether a target can serve that may: only the first one where the deployment says ``degrade: never``."""
    allowed = version.targets[:1] if degrade == "never" else version.targets
    return any(target.accepts_work for target in allowed)
