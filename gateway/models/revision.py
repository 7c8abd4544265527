"""Revisions: each content that was ever offered for a version, and which of them serve."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.models.artifact import Artifact, Told
from gateway.models.fetches import Fetches
from gateway.models.manifest import Check, Drift, Feedback, Rollback, Samples, Traffic
from gateway.models.rollout import Rollout, Standing, first_share
from gateway.models.states import COMING
from gateway.routing.split import Split
from gateway.routing.table import Route
from gateway.target import Target, Version

_TRAFFIC, _ROLLBACK, _FEEDBACK = Traffic(), Rollback(), Feedback()


@dataclass(frozen=True, slots=True)
class PlannedArtifact:
    """One of the files that a version can be loaded from."""

    accelerator: str
    """Backend kind of the workers that take it; empty: all others."""
    suffix: str
    fetch: Callable[[Told], Artifact]
    """Blocks: run it in a thread. Raises ArtifactRefused."""
    local: bool = True
    check: Check | None = None
    """How it is held to the golden samples; None: the rule for files of its kind."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a version should be, from a manifest or from the repository."""

    name: str
    version: str
    order: tuple[int, int]
    """Later is newer: see ``rollout.Rank``."""
    content: str
    """Changes when the file or the settings do."""
    file: str
    """Changes when the file or the targets do: the same file needs no second load."""
    artifacts: tuple[PlannedArtifact, ...]
    """The model's file first."""
    keys: frozenset[str] = frozenset()
    """Of all its files in the store; empty: they are not from there."""
    golden: Callable[[Told], Artifact] | None = None
    """Fetches the golden samples; blocks."""
    reference: Callable[[Told], Artifact] | None = None
    """Fetches the outputs that drift is measured against; blocks."""
    targets: tuple[str, ...] = ()
    """Worker names or backend kinds; empty: all workers that load such files."""
    may_leave: bool = False
    """The manifest has ``targets``: those among them that are remote are meant."""
    percent: int | None = None
    budget: float | None = None
    reject_infeasible: bool = False
    degrade: str = "allow"
    checksum: str = ""
    batch_size: int = 1
    batch_delay: float = 0.0
    """Seconds."""
    min_memory: int = 0
    """Bytes that must be available before it is loaded; 0: it does not say."""
    traffic: Traffic = _TRAFFIC
    rollback: Rollback = _ROLLBACK
    drift: Drift | None = None
    feedback: Feedback = _FEEDBACK
    samples: Samples | None = None

    def same_file(self, other: Plan) -> bool:
        return self.file == other.file

    def standing(self) -> Standing:
        """Where the version stands as it was declared."""
        percent, steps = first_share(self.percent, self.traffic.steps)
        return Standing(
            self.version,
            self.content,
            self.order,
            percent,
            steps,
            self.traffic.step_seconds,
            shadow=self.traffic.shadow,
            previous_version=self.rollback.previous_version or "",
        )


