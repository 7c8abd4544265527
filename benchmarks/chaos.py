"""Plays a scenario under open-loop load with budgets: what became of each class, by whom it was served and why.

    python -m benchmarks.chaos --scenario FILE [--rate 60] [--classes high:1:50,low:2:50] [--seconds 30] [-o json]

A scenario is a device config plus actions, as in examples/scenarios/. Classes are NAME:SHARE:BUDGET_MS; the shares are
of ``--rate``, and rates themselves without it. The names high, normal and low are priorities too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.load import PRIORITIES, Class, Sample, Sender
from benchmarks.rig import Rig, rig

__all__ = ["Action", "Class", "Record", "Sample", "Scenario", "Tally", "act", "play", "scenario_of", "until"]

DISTURBED_FROM_MS = 15.0
DISTURBED = ": something else had the cores, and these figures are of a disturbed machine"
LEAD = 0.2
"""Seconds between the sender's being ready and its first question."""


@dataclass
class Tally:
    """All samples of a run, or a part of them."""

    samples: list[Sample] = field(default_factory=list)

    def of(self, caller: str | None = None, since: float = 0.0, until: float = float("inf")) -> Tally:
        return Tally([s for s in self.samples if (caller in (None, s.caller)) and since <= s.sent < until])

    def ordered(self) -> list[Sample]:
        """By the time of sending."""
        return sorted(self.samples, key=lambda s: s.sent)

    def share_in_budget(self) -> float:
        return self.in_budget() / max(1, len(self.samples))

    def in_budget(self) -> int:
        return sum(s.in_budget for s in self.samples)

    def missed(self) -> int:
        """Requests that got no answer in their budget, for whatever reason."""
        return len(self.samples) - self.in_budget()

    def count(self, outcome: str) -> int:
        return sum(s.outcome == outcome for s in self.samples)

    def errors(self) -> int:
        """Requests that got no answer at all."""
        return len(self.samples) - self.count("served")

    def percentile(self, q: float) -> float:
        """Milliseconds, of the served."""
        served = [s.latency for s in self.samples if s.outcome == "served"]
        return float(np.percentile(served, q)) * 1e3 if served else float("nan")

    def slowest(self) -> float:
        """Milliseconds until the last caller knew, served or not."""
        return max((s.latency for s in self.samples), default=0.0) * 1e3

    def send_delay(self, q: float = 99) -> float:
        """Milliseconds that the sender itself was late."""
        return float(np.percentile([s.delay for s in self.samples], q)) * 1e3 if self.samples else 0.0

    def served_by(self, target: str) -> float:
        """Share of the answers."""
        return sum(s.target == target for s in self.samples) / max(1, self.count("served"))

    def switches(self) -> list[float]:
        """When the serving target changed from one answered request of a class to the next, seconds since the start."""
        last: dict[str, str] = {}
        times = []
        for sample in self.ordered():
            if sample.outcome == "served":
                if last.get(sample.caller, sample.target) != sample.target:
                    times.append(sample.sent)
                last[sample.caller] = sample.target
        return times

    def switches_per_minute(self) -> float:
        served = [s.sent for s in self.samples if s.outcome == "served"]
        if len(served) < 2:
            return 0.0
        return len(self.switches()) * 60.0 / max(1e-9, max(served) - min(served))

    def figures(self) -> dict[str, Any]:
        """The same as ``lines``, as plain data."""
        classes = {}
        for caller in dict.fromkeys(s.caller for s in self.ordered()):
            part = self.of(caller)
            classes[caller] = {
                "sent": len(part.samples),
                "inBudget": part.in_budget(),
                "late": part.count("served") - part.in_budget() + part.count("expired"),
                "refused": part.count("refused"),
                "failed": part.count("failed"),
                **{f"p{q}Ms": round(part.percentile(q), 2) for q in (50, 99, 99.9)},
            }
        who = Counter((s.target, s.reason) for s in self.samples if s.outcome == "served")
        why = Counter(f"{s.code}: {s.message}" for s in self.samples if s.outcome != "served")
        return {
            "classes": classes,
            "servedBy": [{"target": target, "reason": reason, "count": n} for (target, reason), n in who.most_common()],
            "errors": dict(why.most_common(5)),
            "switchesPerMinute": round(self.switches_per_minute(), 1),
            "sendDelayP99Ms": round(self.send_delay(), 2),
        }

    def lines(self) -> list[str]:
        """A table: one line per class, then who served and why, then how late the sender was."""
        figures = self.figures()
        rows = [f"{'class':8} {'sent':>6} {'in budget':>10} {'late':>6} {'refused':>8} {'failed':>7}  p50/p99/p99.9 ms"]
        for name, of in figures["classes"].items():
            rows.append(
                f"{name:8} {of['sent']:6} {of['inBudget'] / max(1, of['sent']):10.2%} {of['late']:6} "
                f"{of['refused']:8} {of['failed']:7}  {of['p50Ms']:.1f} / {of['p99Ms']:.1f} / {of['p99.9Ms']:.1f}"
            )
        served = [
            f"{w['target']} {w['count']}" + (f" ({w['reason']})" * bool(w["reason"])) for w in figures["servedBy"]
        ]
        rows.append(f"served by {', '.join(served) or 'nobody'}; {figures['switchesPerMinute']} switches/min")
        rows += [f"  {n} x {why}" for why, n in figures["errors"].items()]
        delay = figures["sendDelayP99Ms"]
        rows.append(f"control: the sender's own delay, p99 {delay} ms" + DISTURBED * (delay > DISTURBED_FROM_MS))
        return rows


