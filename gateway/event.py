"""Event: one thing that changed on the device, for operators."""

from __future__ import annotations

from dataclasses import dataclass

KEPT = 1000
"""Newest ones that are kept."""


@dataclass(frozen=True, slots=True)
class Event:
    """One change. ``time``: wall-clock seconds; ``sequence`` counts from 1, over restarts."""

    sequence: int
    time: float
    kind: str
    message: str
    deployment: str = ""
    version: str = ""
    worker: str = ""
