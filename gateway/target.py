"""Target: one model version on one worker; Version: what serves a request once the split has decided."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from edgeway.frames import aligned
from edgeway.tensors import BY_NAME, nbytes
from gateway.request import Signature, TensorSpec
from gateway.routing.estimate import RunEstimate

FIRST_SUSPICION = 0.25
"""Seconds for which a target that let an attempt expire comes after the others; doubled each time, until an answer."""
LONGEST_SUSPICION = 4.0
STALE_AFTER = 1.0
"""Seconds without an attempt after which a target that seems too slow gets one, with time left for the next target."""


@dataclass(frozen=True, slots=True)
class LoadOrder:
    """A file that a worker should have loaded, again after each restart."""

    name: str
    version: str
    path: str
    sha256: str


class WorkerView(Protocol):
    """What a target needs to know of its worker; ``dispatch.pool.Worker`` is the real one."""

    name: str
    backend: str
    kind: str
    state: str
    """ready, busy, hot, lost or unknown."""
    reason: str
    since: float
    """Wall-clock seconds of the last change of state."""

    def expected_wait(self) -> float:
        """Seconds until a run that came now would begin."""
        ...


@dataclass(slots=True, eq=False)
class Target:
    """One version on one worker, with its estimate. Written by dispatch and the catalog, read by ranking.

    ``worker`` is None where the manifest names an accelerator that this device lacks.
    """

    name: str
    """Worker name, or the accelerator kind that is missing."""
    preference: int
    worker: WorkerView | None
    handle: int = 0
    """The worker's number for the loaded file; 0: not loaded."""
    failure: str = ""
    """Why the worker refused to load it."""
    estimate: RunEstimate = field(default_factory=RunEstimate)
    in_flight: int = 0
    suspect_until: float = 0.0
    suspicion: float = FIRST_SUSPICION
    tried: float = 0.0
    """When the last attempt began."""
    probing: bool = False
    """Whether that was the first one after a while."""
    output_bytes: int = 0
    """Largest answer seen: how much room a run's slot gets where the shapes do not say."""

    @property
    def accepts_work(self) -> bool:
        return self.handle != 0 and self.worker is not None and self.worker.state != "lost"

    def health(self, now: float) -> tuple[str, str]:
        """State and, where it is not ready, the word for why (``busy hot lost failed slow``)."""
        if self.worker is None:
            return "lost", "lost"
        if self.failure:
            return "lost", "failed"
        if self.worker.state == "lost" or self.handle == 0:
            return "lost", "lost"
        if self.worker.state in ("busy", "hot"):
            return self.worker.state, self.worker.state
        if now < self.suspect_until:
            return "busy", "slow"
        return "ready", ""

    def explain(self, now: float) -> str:
        """The state's reason for people."""
        if self.worker is None:
            return f"this device has no worker {self.name}"
        if self.failure:
            return self.failure
        if self.worker.state == "lost":
            return self.worker.reason
        if self.handle == 0:
            return "loading"
        return self.worker.reason or ("let an attempt expire" if now < self.suspect_until else "")

    def wait(self) -> float:
        return self.worker.expected_wait() if self.worker else 0.0

    def attempted(self, now: float) -> None:
        """An attempt begins."""
        self.probing = self.stale(now)
        self.tried = now

    def stale(self, now: float) -> bool:
        """Whether its estimate is of a time that may be over: a target that seems too slow is never measured again."""
        return now - self.tried > STALE_AFTER

    def expired(self, now: float) -> None:
        """An attempt's time was up before it answered: others come first for a while."""
        self.suspect_until = now + self.suspicion
        self.suspicion = min(2 * self.suspicion, LONGEST_SUSPICION)

    def answered(self, run_seconds: float, in_time: bool = True) -> None:
        """A run took so long; ``in_time``: before the time of its attempt was up.

        After a while without any, half the p95 says that the estimate is of another time: without forgetting it, one
        answer a second would take minutes to bring a target back.
        """
        if self.probing and run_seconds < 0.5 * (self.estimate.quantile(0.95) or 0.0):
            self.estimate.clear()
        self.estimate.add(run_seconds)
        if in_time:
            self.suspicion = FIRST_SUSPICION
            self.suspect_until = 0.0

    def __repr__(self) -> str:
        state = "unloaded" if not self.handle else (self.worker.state if self.worker else "missing")
        return f"<Target {self.name} {state} {self.in_flight} in flight>"


@dataclass(slots=True, eq=False)
class Version:
    """A version that is loaded, as the hot path sees it."""

    label: str
    signature: Signature
    targets: tuple[Target, ...]
    """In the manifest's order of preference."""
    users: int = 0
    """Requests between their routing and their answer."""
    retire: Callable[[], None] | None = None
    """Called once when the last user has left, after the catalog has taken the version out of the routes."""
    input_index: Mapping[str, int] = field(init=False)
    output_index: Mapping[str, int] = field(init=False)
    output_sizes: tuple[int | None, ...] = field(init=False)
    """Bytes of each output, aligned for a slot; None where the shape or the datatype does not say."""
    output_room: int | None = field(init=False)
    """Bytes of all outputs; None where one of them does not say."""

    def __post_init__(self) -> None:
        self.input_index = {spec.name: index for index, spec in enumerate(self.signature.inputs)}
        self.output_index = {spec.name: index for index, spec in enumerate(self.signature.outputs)}
        self.output_sizes = tuple(_fixed_size(spec) for spec in self.signature.outputs)
        known = [size for size in self.output_sizes if size is not None]
        self.output_room = sum(known) if len(known) == len(self.output_sizes) else None

    def enter(self) -> None:
        self.users += 1

    def leave(self) -> None:
        self.users -= 1
        if not self.users and self.retire is not None:
            retire, self.retire = self.retire, None
            retire()

    def retire_when_idle(self, retire: Callable[[], None]) -> None:
        """Call ``retire`` as soon as nobody uses the version, which may be now."""
        if self.users:
            self.retire = retire
        else:
            retire()

    def __repr__(self) -> str:
        return f"<Version {self.label} {list(self.targets)}>"


def _fixed_size(spec: TensorSpec) -> int | None:
    dtype = BY_NAME.get(spec.datatype)
    if dtype is None or not dtype.itemsize or any(size < 0 for size in spec.shape):
        return None
    return aligned(nbytes(spec.datatype, spec.shape))
