"""Splits a ModelInferRequest into its header and its tensors without parsing either's bytes.

protobuf would copy every tensor, and would build millions of objects from a hostile message of a few MB. So the
message's top level is walked by hand (about 0.3 us per field): raw tensors become views, typed contents are cut out of
their input, and what is left, the header, is small or refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeway import wire
from gateway.errors import InvalidRequest

MAX_FIELDS = 4096
"""Top-level fields, and fields of one input: names, parameters and tensors of any model that exists are far fewer."""
MAX_HEADER = 64 * 1024
"""Bytes without tensors. protobuf objects take up to 50 times the bytes they come from."""

_INPUT, _CONTENTS = 5 << 3 | 2, 5 << 3 | 2
"""Tags: field number and wire type."""


@dataclass(slots=True)
class Scanned:
    """``header``: the message without tensor data. ``raw``: first byte, and byte behind the last, of each raw tensor.
    ``contents``: position of an input -> its typed contents; they are cut out only where there is no raw tensor,
    because nobody may send both.
    """

    header: bytes
    raw: list[tuple[int, int]]
    contents: dict[int, memoryview]


def scan(message: bytes, raw_field: int = 7) -> Scanned:
    """Walk the message; ``raw_field``: number of its raw tensors, 6 in a ModelInferResponse, which has its outputs
    where a request has its inputs.

    Raises:
        InvalidRequest: not protobuf, or beyond the limits.
    """
    view, end = memoryview(message), len(message)
    at = kept = fields = 0
    parts: list[memoryview] = []
    raw: list[tuple[int, int]] = []
    inputs: list[tuple[int, int, int]] = []
    raw_tag = raw_field << 3 | 2
    while at < end:
        fields += 1
        if fields > MAX_FIELDS:
            raise InvalidRequest(f"the message has more than {MAX_FIELDS} fields")
        begin = at
        tag = message[at]
        at += 1
        if tag >= 0x80:
            tag, at = _varint(message, begin, end)
        value, at = _skip(message, tag, at, end)
        if tag == raw_tag:
            if kept < begin:
                parts.append(view[kept:begin])
            raw.append((value, at))
            kept = at
        elif tag == _INPUT:
            inputs.append((begin, value, at))
    if not raw and inputs:
        return _typed(view, message, inputs, end)
    parts.append(view[kept:end])
    return Scanned(_joined(parts), raw, {})


def _typed(view: memoryview, message: bytes, inputs: list[tuple[int, int, int]], end: int) -> Scanned:
    """Cut the typed contents out of the inputs: (tag, value, end) of each."""
    kept = 0
    parts: list[bytes | memoryview] = []
    contents: dict[int, memoryview] = {}
    for index, (begin, value, stop) in enumerate(inputs):
        stripped, typed = _strip(view, message, value, stop)
        if typed is not None:
            contents[index] = typed
            parts += [view[kept:begin], b"\x2a", wire.varint(len(stripped)), stripped]
            kept = stop
    parts.append(view[kept:end])
    return Scanned(_joined(parts), [], contents)


def _joined(parts: Sequence[bytes | memoryview]) -> bytes:
    size = sum(map(len, parts))
    if size > MAX_HEADER:
        raise InvalidRequest(f"the message has {size} bytes beside its tensors, the limit is {MAX_HEADER}")
    return b"".join(parts)


def _strip(view: memoryview, message: bytes, start: int, end: int) -> tuple[bytes, memoryview | None]:
    """An input without its typed contents, and those."""
    at = kept = start
    fields = 0
    parts: list[memoryview] = []
    typed: memoryview | None = None
    while at < end:
        fields += 1
        if fields > MAX_FIELDS:
            raise InvalidRequest(f"an input has more than {MAX_FIELDS} fields")
        tag_at = at
        tag, at = _varint(message, at, end)
        value_at, at = _skip(message, tag, at, end)
        if tag == _CONTENTS:
            if typed is not None:
                raise InvalidRequest("an input has typed contents twice")
            typed = view[value_at:at]
            parts.append(view[kept:tag_at])
            kept = at
    if typed is None:
        return b"", None
    parts.append(view[kept:end])
    return b"".join(parts), typed


def _skip(message: bytes, tag: int, at: int, end: int) -> tuple[int, int]:
    """(start, end) of the value behind a tag."""
    kind = tag & 7
    if kind == 2:
        length = message[at] if at < end else 0x80
        at += 1
        if length >= 0x80:
            length, at = _varint(message, at - 1, end)
        stop = at + length
    elif kind == 0:
        _, stop = _varint(message, at, end)
    elif kind == 1:
        stop = at + 8
    elif kind == 5:
        stop = at + 4
    else:
        raise InvalidRequest(f"the message is no ModelInferRequest: wire type {kind} at byte {at}")
    if stop > end or tag < 8:
        raise InvalidRequest(f"the message is no ModelInferRequest: a field at byte {at} is cut off or has number 0")
    return at, stop


def _varint(message: bytes, at: int, end: int) -> tuple[int, int]:
    """(value, position behind it)."""
    try:
        return wire.read_varint(message, at, end)
    except ValueError as wrong:
        raise InvalidRequest(f"the message is no ModelInferRequest: {wrong}") from wrong
