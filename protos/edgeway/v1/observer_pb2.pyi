from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ToObserver(_message.Message):
    __slots__ = ("watch", "forget", "answered", "compared", "inputs", "label")
    WATCH_FIELD_NUMBER: _ClassVar[int]
    FORGET_FIELD_NUMBER: _ClassVar[int]
    ANSWERED_FIELD_NUMBER: _ClassVar[int]
    COMPARED_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    watch: Watch
    forget: Forget
    answered: Observed
    compared: Compared
    inputs: Observed
    label: Label
    def __init__(self, watch: _Optional[_Union[Watch, _Mapping]] = ..., forget: _Optional[_Union[Forget, _Mapping]] = ..., answered: _Optional[_Union[Observed, _Mapping]] = ..., compared: _Optional[_Union[Compared, _Mapping]] = ..., inputs: _Optional[_Union[Observed, _Mapping]] = ..., label: _Optional[_Union[Label, _Mapping]] = ...) -> None: ...

class FromObserver(_message.Message):
    __slots__ = ("figures", "labelled")
    FIGURES_FIELD_NUMBER: _ClassVar[int]
    LABELLED_FIELD_NUMBER: _ClassVar[int]
    figures: VersionFigures
    labelled: Labelled
    def __init__(self, figures: _Optional[_Union[VersionFigures, _Mapping]] = ..., labelled: _Optional[_Union[Labelled, _Mapping]] = ...) -> None: ...

class Watch(_message.Message):
    __slots__ = ("model", "version", "reference", "drift_output", "drift_window", "max_drift", "feedback_output", "feedback_window", "rule", "samples", "sample_bytes", "agreement")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    DRIFT_OUTPUT_FIELD_NUMBER: _ClassVar[int]
    DRIFT_WINDOW_FIELD_NUMBER: _ClassVar[int]
    MAX_DRIFT_FIELD_NUMBER: _ClassVar[int]
    FEEDBACK_OUTPUT_FIELD_NUMBER: _ClassVar[int]
    FEEDBACK_WINDOW_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_BYTES_FIELD_NUMBER: _ClassVar[int]
    AGREEMENT_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    reference: str
    drift_output: str
    drift_window: int
    max_drift: float
    feedback_output: str
    feedback_window: int
    rule: Rule
    samples: str
    sample_bytes: int
    agreement: Count
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., reference: _Optional[str] = ..., drift_output: _Optional[str] = ..., drift_window: _Optional[int] = ..., max_drift: _Optional[float] = ..., feedback_output: _Optional[str] = ..., feedback_window: _Optional[int] = ..., rule: _Optional[_Union[Rule, _Mapping]] = ..., samples: _Optional[str] = ..., sample_bytes: _Optional[int] = ..., agreement: _Optional[_Union[Count, _Mapping]] = ...) -> None: ...

class Rule(_message.Message):
    __slots__ = ("rtol", "atol", "top1", "cosine")
    RTOL_FIELD_NUMBER: _ClassVar[int]
    ATOL_FIELD_NUMBER: _ClassVar[int]
    TOP1_FIELD_NUMBER: _ClassVar[int]
    COSINE_FIELD_NUMBER: _ClassVar[int]
    rtol: float
    atol: float
    top1: float
    cosine: float
    def __init__(self, rtol: _Optional[float] = ..., atol: _Optional[float] = ..., top1: _Optional[float] = ..., cosine: _Optional[float] = ...) -> None: ...

class Count(_message.Message):
    __slots__ = ("good", "total")
    GOOD_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    good: int
    total: int
    def __init__(self, good: _Optional[int] = ..., total: _Optional[int] = ...) -> None: ...

class Forget(_message.Message):
    __slots__ = ("model", "version", "samples")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    samples: str
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., samples: _Optional[str] = ...) -> None: ...

class ObservedTensor(_message.Message):
    __slots__ = ("name", "datatype", "shape", "data")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DATATYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    name: str
    datatype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    data: bytes
    def __init__(self, name: _Optional[str] = ..., datatype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., data: _Optional[bytes] = ...) -> None: ...

class Observed(_message.Message):
    __slots__ = ("model", "version", "request_id", "tensors")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    request_id: str
    tensors: _containers.RepeatedCompositeFieldContainer[ObservedTensor]
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., request_id: _Optional[str] = ..., tensors: _Optional[_Iterable[_Union[ObservedTensor, _Mapping]]] = ...) -> None: ...

class Compared(_message.Message):
    __slots__ = ("model", "version", "real", "shadow")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REAL_FIELD_NUMBER: _ClassVar[int]
    SHADOW_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    real: _containers.RepeatedCompositeFieldContainer[ObservedTensor]
    shadow: _containers.RepeatedCompositeFieldContainer[ObservedTensor]
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., real: _Optional[_Iterable[_Union[ObservedTensor, _Mapping]]] = ..., shadow: _Optional[_Iterable[_Union[ObservedTensor, _Mapping]]] = ...) -> None: ...

class Label(_message.Message):
    __slots__ = ("number", "model", "request_id", "label")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    number: int
    model: str
    request_id: str
    label: str
    def __init__(self, number: _Optional[int] = ..., model: _Optional[str] = ..., request_id: _Optional[str] = ..., label: _Optional[str] = ...) -> None: ...

class Labelled(_message.Message):
    __slots__ = ("number", "found", "version", "predicted", "right", "problem")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    FOUND_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_FIELD_NUMBER: _ClassVar[int]
    RIGHT_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    number: int
    found: bool
    version: str
    predicted: str
    right: bool
    problem: str
    def __init__(self, number: _Optional[int] = ..., found: bool = ..., version: _Optional[str] = ..., predicted: _Optional[str] = ..., right: bool = ..., problem: _Optional[str] = ...) -> None: ...

class VersionFigures(_message.Message):
    __slots__ = ("model", "version", "agreement", "accuracy", "drift")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    AGREEMENT_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_FIELD_NUMBER: _ClassVar[int]
    DRIFT_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    agreement: Count
    accuracy: Count
    drift: DriftFigure
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., agreement: _Optional[_Union[Count, _Mapping]] = ..., accuracy: _Optional[_Union[Count, _Mapping]] = ..., drift: _Optional[_Union[DriftFigure, _Mapping]] = ...) -> None: ...

class DriftFigure(_message.Message):
    __slots__ = ("score", "answers", "alarm", "detail")
    SCORE_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    ALARM_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    score: float
    answers: int
    alarm: bool
    detail: str
    def __init__(self, score: _Optional[float] = ..., answers: _Optional[int] = ..., alarm: bool = ..., detail: _Optional[str] = ...) -> None: ...
