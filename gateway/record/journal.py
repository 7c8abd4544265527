"""Journal: every decision with all that it was made of, as JSON lines, so that the same code can make it again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from gateway.config import Bands, HeatSettings
from gateway.device.sensors import Reading
from gateway.device.thermal import Heat, ThermalTracker, tracker_of
from gateway.routing.policy import Candidate, PreferredInTime, Ranking, attempt_time, may_hedge

LARGEST = 256 << 20
"""Bytes after which nothing more is written: a forgotten journal must not fill a robot's disk."""


class Journal:
    """Writes decisions to a file. Costs some 20 us a request, so it is off unless ``telemetry.decisions`` names one."""

    def __init__(self, path: Path, heat: HeatSettings) -> None:
        """Raises OSError: the file can't be written."""
        self._file = path.open("w", encoding="utf-8")
        self._left = LARGEST
        self._write("settings", heat=_plain(heat))

    def ranked(
        self, candidates: Sequence[Candidate], remaining: float, margin: float, degrade: str, ranking: Ranking
    ) -> None:
        self._write(
            "ranked",
            candidates=candidates,
            remaining=remaining,
            margin=margin,
            degrade=degrade,
            decided=_ranking(ranking),
        )

    def timed(
        self,
        remaining: float,
        total: float,
        own: float | None,
        wait: float,
        run: float | None,
        margin: float,
        limit: float,
    ) -> None:
        self._write("timed", given=(remaining, total, own, wait, run, margin), decided=limit)

    def hedged(self, hedged: int, walking: int, share: float, floor: int, allowed: bool) -> None:
        self._write("hedged", given=(hedged, walking, share, floor), decided=allowed)

    def felt(self, worker: str, reading: Reading | None, ratio: float | None, now: float, heat: Heat) -> None:
        plain = None if reading is None else asdict(reading)
        self._write("felt", worker=worker, reading=plain, ratio=ratio, now=now, decided=asdict(heat))

    def close(self) -> None:
        self._file.close()

    def _write(self, kind: str, **values: Any) -> None:
        line = json.dumps({"kind": kind, **values}) + "\n"
        self._left -= len(line)
        if self._left > 0:
            self._file.write(line)


class Replayed(NamedTuple):
    """One decision of a journal, and what the code decides now."""

    line: int
    kind: str
    decided: Any
    again: Any

    @property
    def same(self) -> bool:
        return json.dumps(self.decided) == json.dumps(self.again)  # as text: nothing equals NaN


def replay(lines: Iterable[str]) -> Iterator[Replayed]:
    """Make every decision of a journal again, in order.

    Raises:
        ValueError: a line is no entry of a journal.
    """
    trackers: dict[str, ThermalTracker] = {}
    settings = HeatSettings()
    for number, line in enumerate(lines, 1):
        entry = json.loads(line)
        kind = entry["kind"]
        if kind == "settings":
            settings = _settings(entry["heat"])
            continue
        if kind == "ranked":
            candidates = [Candidate(*each) for each in entry["candidates"]]
            policy = PreferredInTime(entry["margin"])
            again: Any = _ranking(policy.rank(candidates, entry["remaining"], entry["degrade"]))
        elif kind == "timed":
            again = attempt_time(*entry["given"])
        elif kind == "hedged":
            again = may_hedge(*entry["given"])
        elif kind == "felt":
            tracker = trackers.setdefault(entry["worker"], tracker_of(settings))
            again = asdict(tracker.step(_reading(entry["reading"]), entry["ratio"], entry["now"]))
        else:
            raise ValueError(f"line {number}: {kind!r} is no kind of decision")
        yield Replayed(number, kind, entry["decided"], json.loads(json.dumps(again)))


def _ranking(ranking: Ranking) -> list[Any]:
    return [list(ranking.order), ranking.skipped, ranking.feasible, ranking.soonest, ranking.probe]


def _plain(heat: HeatSettings) -> dict[str, Any]:
    bands = heat.bands
    return {
        "bands": {"warm": bands.warm, "hot": bands.hot, "critical": bands.critical},
        "dwell": heat.dwell_seconds,
        "forecast": heat.forecast_seconds,
        "interval": heat.interval_seconds,
    }


def _settings(plain: dict[str, Any]) -> HeatSettings:
    bands = Bands(**{name: (float(enter), float(leave)) for name, (enter, leave) in plain["bands"].items()})
    return HeatSettings(
        bands=bands,
        dwell_seconds=plain["dwell"],
        forecast_seconds=plain["forecast"],
        interval_seconds=plain["interval"],
    )


def _reading(plain: dict[str, Any] | None) -> Reading | None:
    if plain is None:
        return None
    parts = tuple(_reading(part) for part in plain.pop("parts", ()))
    return Reading(**plain, parts=tuple(part for part in parts if part is not None))
