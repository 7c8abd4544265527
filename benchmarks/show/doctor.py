"""``edgeway doctor`` here, and with pieces hidden, broken and hung: each backend with its reason, and no traceback.

Pieces are hidden from an interpreter by a finder that does not find them, under ours and under each environment of
``make runtimes`` that is there. Broken backends are distributions of their own, as anybody could install them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import yaml

from benchmarks import runtimes
from benchmarks.harness import Verdict, scratch
from gateway.dispatch.probes import Asked, probe_all

PIECES = ("numpy", "google", "onnxruntime", "ai_edge_litert", "onnxruntime_qnn")
EXPECTED = {"cpu", "simulated", "tensorrt", "edgetpu", "litert", "openvino", "qnn", "coreml", "remote"}
HIDE = """
    import sys
    class Hidden:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in {hidden!r}:
                raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
    sys.meta_path.insert(0, Hidden())
"""
BREAKING = {
    "uninstalled": "import no_such_runtime",
    "misbuilt": "raise OSError('libvendor.so: wrong ELF class')",
    "misspelt": "x = = 1",
    "raising": "class Backend:\n    kind = 'hardware'\n    def probe(): raise ValueError('odd')",
    "seven": "class Backend:\n    kind = 'hardware'\n    def probe(): return 7",
    "crashing": "import os; os.abort()",
    "leaving": "raise SystemExit(9)",
    "hanging": "import time; time.sleep(600)",
}


def program(folder: Path, code: str, python: str = sys.executable) -> str:
    """An interpreter in the folder that runs this first."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "first.py").write_text(textwrap.dedent(code))
    path = folder / "python"
    first = f"exec(open('{folder}/first.py').read())"
    path.write_text(f'#!/bin/sh\nshift\nprogram="{first}; $1"\nshift\nexec {python} -c "$program" "$@"\n')
    path.chmod(0o755)
    return str(path)


def hiding(folder: Path, hidden: Sequence[str], python: str = sys.executable) -> str:
    """An interpreter that does not find these modules."""
    return program(folder, HIDE.format(hidden=list(hidden)), python)


def plugin(folder: Path, name: str, code: str) -> None:
    """A distribution in the folder that adds a backend of that name, from a module of this code."""
    (folder / f"{name}_backend.py").write_text(textwrap.dedent(code))
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[edgeway.backends]\n{name} = {name}_backend:Backend\n")


def with_plugins(folder: Path) -> str:
    """An interpreter that finds the plugins of the folder."""
    return program(folder, f"import sys; sys.path.append({str(folder)!r})")


def doctor(*arguments: str) -> tuple[int, list[dict[str, Any]], str]:
    """Exit code, rows, and all that was printed."""
    command = [sys.executable, "-m", "gateway", "doctor", "-o", "json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    try:
        return done.returncode, json.loads(done.stdout), done.stdout + done.stderr
    except ValueError:
        return done.returncode, [], done.stdout + done.stderr


def told(rows: Sequence[dict[str, Any]]) -> bool:
    """Whether each backend that can't work says why, of what kind that is, and what to do."""
    return bool(rows) and all(row["reason"] and (row["available"] or (row["code"] and row["remedy"])) for row in rows)


def here(verdict: Verdict) -> None:
    code, rows, printed = doctor()
    for row in rows:
        state = f"available ({row['kind']})" if row["available"] else f"unavailable ({row['code']})"
        verdict.control(f"{row['backend']}: {state}: {row['reason']}{'; ' + row['remedy'] if row['remedy'] else ''}")
    missing = EXPECTED - {row["backend"] for row in rows}
    verdict.check(
        code == 0 and not missing and told(rows),
        f"{len(rows)} backends, each with its reason; missing: {missing or 'none'}",
    )
    verdict.check("Traceback" not in printed, "no traceback")


def interpreters() -> dict[str, str]:
    """Ours, and those of the environments that are there."""
    found = {"ours": sys.executable}
    for name in runtimes.RUNTIMES:
        try:
            found[name] = str(runtimes.interpreter(name))
        except runtimes.Missing:
            continue
    return found


def configured(verdict: Verdict, folder: Path) -> None:
    """A device config with a worker under each interpreter, and under some that can't be used."""
    backends = {"ours": "simulated", "python3.9": "cpu"}
    workers = [
        {"name": name, "backend": backends.get(name, name), "python": python} for name, python in interpreters().items()
    ]
    workers.append({"name": "gone", "backend": "cpu", "python": "/no/such/python"})
    (folder / "device.yaml").write_text(yaml.safe_dump({"workers": workers}))
    code, rows, printed = doctor("--config", str(folder / "device.yaml"))
    for row in rows:
        for worker in row["workers"]:
            state = "available" if row["available"] else f"unavailable ({row['code']})"
            verdict.control(f"worker {worker}, backend {row['backend']}: {state}: {row['reason']}")
    answered = {worker for row in rows for worker in row["workers"]} >= {worker["name"] for worker in workers}
    verdict.check(
        code == 1 and answered and told(rows), f"{len(workers)} workers of a config, each under its own interpreter"
    )
    verdict.check("Traceback" not in printed, "no traceback")


def hidden_pieces(verdict: Verdict, folder: Path, most: int) -> None:
    for which, python in interpreters().items():
        bad: list[str] = []
        combos = [combo for size in range(1, most + 1) for combo in combinations(PIECES, size)] + [PIECES]
        for number, combo in enumerate(combos):
            code, rows, printed = doctor("--python", hiding(folder / f"{which}{number}", combo, python))
            if code or not told(rows) or "Traceback" in printed or not {row["backend"] for row in rows} >= EXPECTED:
                bad.append("+".join(combo))
        verdict.check(
            not bad, f"{which}: {len(combos)} combinations of hidden modules; wrong: {', '.join(bad) or 'none'}"
        )


def breaking(verdict: Verdict, folder: Path) -> None:
    for name, code in BREAKING.items():
        plugin(folder, name, code)
    began = time.monotonic()
    rows = {row["backend"]: row for row in probe_all([Asked(with_plugins(folder))], 15.0)}
    for name in BREAKING:
        verdict.control(f"{name}: {rows[name]['code']}: {rows[name]['reason']}")
    wrong = [name for name in BREAKING if rows[name]["available"] or not rows[name]["code"]]
    verdict.check(
        not wrong and told(list(rows.values())), f"{len(BREAKING)} broken backends say how; wrong: {wrong or 'none'}"
    )
    verdict.check(
        rows["cpu"]["available"], f"and hide no other; one hangs, and all took {time.monotonic() - began:.0f} s"
    )
    verdict.check("Traceback" not in json.dumps(rows), "no traceback")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=["here", "config", "hidden", "broken"], help="one part")
    parser.add_argument("--most", type=int, default=2, help="modules hidden at a time, beside all of them")
    options = parser.parse_args()
    verdict = Verdict("edgeway doctor")
    with scratch() as folder:
        if options.only in (None, "here"):
            here(verdict)
        if options.only in (None, "config"):
            configured(verdict, folder)
        if options.only in (None, "hidden"):
            hidden_pieces(verdict, folder / "hidden", options.most)
        if options.only in (None, "broken"):
            (folder / "broken").mkdir()
            breaking(verdict, folder / "broken")
    verdict.end()


if __name__ == "__main__":
    main()
