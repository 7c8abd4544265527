"""Every decision of a run with trouble, made again from its journal by the same code: the same, to the last bit."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

from benchmarks.chaos import Action, Class, Done, act, play
from benchmarks.harness import Verdict
from benchmarks.rig import rig, workers
from gateway.record.journal import replay

TROUBLE = {
    "heat": {"points": [[0, 50], [4, 50], [6, 90], [9, 90], [11, 50]], "slowdown": {"hot": 3, "critical": 6}},
    "queue": [{"at": 1, "seconds": 1.5, "backlogMs": 40}],
    "faults": [{"at": 2.5, "error": True, "seconds": 0.5}, {"at": 12, "hang": True, "seconds": 3}],
}
CLASSES = [
    Class("high", 20, 20, 1),
    Class("normal", 20, 20),
    Class("low", 20, 20, 9),
]


def played(seconds: float) -> tuple[list[str], Done]:
    """The journal's lines of a run, and what was done to the accelerator in it."""
    done: list[Done] = []
    device = workers(TROUBLE) | {"heat": {"dwellSeconds": 1}, "telemetry": {"decisions": "journal.jsonl"}}

    def placed(folder: Path) -> None:
        device["telemetry"] = {"decisions": str(folder / "journal.jsonl")}

    with rig(device, "targets: [sim, cpu]\nlatency: {budgetMs: 20}", prepare=placed) as on:
        kills = [Action("sim", 3.5), Action("sim", seconds - 2)]
        play(on, CLASSES, seconds, beside=lambda began: done.append(act(on, kills, began, seconds)))
        on.gateway.stop()
        return (on.folder / "journal.jsonl").read_text().splitlines(), done[0]


def changed(line: str) -> str:
    """The same entry, of a request with an eighth of the time."""
    entry = json.loads(line)
    if entry["kind"] == "ranked":
        entry["remaining"] /= 8
    return json.dumps(entry)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    verdict = Verdict(f"decisions of {options.seconds:g} s of kills, heat, errors, a queue and a hang, made again")
    lines, done = played(options.seconds)
    again = list(replay(lines))
    kinds = Counter(each.kind for each in again)
    orders = {json.dumps(each.decided) for each in again if each.kind == "ranked"}
    verdict.control(f"{len(lines)} entries, {len(done.marks)} kills, {len(orders)} different rankings")
    for kind, count in sorted(kinds.items()):
        same = sum(each.same for each in again if each.kind == kind)
        verdict.check(same == count, f"{kind}: {same} of {count} decisions are the same (all)")
    verdict.check({"ranked", "timed", "felt"} <= set(kinds), f"kinds of decisions: {', '.join(sorted(kinds))}")
    other = sum(not each.same for each in replay(map(changed, lines)))
    verdict.check(other > 0, f"control: with an eighth of the time, {other} rankings differ (some)")
    verdict.end()


if __name__ == "__main__":
    main()
