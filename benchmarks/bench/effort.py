"""How much is measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """Per round, but for ``rounds``."""

    rounds: int
    small: int
    """Calls of 64 B of each system."""
    medium: int
    """Of 0.6 and 0.9 MB."""
    large: int
    """Of 4.9 MB."""
    seconds: float
    """Of each closed loop."""
    tail_seconds: float
    """Of each open loop."""
    requests: int
    """Of 0.9 MB before the memory is read."""
    launches: int
    """Of each system, for the time to the first answer."""


FULL = Effort(rounds=5, small=800, medium=240, large=96, seconds=2.0, tail_seconds=12.0, requests=10_000, launches=9)
SHORT = Effort(rounds=2, small=80, medium=32, large=16, seconds=0.3, tail_seconds=1.5, requests=500, launches=1)
