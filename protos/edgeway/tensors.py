"""The one table of datatypes, and how their values lie in bytes.

On the wire every tensor is little-endian and row-major. A BYTES tensor is one element after the other, each behind
its length (4 bytes). BF16 has no numpy type of its own; its bits travel as uint16.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Datatype:
    """One protocol datatype. ``code``: its number in the link's frames and in Triton's model configuration."""

    name: str
    code: int
    itemsize: int
    """Bytes of an element; 0 for BYTES, whose elements vary."""
    numpy: np.dtype | None
    """None for BYTES."""


def _type(name: str, code: int, numpy: str) -> Datatype:
    dtype = np.dtype(numpy)
    return Datatype(name, code, dtype.itemsize, dtype)


DATATYPES: Sequence[Datatype] = (
    _type("BOOL", 1, "?"),
    _type("UINT8", 2, "u1"),
    _type("UINT16", 3, "<u2"),
    _type("UINT32", 4, "<u4"),
    _type("UINT64", 5, "<u8"),
    _type("INT8", 6, "i1"),
    _type("INT16", 7, "<i2"),
    _type("INT32", 8, "<i4"),
    _type("INT64", 9, "<i8"),
    _type("FP16", 10, "<f2"),
    _type("FP32", 11, "<f4"),
    _type("FP64", 12, "<f8"),
    Datatype("BYTES", 13, 0, None),
    _type("BF16", 14, "<u2"),
)
BY_NAME: dict[str, Datatype] = {datatype.name: datatype for datatype in DATATYPES}
BY_CODE: dict[int, Datatype] = {datatype.code: datatype for datatype in DATATYPES}
_BY_NUMPY: dict[np.dtype, str] = {
    datatype.numpy: datatype.name for datatype in DATATYPES if datatype.numpy is not None and datatype.name != "BF16"
}
_LENGTH = struct.Struct("<I")


def count(shape: Sequence[int]) -> int:
    """Elements of a tensor; Python integers, so that no shape overflows."""
    elements = 1
    for size in shape:
        elements *= size
    return elements


def nbytes(datatype: str, shape: Sequence[int]) -> int:
    """Bytes of a tensor of a fixed-size datatype; for BYTES the least it can have, 4 per element."""
    return count(shape) * (BY_NAME[datatype].itemsize or _LENGTH.size)


def datatype_of(array: np.ndarray) -> str:
    """Protocol datatype of an array: its dtype's, BYTES for objects and strings, BF16 for ml_dtypes' bfloat16.

    Raises:
        ValueError: the protocol has no such type.
    """
    if array.dtype.kind in "OSU":
        return "BYTES"
    name = _BY_NUMPY.get(array.dtype.newbyteorder("<"))
    if name is None and array.dtype.name == "bfloat16":
        return "BF16"
    if name is None:
        raise ValueError(f"the protocol has no datatype for numpy's {array.dtype}")
    return name


def to_bytes(array: np.ndarray) -> memoryview:
    """The array's bytes as they travel: a view where it is contiguous and little-endian, else a copy."""
    if array.dtype.kind in "OSU":
        return memoryview(encode_bytes(array.reshape(-1).tolist()))
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    if array.dtype.name == "bfloat16":
        array = array.view(np.dtype("<u2"))
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def to_array(datatype: str, shape: Sequence[int], data: memoryview) -> np.ndarray:
    """A view of the bytes as an array (BF16: of uint16); for BYTES a new array of bytes objects.

    Raises:
        ValueError: the bytes are not as many as datatype and shape need.
    """
    numpy = BY_NAME[datatype].numpy
    if numpy is None:
        elements = np.empty(count(shape), dtype=object)
        elements[:] = decode_bytes(data, count(shape))
        return elements.reshape(shape)
    if data.nbytes != nbytes(datatype, shape):
        raise ValueError(f"{datatype} of shape {list(shape)} needs {nbytes(datatype, shape)} bytes, got {data.nbytes}")
    if not data.nbytes:
        return np.empty(tuple(shape), dtype=numpy)  # numpy refuses an empty buffer
    return np.frombuffer(data, dtype=numpy).reshape(shape)


def encode_bytes(elements: Iterable[object]) -> bytes:
    """Elements of a BYTES tensor, each behind its length; text as UTF-8.

    Raises:
        ValueError: an element is neither bytes nor text.
    """
    parts: list[bytes] = []
    for element in elements:
        if isinstance(element, str):
            element = element.encode()
        elif not isinstance(element, (bytes, bytearray, memoryview)):
            raise ValueError(f"an element of a BYTES tensor must be bytes or text, got {type(element).__name__}")
        parts.append(_LENGTH.pack(len(element)))
        parts.append(bytes(element))
    return b"".join(parts)


def decode_bytes(data: memoryview, expected: int) -> list[bytes]:
    """The elements of a BYTES tensor.

    Raises:
        ValueError: they do not add up to ``expected`` elements that fill ``data`` exactly.
    """
    if expected * _LENGTH.size > data.nbytes:
        raise ValueError(f"{expected} elements need at least {expected * _LENGTH.size} bytes, got {data.nbytes}")
    elements: list[bytes] = []
    at, end = 0, data.nbytes
    while at < end:
        if len(elements) == expected:
            raise ValueError(f"{expected} elements end at byte {at}, but there are {end} bytes")
        if at + _LENGTH.size > end:
            raise ValueError(f"element {len(elements)}: the length at byte {at} is cut off")
        length = _LENGTH.unpack_from(data, at)[0]
        at += _LENGTH.size
        if at + length > end:
            raise ValueError(f"element {len(elements)}: {length} bytes from byte {at} on pass the end at {end}")
        elements.append(bytes(data[at : at + length]))
        at += length
    if len(elements) != expected:
        raise ValueError(f"expected {expected} elements, got {len(elements)}")
    return elements
