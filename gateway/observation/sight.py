"""Which answers are looked at, and the copy of them that is taken before their slots are given back."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from gateway.models.manifest import Check, Drift
from gateway.models.revision import Deployment, Revision
from gateway.observation.figures import SamplePolicy, Seen, Watched
from gateway.observation.mirror import Mirror, copied
from gateway.observation.ports import Observer
from gateway.observation.references import References
from gateway.regions.region import RegionSpan
from gateway.request import Answer, InputTensor, Request
from gateway.routing.table import Table
from gateway.target import LoadOrder, Version

SMALL = 64 * 1024
"""Bytes of an answer that is looked at: larger ones are images and masks, which no label and no score is for."""
PER_SECOND, AT_ONCE = 500.0, 2000.0
"""Answers without an id that are looked at, of one version: as a rule, and after a while with fewer."""
LARGEST_SAMPLE = 8 << 20
"""Bytes of a request whose inputs are kept."""
WAITING_BYTES = 32 << 20
"""Of copies that are not handed on yet: beyond it they are dropped, and counted."""
SOON = 0.005
"""Seconds after which copies are handed on, several at once: right after an answer the core is needed to send it."""


@dataclass(slots=True)
class Handing:
    """Hands copies on to the observer when their answers are on their way."""

    observer: Observer
    loop: asyncio.AbstractEventLoop
    dropped: int = 0
    """Copies that nobody looks at, because too many waited."""
    _waiting: list[tuple[Sight, str, tuple[Seen, ...], tuple[InputTensor, ...]]] = field(default_factory=list)
    _bytes: int = 0

    def later(
        self, sight: Sight, request_id: str, nbytes: int, outputs: tuple[Seen, ...], inputs: tuple[InputTensor, ...]
    ) -> None:
        """``inputs``: to be kept as a sample; ``nbytes``: of all that."""
        if self._bytes + nbytes > WAITING_BYTES:
            self.dropped += 1
            return
        self._bytes += nbytes
        self._waiting.append((sight, request_id, outputs, inputs))
        if len(self._waiting) == 1:
            self.loop.call_later(SOON, self.hand_on)

    def hand_on(self) -> None:
        waiting, self._waiting, self._bytes = self._waiting, [], 0
        for sight, request_id, outputs, inputs in waiting:
            if outputs:
                self.observer.answered(sight.model, sight.label, request_id, outputs)
            if inputs:
                seen = [Seen(each.name, each.datatype, each.shape, _held(each)) for each in inputs]
                self.observer.inputs(sight.model, sight.label, request_id, seen)


@dataclass(slots=True, eq=False)
class Sight:
    """Looks at the answers of one version."""

    model: str
    version: Version
    handing: Handing
    mirror: Mirror
    watched: Watched
    mirrored: bool = False
    """Its deployment has shadows."""
    _allowance: float = AT_ONCE
    _refilled_at: float = 0.0

    @property
    def label(self) -> str:
        return self.version.label

    def answered(self, request: Request, answer: Answer) -> None:
        """Copy what is wanted of it. Costs 0.1 us where that is nothing."""
        named, watched = bool(request.id), self.watched
        if not (named or watched.reference or self.mirrored or watched.samples):
            return
        nbytes = 0
        for tensor in answer.outputs:
            if isinstance(tensor.data, RegionSpan):
                return  # the caller may write there
            nbytes += tensor.data.nbytes
        shadow = self.mirror.wants(request, self.version, nbytes) if self.mirrored and not request.version else None
        if shadow is not None:
            self.mirror.begin(request, shadow, copied(answer.outputs))
        outputs: tuple[Seen, ...] = ()
        if named or watched.reference is not None:
            names = watched.names(named)
            looked_at = answer.outputs if names is None else [each for each in answer.outputs if each.name in names]
            size = nbytes if names is None else sum(each.data.nbytes for each in looked_at)
            if size <= SMALL and (named or self._allowed()):
                outputs = copied(looked_at)
        inputs = tuple(request.inputs) if watched.samples is not None and self._sampled(request) else ()
        if outputs or inputs:
            self.handing.later(self, request.id, SMALL + request.nbytes if inputs else nbytes, outputs, inputs)

    def _allowed(self) -> bool:
        now = self.handing.loop.time()
        self._allowance = min(AT_ONCE, self._allowance + (now - self._refilled_at) * PER_SECOND)
        self._refilled_at = now
        if self._allowance < 1.0:
            return False
        self._allowance -= 1.0
        return True

    def _sampled(self, request: Request) -> bool:
        due = self.handing.observer.sample_due(self.model, self.label)
        return due and not request.regions and request.nbytes <= LARGEST_SAMPLE


@dataclass(slots=True)
class Sights:
    """Gives each version the look that its settings ask for."""

    table: Table
    handing: Handing
    mirror: Mirror
    shadows: CpuShadows
    references: References
    samples: Path
    """Folder for those that are kept."""
    _files: dict[tuple[str, str], str] = field(default_factory=dict)
    """Which files the figures of each version are of."""

    def refresh(self, deployments: Iterable[Deployment]) -> None:
        """Follow what is loaded now: to be called when versions have come or gone, or got other settings."""
        orders: set[LoadOrder] = set()
        for deployment in deployments:
            route = self.table.routes.get(deployment.name)
            shadows = route.shadow if route is not None else ()
            orders |= {order for version in shadows for order in cpu_orders(version)}
            for revision in deployment.ready():
                version = revision.version
                assert version is not None
                key = deployment.name, version.label
                if self._files.setdefault(key, revision.plan.file) != revision.plan.file:
                    self.forget(*key)  # what is known is of other files with the same label
                    self._files[key] = revision.plan.file
                    version.seen = None
                sight, watched = version.seen, self._watched(revision)
                if not isinstance(sight, Sight) or sight.watched != watched:
                    self.handing.observer.watch(*key, watched)
                    version.seen = sight = Sight(deployment.name, version, self.handing, self.mirror, watched)
                sight.mirrored = any(each is not version for each in shadows)
        self.shadows.keep(orders)

    def forget(self, model: str, label: str) -> None:
        """Let go of what is known of a version, its labels included."""
        self._files.pop((model, label), None)
        self.mirror.forget(model, label)
        self.references.forget(model, label)
        self.handing.observer.forget(model, label)

    def _watched(self, revision: Revision) -> Watched:
        plan = revision.plan
        drift, reference = plan.drift or Drift(), self.references.of(plan)
        samples: SamplePolicy | None = None
        if plan.samples is not None:
            folder = self.samples / plan.name / plan.version
            samples = SamplePolicy(plan.samples.every, plan.samples.max_mb << 20, folder)
        return Watched(
            reference.path,
            drift.output,
            drift.window,
            plan.rollback.max_drift,
            plan.feedback.output,
            plan.feedback.window,
            plan.artifacts[0].check or Check(),
            samples,
            reference.problem,
        )


class CpuShadows(Protocol):
    """Where shadows run on the CPU; ``dispatch.shadow`` has the real one."""

    def keep(self, orders: Collection[LoadOrder]) -> None: ...


def cpu_orders(version: Version) -> list[LoadOrder]:
    """The files that it has on the CPU."""
    return [
        target.order
        for target in version.targets
        if target.order is not None and target.worker is not None and target.worker.backend == "cpu"
    ]


def _held(tensor: InputTensor) -> memoryview:
    """Of a request without regions, all tensors are in its message."""
    assert not isinstance(tensor.data, RegionSpan)
    return tensor.data
