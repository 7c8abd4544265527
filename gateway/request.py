"""The nouns: what comes in (Request), what goes out (Answer), what happened (Outcome).

Those that are made of every request are structs of msgspec, which are made four times as fast as dataclasses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from msgspec import Struct

from gateway.errors import Code
from gateway.regions.region import Region, RegionSpan

Parameter = bool | int | float | str


@dataclass(frozen=True, slots=True)
class Quantisation:
    """Integers stand for real values: ``scale * (integer - zero_point)``; one of each, or one per index of ``axis``."""

    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, protocol datatype and shape (-1: any size) of a model's input or output."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    quantisation: Quantisation | None = None
    """None: the model does not say that its integers stand for other values."""


@dataclass(frozen=True, slots=True)
class Signature:
    """What a version takes and gives, as its worker reported it."""

    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    inputs_by_name: Mapping[str, TensorSpec] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs_by_name", {spec.name: spec for spec in self.inputs})


@dataclass(frozen=True, slots=True)
class Description:
    """What clients may know of a loaded version."""

    name: str
    version: str
    versions: tuple[str, ...]
    """All that are loaded."""
    signature: Signature


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One line of the repository index; ``state`` in Triton's words: READY, LOADING, UNLOADING, UNAVAILABLE."""

    name: str
    version: str
    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class Statistics:
    """Sums of one version since the gateway began: counts, and nanoseconds in all."""

    success_count: int = 0
    success_ns: int = 0
    fail_count: int = 0
    fail_ns: int = 0
    queue_ns: int = 0
    compute_ns: int = 0
    last_inference_ms: int = 0
    """Milliseconds since the epoch; 0: never."""


class InputTensor(Struct, frozen=True, gc=False):
    """One tensor as it came in. ``data`` views the bytes of the message: nobody parses or copies them on the way. Where
    they lie in memory that the client shares, it says where.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: memoryview | RegionSpan


class Request(Struct, eq=False):
    """One ModelInfer, checked for form by the front, not yet against the model."""

    model: str
    version: str
    """Empty: the split decides; else a version or the alias ``current`` or ``previous``."""
    id: str
    inputs: Sequence[InputTensor]
    outputs: tuple[str, ...]
    """Names of the wanted outputs; empty: all."""
    received: float
    """Monotonic seconds at which the handler began."""
    nbytes: int
    """Size of the message, and of its inputs in regions: a worker may have to copy them."""
    form: object | None = None
    """The same object for all requests that differ in nothing but the values of their tensors, or where these lie in a
    region; None: not known."""
    deadline: float | None = None
    """gRPC deadline, monotonic seconds; None: the caller set none."""
    timeout: float | None = None
    """The ``timeout`` parameter, seconds after ``received``."""
    priority: int = 5
    """1 highest to 9."""
    route_key: str | None = None
    stream_key: str | None = None
    degrade: str | None = None
    """``allow`` or ``never``; None: as the deployment says."""
    traceparent: str | None = None
    tracestate: str | None = None
    hops: int = 0
    """Gateways that have sent it on to another one."""
    into: Mapping[str, RegionSpan] = {}
    """Outputs that are to be written into regions."""
    regions: Sequence[Region] = ()
    """All that it uses; each was entered and is to be left."""


class OutputTensor(Struct, frozen=True, gc=False):
    """One tensor of an answer; ``data`` views a slot and is valid until ``Answer.release``, or says where in a region
    it was written.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: memoryview | RegionSpan


class Run(Protocol):
    """A run that was sent to a worker; ``dispatch.pending.Pending`` is the real one."""

    @property
    def begun(self) -> bool:
        """Whether the worker has begun it."""
        ...


class AttemptRecord(Struct, eq=False):
    """One try on one target. Times are monotonic seconds; 0 where the stage was not reached."""

    target: str
    """Worker name."""
    accelerator: str
    kind: str
    started: float
    ended: float = 0.0
    run_started: float = 0.0
    """By the worker's clock, which is ours."""
    run_ended: float = 0.0
    worker_received: float = 0.0
    error: str = ""
    """Empty: it answered."""
    reason: str = ""
    worker_pid: int = 0
    run: Run | None = None
    shared: int = 1
    """Requests that its run of the model answered."""
    provenance: str = ""
    """Where the model was proved to run."""


class Outcome(Struct, eq=False):
    """What happened to one request: filled on its way, recorded once."""

    model: str
    received: float
    request_id: str = ""
    version: str = ""
    target: str = ""
    accelerator: str = ""
    kind: str = ""
    degraded: bool = False
    reason: str = ""
    """Why the first target did not serve."""
    code: Code = Code.OK
    message: str = ""
    deadline: float = 0.0
    """Monotonic seconds at which the budget ends; 0: refused before it had one."""
    budget: float = 0.0
    """Seconds it had in all."""
    attempts: list[AttemptRecord] = []
    served: AttemptRecord | None = None
    """The attempt that answered; not always the last one."""
    queue_seconds: float = 0.0
    """Received until the run that answered began."""
    compute_seconds: float = 0.0
    """The run that answered."""
    skipped: Mapping[str, str] = {}
    """Better-ranked targets passed over, with the reason of each."""
    counts_against_model: bool = False
    min_budget: float | None = None
    finished: float = 0.0
    traceparent: str | None = None
    tracestate: str | None = None
    transport: str = ""

    @property
    def begun(self) -> bool:
        """Whether a worker has begun it."""
        return any(attempt.run is not None and attempt.run.begun for attempt in self.attempts)

    def serve(self, attempt: AttemptRecord) -> None:
        """This attempt answered."""
        self.served = attempt
        self.target, self.accelerator, self.kind = attempt.target, attempt.accelerator, attempt.kind
        queue, compute = attempt.run_started - self.received, attempt.run_ended - attempt.run_started
        self.queue_seconds = queue if queue > 0.0 else 0.0
        self.compute_seconds = compute if compute > 0.0 else 0.0

    @property
    def total_seconds(self) -> float:
        total = self.finished - self.received
        return total if total > 0.0 else 0.0

    @property
    def budget_left(self) -> float:
        return self.deadline - self.finished if self.deadline else 0.0

    @property
    def missed_budget(self) -> bool:
        """Answered, but late; or not answered in time."""
        return bool(self.deadline) and (self.finished > self.deadline or self.code is Code.DEADLINE_EXCEEDED)


class Answer(Struct, eq=False):
    """The tensors of an answer, in a slot that must be given back with ``release()`` once they are copied out."""

    outputs: Sequence[OutputTensor]
    outcome: Outcome
    release: Callable[[], None]
