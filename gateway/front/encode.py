"""From an Answer to the bytes of a ModelInferResponse, written by hand: one join, the only copy of the outputs."""

from __future__ import annotations

from struct import Struct

from edgeway import parameters as names
from edgeway import wire
from gateway.regions.region import RegionSpan
from gateway.request import Answer, Outcome

_CACHED = 512
"""Sets of facts, and forms of outputs, whose encoding is kept; a device has a handful."""


_NO_DATA = b"\x32\x00"
"""An entry of raw_output_contents without bytes: there is one per output, in their order."""


class Encoder:
    """Encodes answers; keeps the encoding of facts that repeat."""

    def __init__(self) -> None:
        self._facts: dict[tuple[str, str, str, str, str, bool, str], bytes] = {}
        self._headers: dict[tuple[str, str, tuple[int, ...]], bytes] = {}

    def encode(self, answer: Answer, request_id: str) -> bytes:
        """One response. ``answer.outcome.finished`` must be set; the answer's slot may be released afterwards."""
        outcome, outputs = answer.outcome, answer.outputs
        parts: list[bytes | memoryview] = [
            self._constant(outcome),
            wire.text(3, request_id) if request_id else b"",
            _times(outcome),
        ]
        raw: list[bytes | memoryview] = []
        for output in outputs:
            name, datatype, shape, data = output.name, output.datatype, output.shape, output.data
            if isinstance(data, RegionSpan):
                parts.append(_placed(name, datatype, shape, data))
                raw.append(_NO_DATA)
            else:
                parts.append(self._headers.get((name, datatype, shape)) or self._header(name, datatype, shape))
                raw += (b"\x32" + wire.varint(data.nbytes), data)
        return b"".join(parts + raw)

    def _header(self, name: str, datatype: str, shape: tuple[int, ...]) -> bytes:
        """An output without its data."""
        if len(self._headers) >= _CACHED:
            self._headers.clear()
        sizes = b"".join(map(wire.varint, shape))
        content = wire.text(1, name) + wire.text(2, datatype) + (wire.field(3, sizes) if sizes else b"")
        header = self._headers[name, datatype, shape] = wire.field(5, content)
        return header

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
                    wire.text(1, outcome.model),
                    wire.text(2, outcome.version),
                    wire.text_parameter(names.VERSION, outcome.version),
                    wire.text_parameter(names.TARGET, outcome.target),
                    wire.text_parameter(names.ACCELERATOR, outcome.accelerator),
                    wire.text_parameter(names.KIND, outcome.kind),
                    wire.parameter(names.DEGRADED, b"\x08" + (b"\x01" if outcome.degraded else b"\x00")),
                    wire.text_parameter(names.REASON, outcome.reason),
                )
            )
        return known


def _placed(name: str, datatype: str, shape: tuple[int, ...], span: RegionSpan) -> bytes:
    """An output that was written into a region: the reference in its own parameters, which have field 4 as well."""
    sizes = b"".join(map(wire.varint, shape))
    return wire.field(
        5,
        b"".join(
            (
                wire.text(1, name),
                wire.text(2, datatype),
                wire.field(3, sizes) if sizes else b"",
                wire.text_parameter(names.REGION, span.region.name),
                wire.integer_parameter(names.REGION_BYTES, span.nbytes),
                wire.integer_parameter(names.REGION_OFFSET, span.offset - span.region.offset),
            )
        ),
    )


def _spread(value: int) -> int:
    """A number below 2**28 as a varint of four bytes, which any reader takes: no loop, and always as long."""
    return value & 0x7F | (value & 0x3F80) << 1 | (value & 0x1FC000) << 2 | value >> 21 << 24 | 0x00808080


_TIME_NAMES = (names.QUEUE_US, names.COMPUTE_US, names.TOTAL_US, names.BUDGET_LEFT_US)
_BEFORE = tuple(wire.parameter(name, b"\x10" + bytes(4))[:-4] for name in _TIME_NAMES)
"""All of each entry but its number."""
_TIMES = Struct("<" + "".join(f"{len(before)}sI" for before in _BEFORE))


def _times(outcome: Outcome) -> bytes:
    """The parameters in microseconds."""
    queue, compute = int(outcome.queue_seconds * 1e6), int(outcome.compute_seconds * 1e6)
    total, left = int(outcome.total_seconds * 1e6), int(outcome.budget_left * 1e6)
    if (queue | compute | total | left) >> 28:  # one is negative, or over 268 s
        values = zip(_TIME_NAMES, (queue, compute, total, left), strict=True)
        return b"".join([wire.integer_parameter(name, value) for name, value in values])
    of_queue, of_compute, of_total, of_left = _BEFORE
    return _TIMES.pack(
        of_queue, _spread(queue), of_compute, _spread(compute), of_total, _spread(total), of_left, _spread(left)
    )
