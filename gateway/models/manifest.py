"""ModelDeployment: what an ``edge.ai/v1`` manifest says. One manifest declares one version of one deployment."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from msgspec import Meta, field

from gateway.typed_config import Problem, Section, show

Name = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$", description="letters, digits, . _ -; at most 128")
]
Label = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,127}$", description="an opaque label: semver, number, date")
]
Checksum = Annotated[str, Meta(pattern=r"^sha256:[0-9a-fA-F]{64}$", description="sha256: and 64 hex digits")]
Uri = Annotated[str, Meta(min_length=1, max_length=4096)]
Percent = Annotated[int, Meta(ge=0, le=100)]
Ratio = Annotated[float, Meta(ge=0, le=1)]
Positive = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=1)]

SCHEMES = ("file", "http", "https", "s3", "gs", "az", "oci")
RESERVED = ("current", "previous")
"""Aliases in requests, so no version may be called so."""
_RATE = re.compile(r"(100|[1-9]?[0-9])(\.[0-9]+)?%")
_ACCELERATORS = {"coral": "edgetpu", "apple-neural-engine": "coreml", "hexagon": "qnn"}


def accelerator_kind(alias: str) -> str:
    """Backend kind of a name in ``hardware.accelerator``: jetson-* is tensorrt, coral edgetpu, ..."""
    return "tensorrt" if alias.startswith("jetson-") else _ACCELERATORS.get(alias, alias)


def hex_digest(checksum: str) -> str:
    """64 hex digits, lower case, of ``sha256:...``."""
    return checksum.removeprefix("sha256:").lower()


def _check_uri(uri: str, path: tuple[str, ...]) -> None:
    scheme = uri.partition(":")[0]
    if ":" not in uri or scheme not in SCHEMES:
        raise Problem(path, f"expected a URI with one of {', '.join(SCHEMES)}, got {show(uri)}")


class Metadata(Section, frozen=True):
    """Identity and notes. ``counter``: of a signed manifest; one that is lower than the highest ever accepted for this
    name is a replay, and refused.
    """

    name: Name
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    counter: Annotated[int, Meta(ge=0)] | None = None


class ExternalData(Section, frozen=True):
    """A file with weights that an ONNX model names. ``path``: as the model names it, a bare file name; ``uri``: by
    default beside the model.
    """

    path: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$", description="a file name, no folders")]
    checksum: Checksum
    uri: Uri | None = None
    size: Count | None = None

    def __post_init__(self) -> None:
        if self.uri is not None:
            _check_uri(self.uri, ("uri",))


class ModelFile(Section, frozen=True):
    """The file of this version. ``size``: its bytes, where known: a longer download is ended at the first byte more."""

    uri: Uri
    version: Label
    checksum: Checksum
    size: Count | None = None
    external_data: tuple[ExternalData, ...] = ()

    def __post_init__(self) -> None:
        _check_uri(self.uri, ("uri",))
        if self.version in RESERVED:
            raise Problem(("version",), f"{show(self.version)} is an alias, a version can't be called so")


class Tolerance(Section, frozen=True):
    """How far a value may be from the golden one: ``|value - golden| <= atol + rtol * |golden|``."""

    rtol: Annotated[float, Meta(ge=0)] = 0.0
    atol: Annotated[float, Meta(ge=0)] = 0.0


class Check(Section, frozen=True):
    """What agreeing with the golden samples means: at most one of ``tolerance`` (each value), ``top1`` (share of the
    samples with the same largest value) and ``cosine`` (least likeness of an output, as the cosine of the angle).
    None of them: tolerance for a file of floats, else top1 and cosine.
    """

    tolerance: Tolerance | None = None
    top1: Ratio | None = None
    cosine: Ratio | None = None

    def __post_init__(self) -> None:
        if sum(rule is not None for rule in (self.tolerance, self.top1, self.cosine)) > 1:
            raise Problem((), "expected one of tolerance, top1, cosine, got several")


class Artifact(Section, frozen=True):
    """Another file of the same version, for one kind of accelerator. ``golden``: how it is held to the version's golden
    samples.
    """

    accelerator: Name
    uri: Uri
    checksum: Checksum
    size: Count | None = None
    external_data: tuple[ExternalData, ...] = ()
    golden: Check | None = None

    def __post_init__(self) -> None:
        _check_uri(self.uri, ("uri",))


class Rollback(Section, frozen=True):
    """When to leave this version by itself, and for which. Beyond ``errorThreshold``, which ``autoRollbackOnError``
    turns on, each rule that is given acts.
    """

    previous_version: Label | None = None
    auto_rollback_on_error: bool = False
    error_threshold: Count | str = 5
    error_window_seconds: Positive = 60.0
    max_latency_ratio: Positive | None = None
    min_agreement: Ratio | None = None
    min_accuracy: Ratio | None = None
    max_drift: Positive | None = None

    def __post_init__(self) -> None:
        if isinstance(self.error_threshold, str) and not _RATE.fullmatch(self.error_threshold):
            raise Problem(
                ("errorThreshold",), f'expected a count or a rate like "5%", got {show(self.error_threshold)}'
            )


class Hardware(Section, frozen=True):
    """What the version is meant for."""

    accelerator: Name | None = None
    min_memory_mb: Count | None = field(name="minMemoryMB", default=None)


class Latency(Section, frozen=True):
    """Budget of a request that sets none, and what to do when nobody makes it."""

    budget_ms: Positive | None = None
    when_infeasible: Literal["best-effort", "reject"] = "best-effort"
    degrade: Literal["allow", "never"] = "allow"


class Traffic(Section, frozen=True):
    """The version's share of requests. ``steps``: percents that it gets one after the other, each for ``stepSeconds``,
    as long as nothing speaks against it. ``shadow``: it gets copies of requests that others answer, at low priority.
    ``stickyBy``: ``route-key``: requests with ``edgeway_route_key`` are placed by it.
    """

    percent: Percent | None = None
    sticky_by: Literal["route-key", "none"] = "route-key"
    shadow: bool = False
    steps: tuple[Annotated[int, Meta(ge=1, le=100)], ...] = ()
    step_seconds: Positive = 300.0

    def __post_init__(self) -> None:
        if list(self.steps) != sorted(set(self.steps)):
            raise Problem(("steps",), f"must rise, got {list(self.steps)}")


class Golden(Check, frozen=True, kw_only=True):
    """Samples that the version must answer right before it gets traffic: an ``.npz`` file with an array for each input
    and each output, by name, the samples along a first axis of their own.
    """

    uri: Uri
    checksum: Checksum | None = None

    def __post_init__(self) -> None:
        _check_uri(self.uri, ("uri",))
        super().__post_init__()


class Drift(Section, frozen=True):
    """How the drift of the outputs is seen. ``reference``: URI of an ``.npz`` file with outputs, by name, for inputs
    that the model was not trained on; by default the golden samples. ``window``: newest answers that are looked at.
    """

    reference: Uri | None = None
    checksum: Checksum | None = None
    output: str | None = None
    window: Annotated[int, Meta(ge=50, le=100_000)] = 250

    def __post_init__(self) -> None:
        if self.reference is not None:
            _check_uri(self.reference, ("reference",))


class Feedback(Section, frozen=True):
    """Which output labels are compared with. ``window``: newest labels that accuracy is taken of."""

    output: str | None = None
    window: Annotated[int, Meta(ge=10, le=1_000_000)] = 1000


class Samples(Section, frozen=True):
    """Inputs that are kept on disk, for people to look at: every ``every``-th, up to ``maxMB``, oldest out first."""

    every: Count = 100
    max_mb: Count = field(name="maxMB", default=100)


class Batching(Section, frozen=True):
    """Joining of requests into one run, along axis 0: up to ``maxSize`` rows, after waiting up to ``maxDelayMs``."""

    max_size: Annotated[int, Meta(ge=1, le=1024)]
    max_delay_ms: Annotated[float, Meta(ge=0, le=1000)] = 0.0


class Spec(Section, frozen=True):
    """The version itself."""

    model: ModelFile
    rollback: Rollback = Rollback()
    hardware: Hardware = Hardware()
    artifacts: tuple[Artifact, ...] = ()
    targets: tuple[Name, ...] = ()
    latency: Latency = Latency()
    traffic: Traffic = Traffic()
    golden: Golden | None = None
    batching: Batching | None = None
    drift: Drift | None = None
    feedback: Feedback = Feedback()
    samples: Samples | None = None


class ModelDeployment(Section, frozen=True):
    """One version of one deployment, as an ``edge.ai/v1`` manifest declares it."""

    api_version: Literal["edge.ai/v1"]
    kind: Literal["ModelDeployment"]
    metadata: Metadata
    spec: Spec

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def version(self) -> str:
        return self.spec.model.version

    @property
    def sha256(self) -> str:
        """Hex digest of the model's file, lower case."""
        return hex_digest(self.spec.model.checksum)

    def target_order(self) -> tuple[str, ...]:
        """Worker names or backend kinds in order of preference: ``targets``, else the accelerator and the CPU."""
        if self.spec.targets:
            return tuple(dict.fromkeys(self.spec.targets))
        accelerator = self.spec.hardware.accelerator
        return tuple(dict.fromkeys([accelerator_kind(accelerator), "cpu"] if accelerator else ["cpu"]))
