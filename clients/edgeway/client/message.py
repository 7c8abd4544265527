"""Requests to bytes and bytes to results, by hand: a generated message would copy every tensor once more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeway import parameters as names
from edgeway import wire
from edgeway.client.region import Region, place_of
from edgeway.client.result import ModelMetadata, Result, TensorMetadata
from edgeway.tensors import datatype_of, to_array, to_bytes
from edgeway.v1 import open_inference_pb2 as oip

_RAW_OUTPUT = 6


@dataclass(frozen=True)
class Call:
    """One inference, ready to be sent again with less time."""

    before: bytes
    """Model, version, id and parameters but for the timeout."""
    tensors: Sequence[bytes | memoryview]
    budget: float | None
    """Seconds; None: what the deployment says."""
    deadline: float
    """Seconds until the caller gives up."""

    def message(self, elapsed: float) -> bytes:
        """The request's bytes; ``elapsed`` seconds of the budget are gone. The only copy of the tensors."""
        timeout = b""
        if self.budget is not None:
            left = max(1, int((self.budget - elapsed) * 1e6))
            timeout = wire.integer_parameter(names.TIMEOUT, left)
        return b"".join((self.before, timeout, *self.tensors))


def encode(
    model: str,
    inputs: Mapping[str, np.ndarray],
    outputs: Sequence[str],
    version: str,
    request_id: str,
    priority: int,
    route_key: str | None,
    stream_key: str | None,
    degrade: str | None,
    regions: Sequence[Region] = (),
    into: Mapping[str, np.ndarray] | None = None,
) -> tuple[bytes, list[bytes | memoryview]]:
    """(everything but timeout and tensors, the tensors' parts).

    Args:
        regions: memory that the gateway has: of arrays in it only the place is sent.
        into: outputs, and where they are wanted; see ``decode``.

    Raises:
        ValueError: an array's dtype has no place in the protocol, or an array to be written is not in one piece.
    """
    head = [wire.text(1, model)]
    if version:
        head.append(wire.text(2, version))
    if request_id:
        head.append(wire.text(3, request_id))
    if priority:
        head.append(wire.integer_parameter(names.PRIORITY, priority))
    for name, value in ((names.ROUTE_KEY, route_key), (names.STREAM_KEY, stream_key), (names.DEGRADE, degrade)):
        if value is not None:
            head.append(wire.text_parameter(name, value))
    parts: list[bytes | memoryview] = []
    raw: list[bytes | memoryview] = []
    for name, given in inputs.items():
        array = np.asarray(given)
        place = place_of(regions, array) if regions else None
        try:
            datatype = datatype_of(array)
            data = to_bytes(array) if place is None else None
        except ValueError as wrong:
            raise ValueError(f"input {name!r}: {wrong}") from None
        sizes = b"".join(map(wire.varint, array.shape))
        about = wire.text(1, name) + wire.text(2, datatype) + (wire.field(3, sizes) if sizes else b"")
        if data is None:
            about += _reference(place, array)
        else:
            raw += [b"\x3a" + wire.varint(data.nbytes), data]
        parts.append(wire.field(5, about))
    into = into or {}
    for name, array in into.items():
        if not array.flags.c_contiguous or not array.flags.writeable or array.dtype.hasobject:
            raise ValueError(f"output {name!r}: expected an array that can be written, in one piece, not of objects")
        place = place_of(regions, array) if regions else None
        parts.append(wire.field(6, wire.text(1, name) + (b"" if place is None else _reference(place, array, number=2))))
    parts += [wire.field(6, wire.text(1, name)) for name in outputs if name not in into]
    return b"".join(head), parts + raw


def _reference(place: tuple[Region, int] | None, array: np.ndarray, number: int = 4) -> bytes:
    """The parameters of a tensor that lies in a region; ``number``: of the field that takes them."""
    assert place is not None
    region, offset = place
    return b"".join(
        (
            wire.text_parameter(names.REGION, region.name, number),
            wire.integer_parameter(names.REGION_BYTES, array.nbytes, number),
            wire.integer_parameter(names.REGION_OFFSET, offset, number),
        )
    )


def decode(message: bytes, wall: float, into: Mapping[str, np.ndarray] | None = None) -> Result:
    """A result whose arrays view ``message``, or for outputs that are wanted elsewhere the arrays of ``into``.

    Raises:
        ValueError: an output that came in the message is larger than the array that was to take it.
    """
    view, end = memoryview(message), len(message)
    header: list[memoryview] = []
    raw: list[memoryview] = []
    at = start = 0
    while at < end:
        field_at = at
        tag, at = wire.read_varint(message, at, end)
        if tag & 7 != 2:  # the response's own fields are all delimited; an unknown one of another kind ends the walk
            break
        length, at = wire.read_varint(message, at, end)
        if tag >> 3 == _RAW_OUTPUT:
            header.append(view[start:field_at])
            raw.append(view[at : at + length])
            start = at + length
        at += length
    header.append(view[start:end])
    response = oip.ModelInferResponse.FromString(b"".join(header))
    arrays = {}
    for tensor, data in zip(response.outputs, raw, strict=True):
        if into and tensor.name in into:
            data = _landed(tensor, data, into[tensor.name])
        arrays[tensor.name] = _widened(tensor.datatype, to_array(tensor.datatype, tuple(tensor.shape), data))
    facts = response.parameters
    return Result(
        outputs=arrays,
        model=response.model_name,
        version=response.model_version,
        served_by=facts[names.TARGET].string_param,
        accelerator=facts[names.ACCELERATOR].string_param,
        kind=facts[names.KIND].string_param,
        degraded=facts[names.DEGRADED].bool_param,
        reason=facts[names.REASON].string_param,
        queue_ms=facts[names.QUEUE_US].int64_param / 1e3,
        compute_ms=facts[names.COMPUTE_US].int64_param / 1e3,
        total_ms=facts[names.TOTAL_US].int64_param / 1e3,
        budget_left_ms=facts[names.BUDGET_LEFT_US].int64_param / 1e3,
        wall_ms=wall * 1e3,
        id=response.id,
    )


def _landed(tensor: Any, data: memoryview, target: np.ndarray) -> memoryview:
    """The bytes of an output in the array that was to take it, to which they are copied if they came in the message."""
    room = target.reshape(-1).view(np.uint8).data
    if names.REGION in tensor.parameters:
        return room[: tensor.parameters[names.REGION_BYTES].int64_param]
    if data.nbytes > room.nbytes:
        raise ValueError(f"output {tensor.name!r} has {data.nbytes} bytes, the array that was to take it {room.nbytes}")
    room[: data.nbytes] = data
    return room[: data.nbytes]


def metadata_of(message: bytes) -> ModelMetadata:
    """From a ModelMetadataResponse."""
    response = oip.ModelMetadataResponse.FromString(message)

    def tensors(given: Sequence[Any]) -> tuple[TensorMetadata, ...]:
        return tuple(TensorMetadata(t.name, t.datatype, tuple(t.shape)) for t in given)

    inputs, outputs = tensors(response.inputs), tensors(response.outputs)
    return ModelMetadata(response.name, tuple(response.versions), response.platform, inputs, outputs)


def _widened(datatype: str, array: np.ndarray) -> np.ndarray:
    return (array.astype(np.uint32) << 16).view(np.float32) if datatype == "BF16" else array
