"""Quarantine: fingerprints of requests that ended the processes that ran them."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from gateway.request import InputTensor

SECONDS = 600.0
"""How long a request stays refused: a retrying caller is stopped, and an operator who replaced the model is not."""
SIZE = 1024
_SAMPLES = 256
"""Bytes of each input that are looked at before anything is hashed: spread over all of it, because the first ones of
a camera's frames may well be the same in each."""


class Traits(NamedTuple):
    """What is cheap to see of a request (about 3 us per input, whatever its size). Equal requests have equal traits."""

    model: str
    version: str
    inputs: tuple[tuple[str, int, bytes], ...]
    """Name, size in bytes and samples, by name."""


class Quarantine:
    """The fingerprints that were added last, each for a while. An empty one is false, and costs nothing to ask."""

    def __init__(self, seconds: float = SECONDS, size: int = SIZE) -> None:
        self._seconds = seconds
        self._size = size
        self._entries: OrderedDict[bytes, tuple[float, Traits]] = OrderedDict()
        """Fingerprint -> when it ends, traits; the one that was added or asked for longest ago first."""
        self._traits: set[Traits] = set()

    def add(self, model: str, version: str, inputs: Sequence[InputTensor], now: float) -> bytes:
        """Refuse this request from now on; its fingerprint. The one unseen for longest makes room."""
        mark = fingerprint(model, version, inputs)
        self._entries[mark] = now + self._seconds, traits(model, version, inputs)
        self._entries.move_to_end(mark)
        while len(self._entries) > self._size:
            self._entries.popitem(last=False)
        self._forget_expired(now)
        return mark

    def suspicious(self, model: str, version: str, inputs: Sequence[InputTensor]) -> bool:
        """Whether the request looks like one of them at first sight. False is certain, true is not."""
        return bool(self._entries) and traits(model, version, inputs) in self._traits

    def holds(self, model: str, version: str, inputs: Sequence[InputTensor], now: float) -> bool:
        """Whether this very request is in quarantine. Hashes (1 ms per MB) only what is suspicious."""
        if not self.suspicious(model, version, inputs):
            return False
        self._forget_expired(now)
        if not self.suspicious(model, version, inputs):
            return False
        mark = fingerprint(model, version, inputs)
        if mark not in self._entries:
            return False
        self._entries.move_to_end(mark)
        return True

    def _forget_expired(self, now: float) -> None:
        for mark in [mark for mark, (until, _) in self._entries.items() if until <= now]:
            del self._entries[mark]
        self._traits = {seen for _, seen in self._entries.values()}

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<Quarantine {len(self)} of {self._size}>"


def traits(model: str, version: str, inputs: Sequence[InputTensor]) -> Traits:
    seen = sorted((tensor.name, tensor.data.nbytes, _samples(_bytes(tensor))) for tensor in inputs)
    return Traits(model, version, tuple(seen))


def fingerprint(model: str, version: str, inputs: Sequence[InputTensor]) -> bytes:
    """16 bytes that say which request it is, in any order of its inputs: BLAKE2b of names, types, shapes, data."""
    digest = hashlib.blake2b(digest_size=16)
    for text in (model, version):
        digest.update(_framed(text.encode()))
    for tensor in sorted(inputs, key=lambda tensor: tensor.name):
        digest.update(_framed(tensor.name.encode()) + _framed(tensor.datatype.encode()))
        digest.update(_framed(repr(tensor.shape).encode()) + tensor.data.nbytes.to_bytes(8, "little"))
        digest.update(_bytes(tensor))
    return digest.digest()


def _bytes(tensor: InputTensor) -> memoryview:
    """The only place where the gateway looks at what lies in a region: while some request is in quarantine."""
    data = tensor.data
    return data if isinstance(data, memoryview) else memoryview(data.read())


def _samples(data: memoryview) -> bytes:
    return bytes(data[:: 1 + data.nbytes // _SAMPLES])


def _framed(text: bytes) -> bytes:
    """With its length before it: without, ``ab, c`` and ``a, bc`` would be the same."""
    return len(text).to_bytes(8, "little") + text
