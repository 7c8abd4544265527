"""Heat: traffic leaves an accelerator before its answers are late, class by class, and returns; lies move nobody."""

from __future__ import annotations

import argparse
import itertools
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.chaos import Class, Record, Sample, Tally, play, until
from benchmarks.harness import Verdict
from benchmarks.load import PRIORITIES
from benchmarks.rig import SENSORS, Rig, rig, workers

BUDGET_MS = 25.0
RATE = 25.0
"""Of each class."""
DWELL, FORECAST = 1.0, 0.5
"""Seconds. A real device takes minutes to warm up; the settings are scaled with the ramp that is played."""
ORDER = ("low", "normal", "high")
COOL, HOTTEST = 50.0, 97.0
CHIP = {"bands": {"hot": 80, "critical": 94}, "slowdown": {"warm": 1, "hot": 3, "critical": 12}}
"""From which degrees C on the chip itself is how much slower: past the gateway's bands of 65, 75 and 85. Twelve times
3 ms are past the budget.
"""
CAUGHT_WITHIN = 2.0
ROW = 3
"""Answers in a row that make a move."""
STRAYS = 0.05
"""Share of answers that may come from the other side, without being a move."""
TYPE = "show-accelerator"


def ramp(seconds: float, verdict: Verdict, record: Record) -> None:
    """Up to throttling and back, with a reading in the worker's report."""
    calm, rise = 0.08 * seconds, 0.35 * seconds
    points = [
        [0, COOL],
        [calm, COOL],
        [calm + rise, HOTTEST],
        [calm + rise + 0.05 * seconds, HOTTEST],
        [calm + 1.85 * rise, COOL],
    ]
    device = workers({"heat": {"points": points, **CHIP}})
    device["heat"] |= {"dwellSeconds": DWELL, "intervalSeconds": 0.1, "forecastSeconds": FORECAST}
    asked = [Class(name, RATE, BUDGET_MS, PRIORITIES[name]) for name in ORDER]
    with rig(device) as on:
        tally = play(on, asked, seconds)
    marks = [(_crossing(points, celsius), f"{celsius:g} °C") for celsius in (65.0, 75.0, 85.0)]
    record.add("a ramp to throttling and back, three classes", tally, marks)
    print("ramp:")
    for line in tally.lines():
        print(f"  {line}")
    moved = {name: moves(tally.of(name)) for name in ORDER}
    first = [moved[name][0] if moved[name] else float("inf") for name in ORDER]
    last = [moved[name][-1] if moved[name] else float("inf") for name in ORDER]
    verdict.control(
        f"ramp: before it p99 {tally.of(until=calm).percentile(99):.1f} ms, "
        f"{tally.of(until=calm).served_by('sim'):.0%} served by the accelerator; critical heat would take "
        f"{3 * CHIP['slowdown']['critical']} ms"
    )
    verdict.check(
        first == sorted(first) and first[-1] < float("inf"),
        "ramp: leave in the order low, normal, high: at " + ", ".join(f"{at:.1f} s" for at in first),
    )
    home = all(len(times) and len(times) % 2 == 0 for times in moved.values())
    verdict.check(
        home and last == sorted(last, reverse=True),
        "ramp: come back in the order high, normal, low: at " + ", ".join(f"{at:.1f} s" for at in reversed(last)),
    )
    missed = {name: tally.of(name).missed() for name in ORDER}
    share = max(missed[name] / len(tally.of(name).samples) for name in ORDER)
    verdict.check(
        share <= 0.01 and tally.count("failed") == 0,
        "ramp: out of budget "
        + ", ".join(f"{name} {count}" for name, count in missed.items())
        + f": {share:.2%} of a class (1 %, so p99 is within {BUDGET_MS:g} ms); {tally.count('failed')} failed (0)",
    )
    gaps = [b - a for times in moved.values() for a, b in itertools.pairwise(times)]
    closest = min(gaps, default=float("nan"))
    verdict.check(
        bool(gaps) and closest >= DWELL - 0.1,
        f"ramp: {sum(map(len, moved.values()))} moves of classes, the closest two of one class {closest:.1f} s apart "
        f"(at least the dwell time, {DWELL:g} s)",
    )
    astray = sum(strays(tally.of(name)) for name in ORDER)
    told = sum(len(heated(tally.of(name))) for name in ORDER)
    verdict.check(
        astray <= STRAYS * told,
        f"ramp: {astray} of {told} answers from the other side than their class's ({STRAYS:.0%})",
    )


