"""From the bytes of a ModelInferRequest to a Request whose form is right."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from google.protobuf.message import DecodeError

from edgeway import parameters as names
from edgeway.frames import MAX_DIMS, MAX_TENSORS
from edgeway.tensors import BY_NAME, nbytes
from edgeway.v1.open_inference_pb2 import ModelInferRequest
from gateway.errors import InvalidRequest, NotOffered
from gateway.front.contents import raw_of
from gateway.front.scan import Scanned, scan
from gateway.request import InputTensor, Request

DEFAULT_PRIORITY = 5
_LONGEST_NAME = 1024
_MICRO = 1e-6
_TRACE = ("traceparent", "tracestate")
_TOLERATED = ("triton_enable_empty_final_response",)
_SEQUENCE = ("sequence_id", "sequence_start", "sequence_end")
_AS_METADATA = {names.metadata_key(name): name for name in (names.ROUTE_KEY, names.STREAM_KEY, names.DEGRADE)}
_AS_METADATA |= {name: name for name in (names.TIMEOUT, names.PRIORITY)}


def decode(
    message: bytes, received: float, time_remaining: float | None, metadata: Iterable[tuple[str, str | bytes]]
) -> Request:
    """Read one request.

    Args:
        message: as it came from the wire; the request's tensors view it.
        received: monotonic seconds.
        time_remaining: seconds of the gRPC deadline, None without one.
        metadata: of the call; parameters in it stand behind those in the message.

    Raises:
        InvalidRequest: malformed, or a contradiction in itself.
        NotOffered: a part of the protocol that this gateway lacks.
    """
    scanned = scan(message)
    try:
        header = ModelInferRequest.FromString(scanned.header)
    except DecodeError as malformed:
        raise InvalidRequest(f"the message is no ModelInferRequest: {malformed}") from malformed
    request = Request(
        model=header.model_name,
        version=header.model_version,
        id=header.id,
        inputs=_inputs(header.inputs, scanned),
        outputs=_outputs(header.outputs),
        received=received,
        nbytes=len(message),
        deadline=None if time_remaining is None else received + time_remaining,
    )
    _from_metadata(request, metadata)
    if header.parameters:
        _from_parameters(request, {key: _plain(value) for key, value in header.parameters.items()})
    return request


def _inputs(tensors: Sequence[Any], scanned: Scanned) -> list[InputTensor]:
    if len(tensors) > MAX_TENSORS:
        raise InvalidRequest(f"at most {MAX_TENSORS} inputs, got {len(tensors)}")
    if scanned.raw and scanned.contents:
        named = tensors[next(iter(scanned.contents))].name
        raise InvalidRequest(f"input {named!r}: expected no typed contents beside raw_input_contents, got both")
    if scanned.raw and len(scanned.raw) != len(tensors):
        raise InvalidRequest(f"raw_input_contents: expected {len(tensors)}, one per input, got {len(scanned.raw)}")
    inputs: list[InputTensor] = []
    seen: set[str] = set()
    for index, tensor in enumerate(tensors):
        name, datatype, shape = tensor.name, tensor.datatype, tuple(tensor.shape)
        if not name or len(name) > _LONGEST_NAME or "\0" in name:
            raise InvalidRequest(f"input {index} has no usable name")
        if name in seen:
            raise InvalidRequest(f"input {name!r}: expected once, got twice")
        seen.add(name)
        if datatype not in BY_NAME:
            raise InvalidRequest(f"input {name!r}: expected a datatype of {', '.join(BY_NAME)}, got {datatype!r}")
        if len(shape) > MAX_DIMS or any(size < 0 for size in shape):
            raise InvalidRequest(
                f"input {name!r}: expected a shape of at most {MAX_DIMS} sizes >= 0, got {list(shape)[: MAX_DIMS + 1]}"
            )
        if tensor.parameters:
            _tensor_parameters(f"input {name!r}", tensor.parameters)
        if scanned.raw:
            data = scanned.raw[index]
        elif index in scanned.contents:
            data = raw_of(name, datatype, shape, scanned.contents[index])
        else:
            # A tensor of no elements has empty contents, which some clients leave out.
            data = memoryview(b"")
        _check_size(name, datatype, shape, data.nbytes)
        inputs.append(InputTensor(name, datatype, shape, data))
    return inputs


def _check_size(name: str, datatype: str, shape: tuple[int, ...], got: int) -> None:
    expected = nbytes(datatype, shape)
    if datatype == "BYTES":
        if got < expected:
            raise InvalidRequest(
                f"input {name!r}: expected at least {expected} bytes for BYTES of shape {list(shape)}, got {got}"
            )
    elif got != expected:
        raise InvalidRequest(
            f"input {name!r}: expected {expected} bytes for {datatype} of shape {list(shape)}, got {got}"
        )


def _outputs(tensors: Sequence[Any]) -> tuple[str, ...]:
    if len(tensors) > MAX_TENSORS:
        raise InvalidRequest(f"at most {MAX_TENSORS} outputs, got {len(tensors)}")
    for tensor in tensors:
        if tensor.parameters:
            _tensor_parameters(f"output {tensor.name!r}", tensor.parameters)
    wanted = tuple(tensor.name for tensor in tensors)
    if len(set(wanted)) != len(wanted):
        raise InvalidRequest("an output is asked for twice")
    return wanted


def _tensor_parameters(which: str, given: Mapping[str, Any]) -> None:
    for key, value in given.items():
        if key.startswith("shared_memory_"):
            raise NotOffered(f"{which}: tensors in shared memory are not offered")
        if key == "classification" and _plain(value) != 0:
            raise NotOffered(f"{which}: classification is not offered")


def _from_metadata(request: Request, metadata: Iterable[tuple[str, str | bytes]]) -> None:
    found: dict[str, Any] = {}
    for key, value in metadata:
        if key in _TRACE:
            setattr(request, key, value)
        elif key in _AS_METADATA:
            found[_AS_METADATA[key]] = value
    if found:
        for name in (names.TIMEOUT, names.PRIORITY):
            if name in found:
                try:
                    found[name] = int(found[name])
                except ValueError as wrong:
                    raise InvalidRequest(f"metadata {name}: expected an integer, got {found[name]!r}") from wrong
        _from_parameters(request, found)


def _from_parameters(request: Request, given: Mapping[str, Any]) -> None:
    for key, value in given.items():
        if key == names.TIMEOUT:
            if not _is_integer(value) or value < 0:
                raise InvalidRequest(f"parameter timeout: expected microseconds as int64 >= 0, got {value!r}")
            request.timeout = value * _MICRO if value else request.timeout
        elif key == names.PRIORITY:
            if not _is_integer(value) or not 0 <= value <= 9:
                raise InvalidRequest(f"parameter priority: expected an integer from 0 to 9, got {value!r}")
            request.priority = value or DEFAULT_PRIORITY
        elif key == names.ROUTE_KEY:
            request.route_key = _text(key, value)
        elif key == names.STREAM_KEY:
            request.stream_key = _text(key, value)
        elif key == names.DEGRADE:
            if value not in ("allow", "never"):
                raise InvalidRequest(f"parameter {key}: expected allow or never, got {value!r}")
            request.degrade = value
        elif key in _SEQUENCE:
            if value not in (0, "", False):
                raise NotOffered("sequences are not offered")
        elif key.startswith("triton_") and key not in _TOLERATED:
            raise InvalidRequest(f"parameter {key}: names that begin with triton_ are reserved")


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) > _LONGEST_NAME:
        raise InvalidRequest(f"parameter {key}: expected text of at most {_LONGEST_NAME} characters, got {value!r:.80}")
    return value


def _plain(parameter: Any) -> Any:
    which = parameter.WhichOneof("parameter_choice")
    return getattr(parameter, which) if which else None
