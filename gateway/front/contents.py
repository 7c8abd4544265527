"""Typed contents (InferTensorContents) as the raw bytes that everything else works on."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence

from google.protobuf.message import DecodeError

from edgeway.datatypes import BY_NAME, count, encode_bytes
from edgeway.v1.open_inference_pb2 import InferTensorContents
from gateway.errors import InvalidRequest

_ARRAYS = {
    "BOOL": "B",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "FP32": "f",
    "FP64": "d",
}
"""Datatype -> the type code of Python's arrays that has its size on every system that Edgeway runs on."""
_FIELDS = {
    "BOOL": ("bool_contents", 1),
    "INT8": ("int_contents", 1),
    "INT16": ("int_contents", 1),
    "INT32": ("int_contents", 1),
    "INT64": ("int64_contents", 1),
    "UINT8": ("uint_contents", 1),
    "UINT16": ("uint_contents", 1),
    "UINT32": ("uint_contents", 1),
    "UINT64": ("uint64_contents", 1),
    "FP32": ("fp32_contents", 4),
    "FP64": ("fp64_contents", 8),
    "BYTES": ("bytes_contents", 2),
}
"""Datatype -> its field, and the least bytes that an element takes in it."""


def raw_of(name: str, datatype: str, shape: tuple[int, ...], contents: memoryview) -> memoryview:
    """The tensor's little-endian bytes.

    The number of elements is bounded by the bytes that are there before anything is allocated for them.

    Raises:
        InvalidRequest: a datatype without a typed field, the wrong field, count or range.
    """
    if datatype not in _FIELDS:
        raise InvalidRequest(f"input {name!r}: {datatype} has no typed contents, send raw_input_contents")
    field, least = _FIELDS[datatype]
    expected = count(shape)
    if expected * least > contents.nbytes + 16:
        raise InvalidRequest(
            f"input {name!r}: expected {expected} elements for {datatype} of shape {list(shape)}, "
            f"got {contents.nbytes} bytes of contents"
        )
    if contents.nbytes > 64 + expected * 12 and datatype != "BYTES":
        raise InvalidRequest(
            f"input {name!r}: {datatype} of shape {list(shape)} has {expected} elements, got far more contents"
        )
    try:
        parsed = InferTensorContents.FromString(bytes(contents))
    except DecodeError as malformed:
        raise InvalidRequest(f"input {name!r}: contents are malformed: {malformed}") from malformed
    others = [descriptor.name for descriptor, _ in parsed.ListFields() if descriptor.name != field]
    if others:
        raise InvalidRequest(f"input {name!r}: expected {field} for {datatype}, got {others[0]}")
    elements = getattr(parsed, field)
    if len(elements) != expected:
        raise InvalidRequest(
            f"input {name!r}: expected {expected} elements for shape {list(shape)}, got {len(elements)}"
        )
    if datatype == "BYTES":
        return memoryview(encode_bytes(elements))
    return _packed(name, datatype, elements)


def _packed(name: str, datatype: str, elements: Sequence[float]) -> memoryview:
    """Little-endian values. Raises InvalidRequest: one that the datatype can't hold."""
    try:
        packed = array(_ARRAYS[datatype], elements)
    except OverflowError:
        bits = 8 * BY_NAME[datatype].itemsize
        least, most = (0, 2**bits - 1) if datatype.startswith("U") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        raise InvalidRequest(f"input {name!r}: a value lies outside of {datatype}: {least} to {most}") from None
    if sys.byteorder == "big":
        packed.byteswap()
    return memoryview(packed).cast("B")