def _crossing(points: list[list[float]], celsius: float) -> float:
    """When the ramp first reaches a temperature."""
    for (start, low), (end, high) in itertools.pairwise(points):
        if low < celsius <= high:
            return start + (end - start) * (celsius - low) / (high - low)
    return float("nan")


def heated(tally: Tally) -> list[Sample]:
    """Answers of the accelerator, and of another because of heat. Those of another for any other reason are no move."""
    return [s for s in tally.ordered() if s.outcome == "served" and (s.target == "sim" or s.reason == "hot")]


def moves(tally: Tally) -> list[float]:
    """When a class left the accelerator for heat, or came back: the first of as many answers in a row as make a move.

    A single answer from the other side is none: a late one may have been overtaken by an attempt beside it.
    """
    moved: list[float] = []
    home, row = True, []
    for sample in heated(tally):
        row = [*row, sample] if (sample.target == "sim") != home else []
        if len(row) == ROW:
            moved.append(row[0].sent)
            home, row = not home, []
    return moved


def strays(tally: Tally) -> int:
    """Answers from the other side than that of their time; many of them would be flapping that ``moves`` misses."""
    moved, told = moves(tally), heated(tally)
    return sum((s.target == "sim") == bool(sum(at <= s.sent for at in moved) % 2) for s in told)


@dataclass(frozen=True)
class Zone:
    """One thermal zone of a sysfs tree that the show writes itself."""

    root: Path

    def create(self) -> None:
        self._folder.mkdir(parents=True)
        for name, content in (("type", TYPE), ("mode", "enabled"), ("temp", "45000")):
            self._write(name, content)

    def say(self, content: str | None) -> None:
        """The reading; None: none."""
        if content is None:
            (self._folder / "temp").unlink(missing_ok=True)
        else:
            self._write("temp", content)

    @property
    def _folder(self) -> Path:
        return self.root / "class" / "thermal" / "thermal_zone0"

    def _write(self, name: str, content: str) -> None:
        """Whole at any moment, as the kernel's files are."""
        whole = self._folder / f".{name}"
        whole.write_text(content + "\n")
        whole.rename(self._folder / name)


def sensors(phase: float, verdict: Verdict, record: Record) -> None:
    """Lies of a sensor, then, as the control, true heat on the same one."""
    lies: list[tuple[str, Callable[[Zone], None]]] = [
        ("frozen at -87.9 °C", lambda zone: zone.say("-87900")),
        ("missing", lambda zone: zone.say(None)),
        ("NaN", lambda zone: zone.say("nan")),
    ]
    device = workers(zones=[TYPE])
    device["heat"] |= {"dwellSeconds": 0.5, "intervalSeconds": 0.1, "forecastSeconds": 0}
    heating = 2.5
    begin = [1.0 + phase * number for number in range(len(lies) + 1)]
    seconds = begin[-1] + 1.0 + heating + phase
    with rig(device, prepare=lambda folder: Zone(folder / SENSORS).create()) as on:
        zone = Zone(on.folder / SENSORS)

        def trouble(began: float) -> None:
            _breathe(zone, 45.0, 47.0, began, began + begin[0])
            for at, (_, lie) in zip(begin, lies, strict=False):
                until(began + at)
                lie(zone)
            until(began + begin[-1])
            _breathe(zone, 45.0, 47.0, began + begin[-1], began + begin[-1] + 1.0)
            _breathe(zone, 47.0, 95.0, began + begin[-1] + 1.0, began + begin[-1] + 1.0 + heating)
            _breathe(zone, 95.0, 96.0, began + begin[-1] + 1.0 + heating, began + seconds)

        tally = play(on, [Class("normal", 50.0, BUDGET_MS, PRIORITIES["normal"])], seconds, beside=trouble)
    marks = [(at, title) for at, (title, _) in zip(begin, lies, strict=False)]
    record.add("lies of the sensor, then true heat", tally, [*marks, (begin[-1] + 1.0, "true heat")])
    print("sensors:")
    for line in tally.lines():
        print(f"  {line}")
    for (title, _), since, end in zip(lies, begin[:-1], begin[1:], strict=True):
        part = tally.of(since=since, until=end)
        hot = sum(s.reason == "hot" for s in part.samples)
        verdict.check(
            hot == 0 and part.served_by("sim") >= 0.95,
            f"sensor {title}: {part.served_by('sim'):.0%} served by the accelerator (95 %), {hot} moved for heat (0)",
        )
    true = tally.of(since=seconds - phase / 2)
    hot = sum(s.reason == "hot" for s in true.samples)
    verdict.check(
        hot >= 0.9 * len(true.samples),
        f"control: true heat of 95 °C on the same sensor moves {hot} of {len(true.samples)} (90 %)",
    )


