"""What a backend is: the plugin that drives one accelerator's runtime.

A backend has four verbs: ``probe`` (what is here?), ``load`` (a file becomes a model), ``Model.run`` and
``Model.close``. Everything else about it is data that it declares. No name of a backend stands anywhere else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Protocol, Sequence, Tuple, runtime_checkable

from workers.progress import Progress

NO_FILES: Mapping[str, bytes] = MappingProxyType({})


class BackendError(Exception):
    """Root of what a backend raises; anything else that comes out of one is a bug in it."""


class BackendUnavailable(BackendError):
    """The runtime or the device is missing. The message says because of what; ``code`` is one of ``CODES``; ``remedy``
    what to do about it, where it is another than the probe's.
    """

    def __init__(self, message: str, code: str = "", remedy: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.remedy = remedy


class ModelRejected(BackendError):
    """The file is no model, or one that this runtime refuses."""


class NotOnDevice(ModelRejected):
    """The runtime would run the model, or a part of it, elsewhere than this backend claims. The message says which
    share of its nodes, and the operators at fault.
    """


class ModelTooLarge(BackendError):
    """The model does not fit into the worker's memory."""


class RunFailed(BackendError):
    """The runtime raised during a run: the model's fault, as far as one can tell."""


class RunCancelled(BackendError):
    """The run was ended because nobody waits for it."""


class DeviceFault(BackendError):
    """The accelerator failed, not the model: reset, lost, out of memory."""


class InvalidInput(BackendError):
    """A BYTES tensor whose elements do not add up."""


@dataclass(frozen=True)
class Quantisation:
    """How the integers of a tensor stand for real values: ``scale * (integer - zero_point)``; one of each, or one per
    index of ``axis``.
    """

    scale: Tuple[float, ...]
    zero_point: Tuple[int, ...]
    axis: int = 0


@dataclass(frozen=True)
class TensorSpec:
    """Name, Open Inference Protocol datatype and shape of one input or output; -1 is any size."""

    name: str
    datatype: str
    shape: Tuple[int, ...]
    quantisation: Optional[Quantisation] = None
    """None: the model does not say that its integers stand for other values."""


class Tensor(NamedTuple):
    """One tensor as it travels: little-endian bytes in row-major order; BYTES elements each behind a 4-byte length.

    ``data`` of an input is a read-only view into a slot, valid until ``run`` returns. ``data`` of an output is owned
    by the caller, who copies it into a slot.
    """

    datatype: str
    shape: Tuple[int, ...]
    data: memoryview


MISSING_LIBRARY = "missing-library"
MISSING_DEVICE = "missing-device"
WRONG_DRIVER = "wrong-driver"
NO_PERMISSION = "no-permission"
DEVICE_BUSY = "device-busy"
UNSUPPORTED = "unsupported"
"""Not for this operating system or processor."""
BROKEN = "broken"
"""Code of the backend or its runtime crashes, hangs or raises what it should not."""
MISCONFIGURED = "misconfigured"
"""What the device config says of it makes no sense."""
CODES = (
    MISSING_LIBRARY,
    MISSING_DEVICE,
    WRONG_DRIVER,
    NO_PERMISSION,
    DEVICE_BUSY,
    UNSUPPORTED,
    BROKEN,
    MISCONFIGURED,
)


@dataclass(frozen=True)
class Probe:
    """Whether a backend can work here, because of what, and how to enable it. Found by devices, not by packages.
    ``code``: one of ``CODES`` where it can't.
    """

    available: bool
    reason: str
    remedy: str = ""
    devices: Sequence[str] = ()
    runtime: str = ""
    code: str = ""


@dataclass(frozen=True)
class Heat:
    """What the device says of itself; what a temperature means is the gateway's to decide."""

    temperature_c: Optional[float] = None
    """None: no sensor. A reading that makes no sense is passed on as it is."""
    throttled: bool = False
    """Whether the device says that it runs slower than it could."""
    backlog_seconds: float = 0.0
    """Time that work of others will still take before ours can begin."""
    lost: str = ""
    """Why the accelerator can't be used; empty if it can."""