@dataclass(slots=True, eq=False)
class Revision:
    """One content of one version on its way up or in service.

    ``state``: one of ``models.states``.
    """

    plan: Plan
    state: str = "new"
    reason: str = ""
    last_update: float = 0.0
    sha256: str = ""
    progress: tuple[int, int] | None = None
    """Bytes fetched, bytes in all (0: not known); None: nothing is being fetched."""
    artifact: Artifact | None = None
    """The model's file, once it is there."""
    fetches: Fetches | None = None
    """Its files on their way here."""
    version: Version | None = None
    targets: list[Target] = field(default_factory=list)
    task: asyncio.Task[None] | None = None
    adopted: bool = False
    """Its loaded files belong to a newer revision now."""
    short_of_memory: bool = False
    """It is not loaded only because memory was short: it is brought up again when there is enough."""
    held: bool = False
    """A command waits for it: it stays loaded, whatever the roll-out says so far."""
    abroad: bool = False
    """It has no target here that can serve it: it waits for a remote one, for as long as that takes."""
    stirred: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when one of its targets may have got further, or been lost."""
    waits: bool = False
    """It has failed, or is barred, and its task goes on: it waits for what is out of reach."""
    granted: bool = False
    """It may take the memory that it needs, and has not yet."""
    retry_at: float = -math.inf
    """Monotonic seconds before which that is not tried."""

    @property
    def label(self) -> str:
        return self.plan.version

    @property
    def ready(self) -> bool:
        return self.state == "ready" and self.version is not None

    @property
    def may_come_back(self) -> bool:
        """It has failed, and is in service again as soon as a worker loads it."""
        return self.waits or (self.state == "failed" and self.version is not None)

    @property
    def refused(self) -> bool:
        """No target is left that has not refused it. (One whose worker is only lost has not.)"""
        return all(target.failure or target.worker is None for target in self.targets)

    @property
    def last_used(self) -> float:
        """Monotonic seconds of the newest attempt on any of its targets; minus infinity: there was none."""
        return max((target.tried or -math.inf for target in self.targets), default=-math.inf)

    def adopt(self, twin: Revision) -> None:
        """Take over what an older revision of the same file has loaded."""
        self.version, self.targets, self.sha256 = twin.version, twin.targets, twin.sha256
        self.artifact, self.fetches = twin.artifact, twin.fetches
        twin.adopted = True


@dataclass(slots=True, eq=False)
class Deployment:
    """All revisions of one name, oldest first, and the roll-out that says which of them take which traffic."""

    name: str
    rollout: Rollout = field(default_factory=Rollout)
    revisions: list[Revision] = field(default_factory=list)
    split: Split = field(default_factory=lambda: Split(()))

    def serving(self, label: str) -> Revision | None:
        """The revision of this label that is in service."""
        return next((r for r in reversed(self.revisions) if r.label == label and r.ready), None)

    def newest(self, label: str) -> Revision | None:
        return next((r for r in reversed(self.revisions) if r.label == label), None)

    def supersede(self, revision: Revision) -> list[Revision]:
        """Add a revision; returns older ones of its label that never got into service and now never will."""
        stale = [r for r in self.revisions if r.label == revision.label and not r.ready]
        self.revisions = [r for r in self.revisions if r not in stale]
        self.revisions.append(revision)
        return stale

    def replaced(self) -> list[Revision]:
        """Revisions that are or were in service, and whose label has a newer one in service."""
        return [r for r in self.revisions if r.version is not None and self.serving(r.label) not in (None, r)]

    def ready(self) -> list[Revision]:
        """In service, one per label."""
        return [r for r in self.revisions if r.ready and self.serving(r.label) is r]

    def labels(self) -> set[str]:
        return {revision.label for revision in self.revisions}

    def able(self) -> set[str]:
        """Versions that are in service, or come into it, or would if they were wanted."""
        never = ("failed", "barred")
        return {r.label for r in self.revisions if r.state not in never and not r.short_of_memory}

    def coming(self) -> set[str]:
        """Versions that are on their way up."""
        return {r.label for r in self.revisions if r.state in COMING}

    def serving_labels(self) -> set[str]:
        return {revision.label for revision in self.ready()}

    @property
    def current(self) -> Revision | None:
        standing = self.rollout.current(self.serving_labels())
        return self.serving(standing.label) if standing else None

    @property
    def previous(self) -> Revision | None:
        standing = self.rollout.previous(self.serving_labels())
        return self.serving(standing.label) if standing else None

    def surplus(self) -> list[Revision]:
        """In service, but need not stay loaded."""
        ready = self.ready()
        kept = self.rollout.kept({r.label for r in ready})
        return [r for r in ready if r.label not in kept and not r.held]

    def missing(self) -> list[Revision]:
        """Not loaded, though the roll-out wants them to be."""
        wanted = self.rollout.kept(self.able())
        newest = (self.newest(label) for label in wanted)
        return [r for r in newest if r is not None and r.state in ("new", "unloaded", "rolledBack") and r.task is None]

    def needed(self) -> dict[str, str]:
        """Keys of the files of the versions that are to be loaded, or were there a restart; each with whose it is."""
        returning = {r.label for r in self.revisions if r.may_come_back}
        kept = self.rollout.kept(self.able()) | self.coming() | self.serving_labels() | returning
        return {key: f"{self.name} {r.label}" for r in self.revisions if r.label in kept for key in r.plan.keys}

    def unshared(self) -> list[Revision]:
        """Ready ones that only a pin reaches: neither current nor previous, and without a share or a shadow."""
        kept = (self.current, self.previous)
        standing = self.rollout.find
        return [
            r
            for r in self.ready()
            if r not in kept and (s := standing(r.label)) is not None and not s.percent and not s.shadow
        ]

    def _mirrored(self, revision: Revision) -> bool:
        """Whether it gets copies: as a shadow, or for a rule on its agreement."""
        standing = self.rollout.find(revision.label)
        return standing is not None and (standing.shadow or revision.plan.rollback.min_agreement is not None)

    def shares(self) -> list[tuple[str, int]]:
        return self.rollout.shares(self.serving_labels())

    def route(self) -> Route:
        """What the hot path needs to know, as of now."""
        current, previous, ready = self.current, self.previous, self.ready()
        plan = current.plan if current is not None else None
        return Route(
            self.name,
            {r.label: r.version for r in ready if r.version is not None},
            frozenset(r.label for r in self.revisions),
            self.split,
            current.label if current else None,
            previous.label if previous else None,
            plan.budget if plan else None,
            plan.reject_infeasible if plan else False,
            plan.degrade if plan else "allow",
            tuple(r.version for r in ready if r is not current and r.version is not None and self._mirrored(r)),
        )
