"""What is found in the bytes of a .tflite file before a runtime sees them."""

from __future__ import annotations

import struct
from typing import List, Optional

IDENTIFIER = b"TFL3"
EDGE_TPU = b"edgetpu-custom-op"
"""The operation into which the Edge TPU's compiler puts what it takes over."""

# Slots of the schema's tables (schema.fbs, version 3).
_SUBGRAPHS, _EXTERNAL_GROUPS, _EXTERNAL_BUFFERS = 2, 8, 9
_TENSORS = 0
_TYPE, _QUANTISATION = 1, 4
_SCALE = 2
_EIGHT_BITS = (3, 9)
"""UINT8 and INT8."""
_MOST = 1 << 16
"""Tensors looked at: far more than models have, and no more than 0.2 s."""


def is_tflite(content: bytes) -> bool:
    return content[4:8] == IDENTIFIER


def for_edge_tpu(content: bytes) -> bool:
    """Whether it was compiled for the Edge TPU."""
    return EDGE_TPU in content


def names_files(content: bytes) -> bool:
    """Whether it wants weights from other files. Not known (False) of bytes that make no sense."""
    try:
        model = _Table(content, _root(content))
        return any(model.count(slot) for slot in (_EXTERNAL_GROUPS, _EXTERNAL_BUFFERS))
    except (struct.error, IndexError):
        return False


def computes_in_eight_bits(content: bytes) -> bool:
    """Whether a tensor of it is quantised to 8 bits. Not known (False) of bytes that make no sense."""
    try:
        looked_at = 0
        for graph in _Table(content, _root(content)).tables(_SUBGRAPHS):
            for place in _Table(content, graph).tables(_TENSORS):
                tensor = _Table(content, place)
                if tensor.byte(_TYPE) in _EIGHT_BITS:
                    quantisation = tensor.table(_QUANTISATION)
                    if quantisation is not None and quantisation.count(_SCALE):
                        return True
                looked_at += 1
                if looked_at > _MOST:
                    return False
    except (struct.error, IndexError):
        pass
    return False


class _Table:
    """A table of a flatbuffer. Every offset is the file's word: what leads nowhere raises struct.error."""

    def __init__(self, content: bytes, at: int) -> None:
        self._content = content
        self._at = at
        self._slots = at - struct.unpack_from("<i", content, at)[0]
        if self._slots < 0:
            raise IndexError("a table without slots")
        self._size = struct.unpack_from("<H", content, self._slots)[0]

    def byte(self, slot: int) -> int:
        place = self._place(slot)
        return self._content[place] if place else 0

    def table(self, slot: int) -> Optional[_Table]:
        place = self._place(slot)
        return _Table(self._content, _follow(self._content, place)) if place else None

    def count(self, slot: int) -> int:
        """Elements of a vector; 0 where it has none."""
        place = self._place(slot)
        return int(struct.unpack_from("<I", self._content, _follow(self._content, place))[0]) if place else 0

    def tables(self, slot: int) -> List[int]:
        """Where the tables of a vector lie."""
        count = self.count(slot)
        if count > _MOST:
            raise IndexError("more elements than a model has")
        first = _follow(self._content, self._place(slot)) + 4 if count else 0
        return [_follow(self._content, first + 4 * index) for index in range(count)]

    def _place(self, slot: int) -> int:
        """0: it has no such field."""
        at = 4 + 2 * slot
        if at + 2 > self._size:
            return 0
        offset = struct.unpack_from("<H", self._content, self._slots + at)[0]
        return self._at + offset if offset else 0


def _root(content: bytes) -> int:
    return int(struct.unpack_from("<I", content, 0)[0])


def _follow(content: bytes, at: int) -> int:
    return at + int(struct.unpack_from("<I", content, at)[0])
