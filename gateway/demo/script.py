"""What happens when: the phases of a scenario, and the options that make the simulated accelerator play them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SERVICE_MS = 5.0
"""A run on the simulated accelerator; it computes the true outputs on two cores, which takes 3 ms of it."""
KILL_EVERY = 1.5
"""Seconds between two SIGKILLs: the worker is back some 0.3 s after each."""
_BACKLOG_MS = 60.0
_COOL, _HOT = 55.0, 82.0
_TITLES = {
    "normal": "normal",
    "busy": "accelerator busy",
    "hot": "accelerator hot",
    "killed": "accelerator killed",
    "back": "back to normal",
}
SCENARIOS = {
    "failover": ("normal", "busy", "hot", "killed", "back"),
    "busy": ("normal", "busy", "back"),
    "hot": ("normal", "hot", "back"),
    "killed": ("normal", "killed", "back"),
}


@dataclass(frozen=True, slots=True)
class Phase:
    """One stretch of the demonstration, in seconds since its start."""

    name: str
    start: float
    end: float

    @property
    def title(self) -> str:
        return _TITLES[self.name]


def phases_of(scenario: str, seconds: float) -> list[Phase]:
    """The phases, equally long."""
    names = SCENARIOS[scenario]
    length = seconds / len(names)
    return [Phase(name, index * length, (index + 1) * length) for index, name in enumerate(names)]


def simulation(phases: Sequence[Phase], origin: float) -> dict[str, Any]:
    """Options of the simulated worker. ``origin``: ``time.monotonic()`` of the first phase's start."""
    options: dict[str, Any] = {"serviceMs": SERVICE_MS, "origin": origin}
    points: list[list[float]] = [[0.0, _COOL]]
    for phase in phases:
        if phase.name == "busy":
            length = phase.end - phase.start
            options["queue"] = [{"at": phase.start, "seconds": length, "backlogMs": _BACKLOG_MS}]
        if phase.name == "hot":
            ramp = min(1.0, (phase.end - phase.start) / 4)
            points += [[phase.start, _COOL], [phase.start + ramp, _HOT], [phase.end - ramp, _HOT], [phase.end, _COOL]]
    return options | {"heat": {"points": points}}


def kill_times(phases: Sequence[Phase]) -> list[float]:
    """Seconds since the start at which the accelerator's worker is killed."""
    times: list[float] = []
    for phase in phases:
        if phase.name == "killed":
            at = phase.start
            while at < phase.end - KILL_EVERY / 3:
                times.append(at)
                at += KILL_EVERY
    return times
