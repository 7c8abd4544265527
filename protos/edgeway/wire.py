"""The few pieces of protobuf's wire format that are written and read by hand where tensors pass.

A generated message would copy every tensor once more. Source: the encoding page of protobuf's documentation.
"""

from __future__ import annotations

_MASK = (1 << 64) - 1


def varint(value: int) -> bytes:
    """A number; negative ones as 64-bit two's complement, as int64 fields want."""
    if 0 <= value < 0x80:
        return bytes((value,))
    value &= _MASK
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def read_varint(message: bytes, at: int, end: int) -> tuple[int, int]:
    """(value, position behind it).

    Raises:
        ValueError: cut off, or longer than 64 bits.
    """
    value = shift = 0
    while at < end:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            break
    raise ValueError(f"bad number before byte {at}")


def field(number: int, content: bytes) -> bytes:
    """A delimited field: a message, text or packed numbers."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def text(number: int, value: str) -> bytes:
    return field(number, value.encode())


def parameter(name: str, value: bytes, number: int = 4) -> bytes:
    """An entry of the map ``parameters``: field 4 of requests, answers and their tensors, field 2 of a wanted output.

    ``value``: an InferParameter.
    """
    return field(number, text(1, name) + field(2, value))


def text_parameter(name: str, value: str, number: int = 4) -> bytes:
    return parameter(name, text(3, value), number)


def integer_parameter(name: str, value: int, number: int = 4) -> bytes:
    return parameter(name, b"\x10" + varint(value), number)
