"""From an Answer to the bytes of a ModelInferResponse, written by hand: one join, the only copy of the outputs."""

from __future__ import annotations

from edgeway import parameters as names
from gateway.request import Answer, Outcome

_CACHED = 512
"""Sets of facts whose encoding is kept; a device has a handful."""
_MASK = (1 << 64) - 1


class Encoder:
    """Encodes answers; keeps the encoding of facts that repeat."""

    def __init__(self) -> None:
        self._facts: dict[tuple[str, str, str, str, str, bool, str], bytes] = {}

    def encode(self, answer: Answer, request_id: str) -> bytes:
        """One response. ``answer.outcome.finished`` must be set; the answer's slot may be released afterwards."""
        outcome = answer.outcome
        parts: list[bytes | memoryview] = [self._constant(outcome)]
        if request_id:
            parts.append(_text(3, request_id))
        parts.append(_integer_parameter(names.QUEUE_US, int(outcome.queue_seconds * 1e6)))
        parts.append(_integer_parameter(names.COMPUTE_US, int(outcome.compute_seconds * 1e6)))
        parts.append(_integer_parameter(names.TOTAL_US, int(outcome.total_seconds * 1e6)))
        parts.append(_integer_parameter(names.BUDGET_LEFT_US, int(outcome.budget_left * 1e6)))
        for output in answer.outputs:
            shape = b"".join(map(varint, output.shape))
            parts.append(
                _field(5, _text(1, output.name) + _text(2, output.datatype) + (_field(3, shape) if shape else b""))
            )
        for output in answer.outputs:
            parts.append(b"\x32" + varint(output.data.nbytes))
            parts.append(output.data)
        return b"".join(parts)

    def _constant(self, outcome: Outcome) -> bytes:
        key = (
            outcome.model,
            outcome.version,
            outcome.target,
            outcome.accelerator,
            outcome.kind,
            outcome.degraded,
            outcome.reason,
        )
        known = self._facts.get(key)
        if known is None:
            if len(self._facts) >= _CACHED:
                self._facts.clear()
            known = self._facts[key] = b"".join(
                (
                    _text(1, outcome.model),
                    _text(2, outcome.version),
                    _text_parameter(names.VERSION, outcome.version),
                    _text_parameter(names.TARGET, outcome.target),
                    _text_parameter(names.ACCELERATOR, outcome.accelerator),
                    _text_parameter(names.KIND, outcome.kind),
                    _parameter(names.DEGRADED, b"\x08" + (b"\x01" if outcome.degraded else b"\x00")),
                    _text_parameter(names.REASON, outcome.reason),
                )
            )
        return known


def varint(value: int) -> bytes:
    """A protobuf number; negative ones as 64-bit two's complement, as int64 fields want."""
    if 0 <= value < 0x80:
        return bytes((value,))
    value &= _MASK
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def _text(number: int, text: str) -> bytes:
    return _field(number, text.encode())


def _parameter(name: str, value: bytes) -> bytes:
    """An entry of the map ``parameters`` (field 4)."""
    return _field(4, _text(1, name) + _field(2, value))


def _text_parameter(name: str, value: str) -> bytes:
    return _parameter(name, _text(3, value))


def _integer_parameter(name: str, value: int) -> bytes:
    return _parameter(name, b"\x10" + varint(value))