@dataclass(frozen=True)
class Settings:
    """How the gateway wants its worker: from the device config, given once at start."""

    name: str = "worker"
    threads: int = 1
    """Threads inside one run."""
    instances: int = 1
    """Runs at a time."""
    memory_limit: int = 0
    """Bytes of address space beyond what the started worker has; 0 is no limit."""
    first_start: float = 0.0
    """Monotonic seconds at which the first process of this worker was started; 0: this one is the first."""
    starvation_seconds: float = 2.0
    """After so long in the queue a run goes before all that came later, whatever their priority."""
    spin_seconds: float = 0.0
    """How long to look for the next frame before going to sleep."""
    cache: str = ""
    """Folder for what is built of models and may be used again, of this worker's own; empty: there is none."""
    progress: Progress = field(default_factory=Progress)
    """Where the backend says what a load is at that takes its time."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The backend's own settings; unknown ones are refused by the backend."""


class Cancellation(Protocol):
    """Tells a run that nobody waits for it: ``on_cancel(stop)`` calls ``stop`` once, from another thread."""

    @property
    def cancelled(self) -> bool: ...

    def on_cancel(self, stop: Any) -> None: ...


class Bound(Protocol):
    """A model with its inputs and outputs in place, for one run after the other."""

    def run(self, cancellation: Cancellation) -> bool:
        """Run on what the inputs hold now; the outputs are in their places then. False: they do not fit there this
        time, though they did before, and the run has to be done by ``Model.run``.

        Raises:
            RunFailed, RunCancelled, DeviceFault.
        """
        ...


class Model(Protocol):
    """One loaded file. ``run`` may be called from several threads at once when the backend has several instances."""

    platform: str
    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]
    provenance: str
    """Where it was proved to run, for people: ``38 of 38 nodes on QNNExecutionProvider``."""

    def run(self, inputs: Dict[str, Tensor], outputs: Sequence[str], cancellation: Cancellation) -> List[Tensor]:
        """The wanted outputs, in the order of ``outputs``.

        Raises:
            RunFailed, RunCancelled, DeviceFault, InvalidInput.
        """
        ...

    def bind(self, inputs: Dict[str, Tensor], outputs: Dict[str, Tensor]) -> Optional[Bound]:
        """For many runs on the same memory: it is read and written in place. ``outputs`` are as a run on such inputs
        had them, but on the memory where later ones are to be left.

        None: the runtime can't, or gains nothing by it.
        """
        ...

    def close(self) -> None:
        """Give the memory back; no run is under way."""
        ...


@runtime_checkable
class Remembers(Protocol):
    """A model that may keep something from one run to the next."""

    def start_over(self) -> None:
        """Forget what the runs so far have left: they were a warm-up and golden samples. No run is under way."""
        ...


@runtime_checkable
class RunsElsewhere(Protocol):
    """A model that may run on something else than its backend drives."""

    kind: str
    """As that of a backend, for this model; empty: the backend's."""


@runtime_checkable
class LoadsForLong(Protocol):
    """A backend whose loads may take longer than the gateway would wait for them."""

    load_seconds: float
    """After which a load counts as hung, where the device config does not say. For other backends it is 300 s."""


class Backend(Protocol):
    """Drives one accelerator. Constructed with ``Settings``; ``probe`` is a class method that imports nothing heavy."""

    name: str
    kind: str
    """hardware, emulator, cpu or simulated: what every answer says of who computed it."""
    formats: Sequence[str]
    """Suffixes of the files it loads, best first."""
    datatypes: Sequence[str]
    """Those that inputs and outputs of its models may have. A model with others may be refused."""
    open_sizes: bool
    """Whether models may leave sizes to the request. Otherwise such a model may be refused."""
    empty_tensors: bool
    """Whether a size may be 0. Otherwise such a model, or such a run, may fail."""
    can_cancel: bool
    """Whether a run that has begun can be ended."""
    runtime: str
    device: str

    @classmethod
    def probe(cls) -> Probe: ...

    def load(self, content: bytes, name: str, external: Mapping[str, bytes] = NO_FILES) -> Model:
        """A model from the bytes of its file, and of files that it names, by those names (all verified). A model that
        names others must be refused, not looked for. ``name`` is for messages.

        Raises:
            BackendUnavailable, ModelRejected, ModelTooLarge.
        """
        ...

    def heat(self) -> Heat: ...