def _breathe(zone: Zone, start: float, end: float, since: float, till: float) -> None:
    """A sensor that lives: a reading every 50 ms on the way from one temperature to the other."""
    steps = max(1, int((till - since) / 0.05))
    for step in range(steps):
        until(since + step * 0.05)
        celsius = start + (end - start) * step / steps + 0.1 * (step % 3)
        zone.say(str(int(celsius * 1000)))


def hidden(after: float, verdict: Verdict, record: Record) -> None:
    """A chip that gets four times slower, and no sensor that says so; ``after``: seconds of load when it is over."""
    onset, length = 3.0, 4.0
    device = workers({"faults": [{"at": onset, "slow": 4, "seconds": length}]})
    device["heat"] |= {"dwellSeconds": DWELL}
    seconds = onset + length + after
    caught: list[tuple[float, str]] = []
    states: list[Mapping[str, Any]] = []
    with rig(device) as on:

        def trouble(began: float) -> None:
            states.append({"before": _state(on)})
            until(began + onset)
            stop = threading.Event()
            while time.monotonic() < began + onset + length and not stop.wait(0.05):
                state = _state(on)
                if state:
                    caught.append((time.monotonic() - began - onset, state))
                    return

        # The budget is so long that lateness moves nobody: only the ratio to the usual service time can tell.
        tally = play(on, [Class("normal", 50.0, 60.0, PRIORITIES["normal"])], seconds, beside=trouble)
    record.add("a throttle that only the service times show", tally, [(onset, "4 x slower"), (onset + length, "over")])
    print("hidden throttle:")
    for line in tally.lines():
        print(f"  {line}")
    left = departure([s for s in tally.ordered() if s.sent >= onset])
    seen = min([at for at, _ in caught] + ([left - onset] if left is not None else []), default=float("inf"))
    said = caught[0][1] if caught else "no state"
    verdict.control(
        f"hidden throttle: before it p50 {tally.of(until=onset).percentile(50):.1f} ms, "
        f"{tally.of(until=onset).served_by('sim'):.0%} served by the accelerator, "
        f"state {states[0]['before'] or 'ready'}"
    )
    verdict.check(
        seen <= CAUGHT_WITHIN and not states[0]["before"],
        f"hidden throttle: caught after {seen:.2f} s (at most {CAUGHT_WITHIN:g}): {said}; traffic "
        + ("stays" if left is None else f"moves after {left - onset:.2f} s"),
    )
    verdict.check(tally.errors() == 0, f"hidden throttle: {tally.errors()} errors (0)")
    back = [s.sent for s in tally.ordered() if s.target == "sim" and s.sent > onset + length]
    verdict.control(
        "hidden throttle: when it is over, "
        + (f"the accelerator serves again after {back[0] - onset - length:.1f} s" if back else "nobody has returned")
    )


def _state(on: Rig) -> str:
    """What operators are told of the accelerator; empty: plainly ready."""
    told = [(on.accelerator().state, on.accelerator().reason)]
    told += [(target.state, target.reason) for target in on.targets() if target.worker == "sim"]
    return "; ".join(f"{state} ({reason})" for state, reason in told if state != "ready" or reason)


def departure(samples: list[Sample], enough: int = 5) -> float | None:
    """When that many answers in a row began to come from elsewhere; None: never."""
    row: list[Sample] = []
    for sample in samples:
        row = [*row, sample] if sample.outcome == "served" and sample.target != "sim" else []
        if len(row) == enough:
            return row[0].sent
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=40.0, help="of the ramp")
    parser.add_argument("--phase", type=float, default=4.0, help="seconds of each lie of the sensor")
    parser.add_argument("--after", type=float, default=12.0, help="seconds of load after the hidden throttle")
    parser.add_argument("--only", choices=["ramp", "sensors", "hidden"])
    parser.add_argument("--record", metavar="FILE", help="samples as JSON lines")
    options = parser.parse_args()
    verdict, record = Verdict("heat, told by sensors and by service times"), Record(options.record)
    parts: dict[str, Callable[[], None]] = {
        "ramp": lambda: ramp(options.seconds, verdict, record),
        "sensors": lambda: sensors(options.phase, verdict, record),
        "hidden": lambda: hidden(options.after, verdict, record),
    }
    for name, part in parts.items():
        if options.only in (None, name):
            part()
    verdict.end()


if __name__ == "__main__":
    main()
