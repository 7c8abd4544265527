"""The one table of datatypes, and what is known of a tensor's bytes without numpy, which the gateway never imports.

On the wire every tensor is little-endian and row-major. A BYTES tensor is one element after the other, each behind
its length (4 bytes). BF16 has no numpy type of its own; its bits travel as uint16.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Datatype:
    """One protocol datatype. ``code``: its number in the link's frames and in Triton's model configuration."""

    name: str
    code: int
    itemsize: int
    """Bytes of an element; 0 for BYTES, whose elements vary."""
    numpy: str | None
    """What ``numpy.dtype`` takes for it, such as ``<f4``; None for BYTES."""


DATATYPES: Sequence[Datatype] = (
    Datatype("BOOL", 1, 1, "?"),
    Datatype("UINT8", 2, 1, "u1"),
    Datatype("UINT16", 3, 2, "<u2"),
    Datatype("UINT32", 4, 4, "<u4"),
    Datatype("UINT64", 5, 8, "<u8"),
    Datatype("INT8", 6, 1, "i1"),
    Datatype("INT16", 7, 2, "<i2"),
    Datatype("INT32", 8, 4, "<i4"),
    Datatype("INT64", 9, 8, "<i8"),
    Datatype("FP16", 10, 2, "<f2"),
    Datatype("FP32", 11, 4, "<f4"),
    Datatype("FP64", 12, 8, "<f8"),
    Datatype("BYTES", 13, 0, None),
    Datatype("BF16", 14, 2, "<u2"),
)
BY_NAME: dict[str, Datatype] = {datatype.name: datatype for datatype in DATATYPES}
BY_CODE: dict[int, Datatype] = {datatype.code: datatype for datatype in DATATYPES}
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
