"""``edgeway doctor``: the true reason of each backend, whatever is missing, and never a traceback."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from benchmarks.harness import wait_for
from benchmarks.show.doctor import HIDE, doctor, hiding, plugin, with_plugins
from gateway.dispatch.probes import Asked, probe_all
from gateway.dispatch.refusal import refused


def by_backend(rows: list[dict]) -> dict[str, dict]:
    return {row["backend"]: row for row in rows}


def test_every_backend_is_listed_with_a_reason_and_what_is_missing_with_code_and_remedy():
    code, rows, printed = doctor()
    assert code == 0
    assert "Traceback" not in printed
    found = by_backend(rows)
    assert {"cpu", "simulated", "tensorrt", "edgetpu", "litert", "openvino", "qnn", "coreml"} <= found.keys()
    assert found["cpu"]["available"]
    for row in rows:
        assert row["reason"]
        assert row["available"] or (row["code"] and row["remedy"]), row


@pytest.mark.parametrize(
    "hidden",
    [["onnxruntime"], ["google"], ["numpy", "google", "onnxruntime", "ai_edge_litert"]],
    ids="+".join,
)
def test_what_is_hidden_is_named_and_nothing_else_falls_over(tmp_path, hidden):
    code, rows, printed = doctor("--python", hiding(tmp_path, hidden))
    assert code == 0
    assert "Traceback" not in printed
    cpu = by_backend(rows)["cpu"]
    assert not cpu["available"]
    assert cpu["code"] == "missing-library"
    assert any(name in cpu["reason"] for name in hidden)
    assert "install" in cpu["remedy"]
    assert len(rows) >= 8


BROKEN = {
    "uninstalled": ("import no_such_runtime", "missing-library", "no_such_runtime"),
    "misbuilt": ("raise OSError('libvendor.so: wrong ELF class')", "missing-library", "wrong ELF class"),
    "misspelt": ("x = = 1", "broken", "SyntaxError"),
    "raising": ("raise RuntimeError('no luck')", "broken", "no luck"),
    "empty": ("class Nothing: pass", "broken", "Backend"),
    "bare": ("class Backend: pass", "broken", "kind"),
    "odd": ("class Backend:\n    kind = 'hardware'\n    def probe(): raise ValueError('odd')", "broken", "odd"),
    "seven": ("class Backend:\n    kind = 'hardware'\n    def probe(): return 7", "broken", "ended"),
    "crashing": ("import os; os.abort()", "broken", "SIGABRT"),
    "leaving": ("raise SystemExit(9)", "broken", "exit code 9"),
    "hanging": ("import time; time.sleep(60)", "broken", "no answer within"),
    "parent": (
        "import os, subprocess as s, time\n"
        "child = s.Popen(['sleep', '300'])\n"
        "open(os.path.join(os.path.dirname(__file__), 'pid'), 'w').write(str(child.pid))\n"
        "time.sleep(60)",
        "broken",
        "no answer within",
    ),
    "chatty": (
        "import os; print('hello'); os.write(1, b'from C'); raise ImportError('no chip')",
        "missing-library",
        "no chip",
    ),
}


@dataclass(frozen=True)
class Told:
    """What is said of all the broken ones, beside a good one; what the last of them left; and the time it took."""

    rows: dict[str, dict]
    pid: int
    seconds: float


def ask_the_broken(folder: Path) -> Told:
    for name, (code, _, _) in BROKEN.items():
        plugin(folder, name, code)
    began = time.monotonic()
    asked = Asked(with_plugins(folder), workers={name: [name] for name in (*BROKEN, "simulated")}, everything=False)
    rows = by_backend(probe_all([asked], 8.0))
    return Told(rows, int((folder / "pid").read_text()), time.monotonic() - began)


@pytest.fixture(scope="module", autouse=True)
def asking(tmp_path_factory) -> Iterator[Future[Told]]:
    """The broken ones are asked while the other tests run: two of them hang until the limit."""
    with ThreadPoolExecutor(1) as beside:
        yield beside.submit(ask_the_broken, tmp_path_factory.mktemp("plugins"))


@pytest.fixture(scope="module")
def broken(asking: Future[Told]) -> Told:
    return asking.result(60)


def test_each_worker_of_a_config_is_asked_for_under_its_own_interpreter(tmp_path):
    config = {
        "workers": [
            {"name": "tpu", "backend": "simulated"},
            {"name": "bare", "backend": "simulated", "python": hiding(tmp_path, ["numpy"])},
            {"name": "gone", "backend": "simulated", "python": "/no/such/python"},
            {"name": "what", "backend": "abacus"},
        ]
    }
    path = tmp_path / "device.yaml"
    path.write_text(yaml.safe_dump(config))
    code, rows, printed = doctor("--config", str(path))
    assert code == 1  # not all of them can work
    assert "Traceback" not in printed
    found = {worker: row for row in rows for worker in row["workers"]}
    assert found.keys() == {"tpu", "bare", "gone", "what", "cpu"}
    assert found["tpu"]["available"]
    assert found["bare"]["code"] == "missing-library"
    assert "numpy" in found["bare"]["reason"]
    assert found["bare"]["python"].endswith("/python")
    assert (found["gone"]["code"], found["what"]["code"]) == ("missing-interpreter", "unsupported")
    assert "/no/such/python" in found["gone"]["reason"]
    path.write_text("workers: [{name: tpu, backend: simulated}]")
    assert doctor("--config", str(path))[0] == 0


def test_an_interpreter_that_is_too_old_says_so(tmp_path):
    old = tmp_path / "python"
    # What an old interpreter reads of the program, with its version.
    old.write_text(
        f'#!/bin/sh\nexec {sys.executable} -c "import sys; sys.version_info = (3, 8, 18); exec(sys.argv.pop(2))" "$@"\n'
    )
    old.chmod(0o755)
    (row,) = probe_all([Asked(str(old))], 20.0)
    assert row["code"] == "unsupported"
    assert "3.8" in row["reason"]


@pytest.mark.parametrize("line", ["", "unavailable", "unavailable: no json", "unavailable: [1]", "unavailable: 7"])
def test_a_line_that_only_looks_like_a_refusal_is_none(line):
    assert refused(line) is None


@pytest.mark.parametrize(
    "hidden", [["numpy", "google", "grpc", "onnxruntime"], ["rich"], ["yaml"], ["msgspec"], ["click"]]
)
def test_the_command_itself_needs_no_runtime_and_names_what_else_it_lacks(hidden):
    code = textwrap.dedent(HIDE.format(hidden=hidden)) + "from gateway.cli import main\nmain()"
    done = subprocess.run([sys.executable, "-c", code, "doctor"], capture_output=True, text=True)
    assert "Traceback" not in done.stdout + done.stderr
    if "numpy" in hidden:
        assert (done.returncode, "simulated" in done.stdout) == (0, True)
    else:
        assert done.returncode == 1
        assert hidden[0] in done.stderr
        assert "pip install" in done.stderr


@pytest.mark.parametrize("name", BROKEN)
def test_a_backend_that_breaks_says_how(broken, name):
    row = broken.rows[name]
    _, code, word = BROKEN[name]
    assert (row["available"], row["code"]) == (False, code), row
    assert word in row["reason"]
    assert row["remedy"]
    assert "Traceback" not in json.dumps(row)


def test_those_that_break_or_hang_hide_no_other_and_are_waited_for_together(broken):
    assert broken.rows["simulated"]["available"], broken.rows["simulated"]
    assert broken.seconds < 8 + 8 + 8  # the list, the probes that end, and two that hang at the same time


def test_nothing_of_a_probe_stays(broken):
    stat = Path(f"/proc/{broken.pid}/stat")
    wait_for(lambda: not stat.exists() or stat.read_text().split()[2] == "Z", 5, "its child's end")