def play(
    on: Rig,
    classes: Sequence[Class],
    seconds: float,
    seed: int = 1,
    beside: Callable[[float], None] | None = None,
) -> Tally:
    """Send each class's arrivals for ``seconds``, from the rig's origin on where that is yet to come.

    ``beside(began)`` makes the trouble meanwhile, in a thread; ``began``: monotonic seconds of the load's zero.
    """
    with Sender(on.gateway.unix, classes, seconds, seed) as sender:
        began = max(on.origin, time.monotonic() + LEAD)
        sender.begin(began)
        if beside is not None:
            thread = threading.Thread(target=beside, args=(began,))
            thread.start()
        samples = sender.samples()
        if beside is not None:
            thread.join()
    return Tally(samples)


def until(moment: float) -> None:
    """Wait for a moment of the monotonic clock."""
    time.sleep(max(0.0, moment - time.monotonic()))


@dataclass(frozen=True)
class Action:
    """A signal to a worker's process: once, or every so many seconds from ``at`` to ``end``."""

    worker: str
    at: float
    every: float = 0.0
    """Seconds; 0: once."""
    end: float = float("inf")
    stop: float = 0.0
    """Seconds between SIGSTOP and SIGCONT; 0: it is SIGKILL."""

    def signals(self, seconds: float) -> Iterator[tuple[float, signal.Signals]]:
        """What is sent when, in a load of so many seconds."""
        at = self.at
        while at < min(seconds, self.end):
            if self.stop:
                yield at, signal.SIGSTOP
                yield at + self.stop, signal.SIGCONT
            else:
                yield at, signal.SIGKILL
            if not self.every:
                return
            at += self.every


@dataclass
class Done:
    """What the actions did: (when, what) in seconds since the start of the load."""

    marks: list[tuple[float, str]] = field(default_factory=list)
    idle: int = 0
    """Times that the worker had no process to send a signal to."""


NAMES = {signal.SIGKILL: "killed", signal.SIGSTOP: "stopped", signal.SIGCONT: "goes on"}


def act(on: Rig, actions: Sequence[Action], began: float, seconds: float) -> Done:
    """Carry the actions out, each at its time."""
    done = Done()
    plan = [(at, action.worker, what) for action in actions for at, what in action.signals(seconds)]
    for at, worker, what in sorted(plan):
        until(began + at)
        pid = on.accelerator(worker).pid
        if not pid:
            done.idle += 1
            continue
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, what)
        done.marks.append((time.monotonic() - began, NAMES[what]))
    return done


@dataclass(frozen=True)
class Scenario:
    """What is played."""

    device: dict[str, Any]
    """Device config."""
    actions: tuple[Action, ...] = ()
    classes: tuple[Class, ...] = ()
    seconds: float = 30.0
    spec: str = ""
    """Further lines of the manifest's spec."""


