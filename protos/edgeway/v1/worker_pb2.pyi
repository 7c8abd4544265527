from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TensorSpec(_message.Message):
    __slots__ = ("name", "datatype", "shape", "quantization")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DATATYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    QUANTIZATION_FIELD_NUMBER: _ClassVar[int]
    name: str
    datatype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    quantization: Quantization
    def __init__(self, name: _Optional[str] = ..., datatype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., quantization: _Optional[_Union[Quantization, _Mapping]] = ...) -> None: ...

class Quantization(_message.Message):
    __slots__ = ("scale", "zero_point", "axis")
    SCALE_FIELD_NUMBER: _ClassVar[int]
    ZERO_POINT_FIELD_NUMBER: _ClassVar[int]
    AXIS_FIELD_NUMBER: _ClassVar[int]
    scale: _containers.RepeatedScalarFieldContainer[float]
    zero_point: _containers.RepeatedScalarFieldContainer[int]
    axis: int
    def __init__(self, scale: _Optional[_Iterable[float]] = ..., zero_point: _Optional[_Iterable[int]] = ..., axis: _Optional[int] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("backend", "kind", "pid", "instances", "runtime", "device", "formats", "can_cancel", "load_seconds")
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    FORMATS_FIELD_NUMBER: _ClassVar[int]
    CAN_CANCEL_FIELD_NUMBER: _ClassVar[int]
    LOAD_SECONDS_FIELD_NUMBER: _ClassVar[int]
    backend: str
    kind: str
    pid: int
    instances: int
    runtime: str
    device: str
    formats: _containers.RepeatedScalarFieldContainer[str]
    can_cancel: bool
    load_seconds: float
    def __init__(self, backend: _Optional[str] = ..., kind: _Optional[str] = ..., pid: _Optional[int] = ..., instances: _Optional[int] = ..., runtime: _Optional[str] = ..., device: _Optional[str] = ..., formats: _Optional[_Iterable[str]] = ..., can_cancel: bool = ..., load_seconds: _Optional[float] = ...) -> None: ...

class Load(_message.Message):
    __slots__ = ("model", "name", "version", "path", "sha256", "warmup_runs", "batching", "external", "golden", "background")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    WARMUP_RUNS_FIELD_NUMBER: _ClassVar[int]
    BATCHING_FIELD_NUMBER: _ClassVar[int]
    EXTERNAL_FIELD_NUMBER: _ClassVar[int]
    GOLDEN_FIELD_NUMBER: _ClassVar[int]
    BACKGROUND_FIELD_NUMBER: _ClassVar[int]
    model: int
    name: str
    version: str
    path: str
    sha256: str
    warmup_runs: int
    batching: Batching
    external: _containers.RepeatedCompositeFieldContainer[ExternalFile]
    golden: Golden
    background: bool
    def __init__(self, model: _Optional[int] = ..., name: _Optional[str] = ..., version: _Optional[str] = ..., path: _Optional[str] = ..., sha256: _Optional[str] = ..., warmup_runs: _Optional[int] = ..., batching: _Optional[_Union[Batching, _Mapping]] = ..., external: _Optional[_Iterable[_Union[ExternalFile, _Mapping]]] = ..., golden: _Optional[_Union[Golden, _Mapping]] = ..., background: bool = ...) -> None: ...

class ExternalFile(_message.Message):
    __slots__ = ("name", "sha256")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    name: str
    sha256: str
    def __init__(self, name: _Optional[str] = ..., sha256: _Optional[str] = ...) -> None: ...

class Golden(_message.Message):
    __slots__ = ("path", "sha256", "tolerance", "top1", "cosine")
    class Tolerance(_message.Message):
        __slots__ = ("rtol", "atol")
        RTOL_FIELD_NUMBER: _ClassVar[int]
        ATOL_FIELD_NUMBER: _ClassVar[int]
        rtol: float
        atol: float
        def __init__(self, rtol: _Optional[float] = ..., atol: _Optional[float] = ...) -> None: ...
    PATH_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    TOLERANCE_FIELD_NUMBER: _ClassVar[int]
    TOP1_FIELD_NUMBER: _ClassVar[int]
    COSINE_FIELD_NUMBER: _ClassVar[int]
    path: str
    sha256: str
    tolerance: Golden.Tolerance
    top1: float
    cosine: float
    def __init__(self, path: _Optional[str] = ..., sha256: _Optional[str] = ..., tolerance: _Optional[_Union[Golden.Tolerance, _Mapping]] = ..., top1: _Optional[float] = ..., cosine: _Optional[float] = ...) -> None: ...

class Batching(_message.Message):
    __slots__ = ("max_size", "max_delay_seconds")
    MAX_SIZE_FIELD_NUMBER: _ClassVar[int]
    MAX_DELAY_SECONDS_FIELD_NUMBER: _ClassVar[int]
    max_size: int
    max_delay_seconds: float
    def __init__(self, max_size: _Optional[int] = ..., max_delay_seconds: _Optional[float] = ...) -> None: ...

class Loaded(_message.Message):
    __slots__ = ("model", "platform", "inputs", "outputs", "memory_bytes", "load_seconds", "warmup_seconds", "golden", "golden_deviation", "provenance", "kind")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PLATFORM_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    LOAD_SECONDS_FIELD_NUMBER: _ClassVar[int]
    WARMUP_SECONDS_FIELD_NUMBER: _ClassVar[int]
    GOLDEN_FIELD_NUMBER: _ClassVar[int]
    GOLDEN_DEVIATION_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    model: int
    platform: str
    inputs: _containers.RepeatedCompositeFieldContainer[TensorSpec]
    outputs: _containers.RepeatedCompositeFieldContainer[TensorSpec]
    memory_bytes: int
    load_seconds: float
    warmup_seconds: _containers.RepeatedScalarFieldContainer[float]
    golden: str
    golden_deviation: float
    provenance: str
    kind: str
    def __init__(self, model: _Optional[int] = ..., platform: _Optional[str] = ..., inputs: _Optional[_Iterable[_Union[TensorSpec, _Mapping]]] = ..., outputs: _Optional[_Iterable[_Union[TensorSpec, _Mapping]]] = ..., memory_bytes: _Optional[int] = ..., load_seconds: _Optional[float] = ..., warmup_seconds: _Optional[_Iterable[float]] = ..., golden: _Optional[str] = ..., golden_deviation: _Optional[float] = ..., provenance: _Optional[str] = ..., kind: _Optional[str] = ...) -> None: ...

class LoadFailed(_message.Message):
    __slots__ = ("model", "reason", "message")
    class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        REASON_UNSPECIFIED: _ClassVar[LoadFailed.Reason]
        REJECTED: _ClassVar[LoadFailed.Reason]
        CHECKSUM: _ClassVar[LoadFailed.Reason]
        UNREADABLE: _ClassVar[LoadFailed.Reason]
        MEMORY: _ClassVar[LoadFailed.Reason]
        UNAVAILABLE: _ClassVar[LoadFailed.Reason]
        BARRED: _ClassVar[LoadFailed.Reason]
    REASON_UNSPECIFIED: LoadFailed.Reason
    REJECTED: LoadFailed.Reason
    CHECKSUM: LoadFailed.Reason
    UNREADABLE: LoadFailed.Reason
    MEMORY: LoadFailed.Reason
    UNAVAILABLE: LoadFailed.Reason
    BARRED: LoadFailed.Reason
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    model: int
    reason: LoadFailed.Reason
    message: str
    def __init__(self, model: _Optional[int] = ..., reason: _Optional[_Union[LoadFailed.Reason, str]] = ..., message: _Optional[str] = ...) -> None: ...

class Loading(_message.Message):
    __slots__ = ("model", "text")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    model: int
    text: str
    def __init__(self, model: _Optional[int] = ..., text: _Optional[str] = ...) -> None: ...

class Warming(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: int
    def __init__(self, model: _Optional[int] = ...) -> None: ...

class Unload(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: int
    def __init__(self, model: _Optional[int] = ...) -> None: ...

class Unloaded(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: int
    def __init__(self, model: _Optional[int] = ...) -> None: ...

class Report(_message.Message):
    __slots__ = ("temperature_c", "queued", "running", "backlog_seconds", "resident_bytes", "lost", "throttled")
    TEMPERATURE_C_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    BACKLOG_SECONDS_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    THROTTLED_FIELD_NUMBER: _ClassVar[int]
    temperature_c: float
    queued: int
    running: int
    backlog_seconds: float
    resident_bytes: int
    lost: str
    throttled: bool
    def __init__(self, temperature_c: _Optional[float] = ..., queued: _Optional[int] = ..., running: _Optional[int] = ..., backlog_seconds: _Optional[float] = ..., resident_bytes: _Optional[int] = ..., lost: _Optional[str] = ..., throttled: bool = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("sequence",)
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    def __init__(self, sequence: _Optional[int] = ...) -> None: ...

class Shutdown(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ToWorker(_message.Message):
    __slots__ = ("load", "unload", "heartbeat", "shutdown")
    LOAD_FIELD_NUMBER: _ClassVar[int]
    UNLOAD_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    SHUTDOWN_FIELD_NUMBER: _ClassVar[int]
    load: Load
    unload: Unload
    heartbeat: Heartbeat
    shutdown: Shutdown
    def __init__(self, load: _Optional[_Union[Load, _Mapping]] = ..., unload: _Optional[_Union[Unload, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., shutdown: _Optional[_Union[Shutdown, _Mapping]] = ...) -> None: ...

class ToGateway(_message.Message):
    __slots__ = ("hello", "loaded", "load_failed", "unloaded", "report", "heartbeat", "loading", "warming")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    LOADED_FIELD_NUMBER: _ClassVar[int]
    LOAD_FAILED_FIELD_NUMBER: _ClassVar[int]
    UNLOADED_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    LOADING_FIELD_NUMBER: _ClassVar[int]
    WARMING_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    loaded: Loaded
    load_failed: LoadFailed
    unloaded: Unloaded
    report: Report
    heartbeat: Heartbeat
    loading: Loading
    warming: Warming
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., loaded: _Optional[_Union[Loaded, _Mapping]] = ..., load_failed: _Optional[_Union[LoadFailed, _Mapping]] = ..., unloaded: _Optional[_Union[Unloaded, _Mapping]] = ..., report: _Optional[_Union[Report, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., loading: _Optional[_Union[Loading, _Mapping]] = ..., warming: _Optional[_Union[Warming, _Mapping]] = ...) -> None: ...
