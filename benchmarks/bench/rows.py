"""What is measured: each row is one figure with its bound and its aim."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """``bound``: what must hold; ``aim``: what is wanted."""

    name: str
    title: str
    bound: float | None
    """None: for the reader's information, not judged."""
    aim: float | None
    at_least: bool = False
    """The figure must not be smaller than the bound; otherwise it must not be larger."""
    unit: str = ""
    """Empty: a ratio."""
    grain: float = 0.0
    """A difference that says nothing, however quiet the rounds were; a twentieth of a ratio in any case."""

    def holds(self, value: float) -> bool:
        if self.bound is None:
            return True
        return value >= self.bound if self.at_least else value <= self.bound

    def worse_by(self, value: float, than: float) -> float:
        """How much worse ``value`` is; negative: better."""
        return than - value if self.at_least else value - than


ROWS = (
    Row("small-p50", "64 B, one caller: p50 over that of an echo", 1.5, 1.3),
    Row("small-cpu", "64 B, one caller: CPU time of the gateway process per request over the echo's", 1.7, 1.4),
    Row("small-rate", "64 B, 16 callers: answers per second over the echo's", 0.6, 0.75, at_least=True),
    Row("frame", "0.9 MB in the message: p50 over direct", 1.15, 1.0),
    Row("image", "0.6 MB of FP32 in the message: p50 over direct", 1.15, 1.0),
    Row("large", "4.9 MB in the message: p50 over direct", 1.3, 1.1),
    Row("bare-frame", "the same of 0.9 MB with a model that does next to nothing", None, None),
    Row("bare-large", "the same of 4.9 MB with a model that does next to nothing", None, None),
    Row("frame-shm", "0.9 MB in the caller's shared memory: p50 over direct", 1.15, 1.0),
    Row("large-shm", "4.9 MB in the caller's shared memory: p50 over direct", 1.15, 1.0),
    Row("frame-sealed", "0.9 MB in shared memory that the gateway made: p50 over direct", 1.15, 1.0),
    Row("large-sealed", "4.9 MB in shared memory that the gateway made: p50 over direct", 1.15, 1.0),
    Row("bare-sealed", "the same of 4.9 MB with a model that does next to nothing", None, None),
    Row("size", "4.9 MB in shared memory that the gateway made over 64 B, without the models' own time", 1.4, 1.15),
    Row("hop", "0.9 MB to a worker and back over the same on a thread", 3.0, 2.0),
    Row("faults-frame", "minor page faults of the gateway per request of 0.9 MB", 5.0, 1.0, unit="faults", grain=0.5),
    Row("faults-large", "minor page faults of the gateway per request of 4.9 MB", 60.0, 10.0, unit="faults", grain=2.0),
    Row("copies", "copies of tensor bytes per request with one output", 3.25, 3.0, unit="copies", grain=0.25),
    Row("tail", "100 requests a second of 5 ms: p99 over p50, over that of direct", 1.3, 1.0),
    Row("start", "start to the first answer", 1.2, 0.7, unit="s", grain=0.05),
    Row("memory", "PSS of gateway and CPU worker after 10,000 requests of 0.9 MB", 200.0, 130.0, unit="MB", grain=5.0),
)
BY_NAME = {row.name: row for row in ROWS}


def chosen(names: list[str]) -> list[Row]:
    """Rows by name, or several by the part of their names before a dash (``small``); none: all.

    Raises:
        ValueError: no row has this name.
    """
    found: set[str] = set()
    for name in names:
        matching = {name} & BY_NAME.keys() or {each for each in BY_NAME if each.startswith(f"{name}-")}
        if not matching:
            raise ValueError(f"expected a row of {', '.join(BY_NAME)}, got {name!r}")
        found |= matching
    return [row for row in ROWS if not names or row.name in found]