def scenario_of(plain: Mapping[str, Any]) -> Scenario:
    """From plain data, as the files of ``examples/scenarios`` have it.

    ``device``: a device config, with ``$SYSFS`` for the folder of fake sensors. ``actions``: ``{kill: sim, at: 3}``,
    ``{kill: sim, every: 2, from: 1, to: 20}`` or ``{stop: sim, at: 5, seconds: 4}``, in seconds since the start of the
    load, as are all times of simulated workers. ``load``: ``rate`` and ``budgetMs``, or ``classes`` of them. The model
    goes to all workers, in their order.
    """
    device = dict(plain["device"])
    actions = []
    for entry in plain.get("actions", ()):
        worker = entry.get("kill") or entry["stop"]
        at, every, end = entry.get("at", entry.get("from", 0.0)), entry.get("every", 0.0), entry.get("to", "inf")
        actions.append(Action(worker, float(at), float(every), float(end), float(entry.get("seconds", 0.0))))
    load = {"rate": 30.0, "budgetMs": 20.0, **plain.get("load", {})}
    classes = tuple(
        Class(each["name"], each["rate"], each["budgetMs"], each.get("priority", 0), degrade=each.get("degrade", ""))
        for each in load.get("classes") or [{"name": "camera", "rate": load["rate"], "budgetMs": load["budgetMs"]}]
    )
    names = [worker["name"] for worker in device["workers"]]
    spec = yaml.safe_dump({"targets": names, "latency": plain.get("latency", {})})
    return Scenario(device, tuple(actions), classes, float(plain.get("seconds", 30.0)), spec)


class Record:
    """Runs as JSON lines for the plots: a line that tells what it is, then its samples. Without a path, nothing."""

    def __init__(self, path: str | None) -> None:
        self._path = Path(path) if path else None
        if self._path is not None:
            self._path.write_text("")

    def add(self, title: str, tally: Tally, marks: Sequence[tuple[float, str]] = ()) -> None:
        """``marks``: (seconds since the start of the load, what happened)."""
        if self._path is not None:
            with self._path.open("a") as out:
                out.write(json.dumps({"title": title, "marks": list(marks)}) + "\n")
                out.writelines(json.dumps(asdict(sample)) + "\n" for sample in tally.ordered())


def classes_of(text: str, rate: float | None) -> list[Class]:
    """From ``high:1:50,low:2:50``."""
    parts = [part.split(":") for part in text.split(",")]
    return scaled([Class(name, float(of), float(ms), PRIORITIES.get(name, 0)) for name, of, ms in parts], rate)


def scaled(classes: Sequence[Class], rate: float | None) -> list[Class]:
    """The same mix at this rate in all; None: as it is."""
    factor = rate / sum(each.rate for each in classes) if rate else 1.0
    return [replace(each, rate=each.rate * factor) for each in classes]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").strip(), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenario", required=True, help="YAML file")
    parser.add_argument("--rate", type=float, help="requests per second of all classes")
    parser.add_argument("--classes", help="NAME:SHARE:BUDGET_MS,...; by default those of the scenario")
    parser.add_argument("--seconds", type=float, help="by default those of the scenario")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--record", metavar="FILE", help="samples as JSON lines")
    parser.add_argument("-o", "--output", choices=["text", "json"], default="text")
    options = parser.parse_args()
    scenario = scenario_of(yaml.safe_load(Path(options.scenario).read_text()))
    seconds = options.seconds or scenario.seconds
    classes = classes_of(options.classes, options.rate) if options.classes else scaled(scenario.classes, options.rate)
    done: list[Done] = []

    def trouble(began: float) -> None:
        done.append(act(on, scenario.actions, began, seconds))

    with rig(device=scenario.device, spec=scenario.spec) as on:
        tally = play(on, classes, seconds, options.seed, trouble)
    Record(options.record).add(Path(options.scenario).stem, tally, done[0].marks)
    if options.output == "json":
        json.dump(tally.figures(), sys.stdout, indent=2)
        print()
    else:
        print("\n".join(tally.lines()))


if __name__ == "__main__":
    main()
