"""ModelInferRequest and -Response as a client sees them, written and read without touching a tensor's bytes."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.message import DecodeError

from edgeway import parameters as names
from edgeway import wire
from edgeway.datatypes import BY_NAME, nbytes
from edgeway.frames import TensorPlace, aligned
from edgeway.v1.open_inference_pb2 import ModelInferResponse
from gateway.errors import InvalidRequest
from gateway.front.contents import raw_of
from gateway.front.scan import scan
from gateway.regions.region import RegionSpan
from gateway.request import InputTensor, Request, Signature

_RAW_OUTPUTS = 6


class BadAnswer(Exception):
    """An answer that makes no sense; the message says why."""


def infer_request(
    model: str, version: str, inputs: Sequence[InputTensor], wanted: Sequence[str], seconds: float, priority: int
) -> bytes:
    """The request: one join, the only copy of the inputs. Those in regions of clients are read out of them.

    Args:
        model, version: as the endpoint calls them.
        inputs: as they came in.
        wanted: names of outputs; empty: all.
        seconds: of the budget that is left.
        priority: 1 to 9.

    Raises:
        InvalidRequest: a region is shorter than it was said to be.
    """
    parts: list[bytes | memoryview] = [wire.text(1, model)]
    if version:
        parts.append(wire.text(2, version))
    parts.append(wire.integer_parameter(names.TIMEOUT, max(1, int(seconds * 1e6))))
    parts.append(wire.integer_parameter(names.PRIORITY, priority))
    raw: list[bytes | memoryview] = []
    for tensor in inputs:
        sizes = b"".join(map(wire.varint, tensor.shape))
        content = wire.text(1, tensor.name) + wire.text(2, tensor.datatype) + (wire.field(3, sizes) if sizes else b"")
        parts.append(wire.field(5, content))
        data = tensor.data.read() if isinstance(tensor.data, RegionSpan) else tensor.data
        if len(data) != tensor.data.nbytes:
            raise InvalidRequest(f"input {tensor.name!r}: its region is shorter than it was said to be")
        raw += (b"\x3a" + wire.varint(len(data)), data)
    parts += [wire.field(6, wire.text(1, name)) for name in wanted]
    return b"".join(parts + raw)


def metadata(request: Request | None) -> list[tuple[str, str]]:
    """What goes along with a run: that it has come through one gateway more, and its trace."""
    pairs = [(names.metadata_key(names.HOPS), str(1 + (request.hops if request is not None else 0)))]
    if request is not None:
        if request.traceparent:
            pairs.append(("traceparent", request.traceparent))
        if request.tracestate:
            pairs.append(("tracestate", request.tracestate))
    return pairs


def read_answer(message: bytes, signature: Signature, wanted: Sequence[int]) -> tuple[memoryview, list[TensorPlace]]:
    """Where the outputs lie, checked against the model: (bytes, the places in them).

    Args:
        message: a ModelInferResponse.
        signature: what the version gives.
        wanted: positions of the wanted outputs; empty: all.

    Raises:
        BadAnswer
    """
    try:
        scanned = scan(message, _RAW_OUTPUTS)
        header = ModelInferResponse.FromString(scanned.header)
        found = {}
        if scanned.raw and len(scanned.raw) != len(header.outputs):
            raise BadAnswer(f"{len(header.outputs)} outputs with {len(scanned.raw)} tensors")
        for index, output in enumerate(header.outputs):
            shape = tuple(output.shape)
            if any(size < 0 for size in shape) or output.datatype not in BY_NAME:
                raise BadAnswer(f"output {output.name!r} is {output.datatype} of shape {list(shape)}")
            typed = None
            if not scanned.raw and index in scanned.contents:
                typed = raw_of(output.name, output.datatype, shape, scanned.contents[index])
            span = scanned.raw[index] if scanned.raw else (0, 0)
            found[output.name] = (output.datatype, shape, span, typed)
    except (InvalidRequest, DecodeError) as malformed:
        raise BadAnswer(str(malformed)) from malformed
    view = memoryview(message)
    places: list[TensorPlace] = []
    pieces: list[memoryview] = []
    for position in wanted or range(len(signature.outputs)):
        spec = signature.outputs[position]
        if spec.name not in found:
            raise BadAnswer(f"there is no output {spec.name!r}")
        datatype, shape, (start, end), typed = found[spec.name]
        if datatype != spec.datatype:
            raise BadAnswer(f"output {spec.name!r} is {datatype}, not {spec.datatype}")
        data = view[start:end] if typed is None else typed
        size, least = data.nbytes, nbytes(datatype, shape)
        if size != least and (BY_NAME[datatype].itemsize or size < least):
            raise BadAnswer(f"output {spec.name!r} of shape {list(shape)} has {size} bytes")
        places.append(TensorPlace(position, BY_NAME[datatype].code, shape, start, size))
        pieces.append(data)
    if any(typed is not None for *_, typed in found.values()):
        return _together(pieces, places)
    first = min((place.offset for place in places), default=0)
    return view[first:], [place._replace(offset=place.offset - first) for place in places]


def _together(pieces: Sequence[memoryview], places: Sequence[TensorPlace]) -> tuple[memoryview, list[TensorPlace]]:
    """Tensors that were typed contents, in bytes of their own."""
    moved, joined = [], bytearray()
    for piece, place in zip(pieces, places, strict=True):
        moved.append(place._replace(offset=len(joined)))
        joined += piece
        joined += bytes(aligned(len(joined)) - len(joined))
    return memoryview(joined), moved
