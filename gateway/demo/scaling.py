"""Options of a simulated accelerator for a scenario that is played slower or faster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def scaled_options(options: Mapping[str, Any], factor: float) -> dict[str, Any]:
    """The options with ``factor`` times all their times; what makes no sense is left for the worker to refuse.

    A chip's thermal mass is a time, too: its time constant is mass / cooling.
    """
    scaled = dict(options)
    for key in ("queue", "faults"):
        if isinstance(scaled.get(key), list):
            scaled[key] = [_entry(entry, factor) for entry in scaled[key]]
    heat = scaled.get("heat")
    if isinstance(heat, dict):
        scaled["heat"] = heat = dict(heat)
        if isinstance(heat.get("points"), list):
            heat["points"] = [_point(point, factor) for point in heat["points"]]
        if _is_number(heat.get("thermalMassJPerC")):
            heat["thermalMassJPerC"] *= factor
    return scaled


def _entry(entry: Any, factor: float) -> Any:
    if not isinstance(entry, dict):
        return entry
    times = {key: entry[key] * factor for key in ("at", "seconds") if _is_number(entry.get(key))}
    return entry | times


def _point(point: Any, factor: float) -> Any:
    if isinstance(point, list) and point and _is_number(point[0]):
        return [point[0] * factor, *point[1:]]
    return point


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
