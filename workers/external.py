"""External data of ONNX models: which files a model names, found in its bytes before a runtime sees them.

A runtime would open whatever path a model says: a link that leads to a secret, a device that never ends.
"""

from __future__ import annotations

import time
from typing import Dict, FrozenSet, Iterator, Sequence, Set, Tuple, Union

import numpy as np

from edgeway.wire import read_varint

_KEY = b"location"
_COMPARED = 1 << 21
_WINDOW = 1 << 18
_FIELDS = 256
"""Fields between two breaths: 0.3 ms."""
_BREATH = 50e-6
"""Seconds in which others get the interpreter. A sleep of 0 takes it back before they are awake."""
_DEPTH = 64
"""Graphs within graphs, at most."""

_Fields = Dict[int, Union["_Fields", str]]

# Field numbers of onnx.proto3: what leads to tensors, and in them to the entries of external_data.
_ENTRY = "entry"
_TENSOR: _Fields = {13: _ENTRY}
_SPARSE: _Fields = {1: _TENSOR, 2: _TENSOR}
_GRAPH: _Fields = {}
_ATTRIBUTE: _Fields = {5: _TENSOR, 6: _GRAPH, 10: _TENSOR, 11: _GRAPH, 22: _SPARSE, 23: _SPARSE}
_NODE: _Fields = {5: _ATTRIBUTE}
_GRAPH.update({1: _NODE, 5: _TENSOR, 15: _SPARSE})
_FUNCTION: _Fields = {7: _NODE, 11: _ATTRIBUTE}
_TRAINING: _Fields = {1: _GRAPH, 2: _GRAPH}
_MODEL: _Fields = {7: _GRAPH, 20: _TRAINING, 25: _FUNCTION}


def external_names(content: bytes) -> FrozenSet[str]:
    """Locations of external data that an ONNX model names, wherever in it.

    A model without any takes 0.5 ms per MB, in which other threads go on.

    Raises:
        ValueError: the bytes are no message, or graphs are nested beyond all reason.
    """
    if not _has_key(content):
        return frozenset()
    names: Set[str] = set()
    # A stack of its own: what nests is the file's choice.
    stack, seen = [(0, len(content), _MODEL, 0)], 0
    while stack:
        begin, end, fields, depth = stack.pop()
        if depth > _DEPTH:
            raise ValueError("graphs are nested too deeply")
        for number, start, stop in delimited(content, begin, end):
            seen += 1
            if seen % _FIELDS == 0:
                time.sleep(_BREATH)
            inner = fields.get(number)
            if isinstance(inner, str):
                key, value = _entry(content, start, stop)
                if key == _KEY:
                    names.add(value.decode("utf-8", "backslashreplace"))
            elif inner is not None:
                stack.append((start, stop, inner, depth + 1))
    return frozenset(names)


def _has_key(content: bytes) -> bool:
    """Whether the key is somewhere in the bytes. It is as long as a number is, so numpy compares eight bytes at a time,
    and without the interpreter: a thread of low priority that held that up would hold up all others.
    """
    key = np.frombuffer(_KEY, np.uint64)[0]
    for start in range(0, len(content), _COMPARED):
        end = min(len(content), start + _COMPARED + len(_KEY))
        for offset in range(start, min(start + len(_KEY), end)):
            count = (end - offset) // len(_KEY)
            if count and np.any(np.frombuffer(content, np.uint64, count, offset) == key):
                return True
    return False


def contains(content: bytes, words: Sequence[bytes]) -> bool:
    """Whether one of the words is in the bytes. Searching all of a large file at once would hold the interpreter."""
    overlap = max(map(len, words))
    for start in range(0, len(content), _WINDOW):
        end = start + _WINDOW + overlap
        if any(content.find(word, start, end) >= 0 for word in words):
            return True
        time.sleep(_BREATH)
    return False


def _entry(content: bytes, begin: int, end: int) -> Tuple[bytes, bytes]:
    """Key and value of a StringStringEntryProto; the last of each counts."""
    found = {1: b"", 2: b""}
    for number, start, stop in delimited(content, begin, end):
        found[number] = content[start:stop]
    return found[1], found[2]


def delimited(content: bytes, begin: int, end: int) -> Iterator[Tuple[int, int, int]]:
    """Number, first byte and byte behind the last of each delimited field of a message. Raises ValueError."""
    at = begin
    while at < end:
        tag, at = read_varint(content, at, end)
        kind = tag & 7
        if kind == 0:
            _, at = read_varint(content, at, end)
        elif kind == 1:
            at += 8
        elif kind == 5:
            at += 4
        elif kind == 2:
            length, at = read_varint(content, at, end)
            if length > end - at:
                raise ValueError(f"the field at byte {at} is cut off")
            yield tag >> 3, at, at + length
            at += length
        else:
            raise ValueError(f"a field of kind {kind} at byte {at}")
    if at != end:
        raise ValueError(f"the message ends within a field at byte {end}")
