"""Short forms of the show commands: what the project promises, with real processes."""

import json
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from benchmarks.harness import NOT_HERE

pytestmark = pytest.mark.system

SHORT = {
    "runtimes": ["--made", "--answers", "5"],
    "load_cycles": ["--cycles", "40", "--leaky", "30", "--only", "cpu"],
    "clients": [],
    "conformance": ["--every", "20"],
    "mixing": ["--seconds", "2"],
    "workers": ["--kills", "2"],
    "kill": ["--kills", "1"],
    "hang": ["--before", "1", "--seconds", "5", "--hang", "3"],
    "refusal": ["--count", "200", "--pairs", "3", "--window", "1.2"],
    "overload": ["--seconds", "5", "--light", "2", "--no-sweep"],
    "replay": ["--seconds", "8"],
    "heat-ramp": ["--only", "ramp", "--seconds", "16"],
    "heat-sensors": ["--only", "sensors", "--phase", "1.2"],
    "heat-hidden": ["--only", "hidden", "--after", "1"],
    "never": ["--phase", "1.6", "--calls", "300"],
    "poison": ["--again", "20", "--seconds", "6"],
    "lifecycle": [],
    "swap": ["--swaps", "8", "--pairs", "0"],
    "bad_input": [],
    "shared_memory": ["--only", "safety", "--count", "200"],
    "model_files": [],
    "disk_faults": ["--every", "9"],
    "gpu_trap": [],
    "npu_trap": [],
    "power_cuts": ["--cuts", "4", "--controls", "1"],
    "fetch": ["--mb", "10", "--cuts", "6"],
    "batching": ["--rounds", "1", "--seconds", "1.5"],
    "canary-bad": ["--only", "slow", "--killed", "no", "--seconds", "1", "--rounds", "1", "--slack", "60"],
    "canary-hot": ["--only", "throttled", "--seconds", "1.5"],
    "split": ["--keys", "200", "--hundreds", "1"],
    "commands": ["--threads", "8", "--calls", "20"],
    "drift": ["--reference", "250", "--recorded", "200", "--turned", "100", "--starts", "10", "--replayed", "20000"],
    "shadow": ["--rounds", "1", "--count", "100", "--bound", "3"],
    "remote": ["--only", "edgeway", "--kills", "1", "--no-control"],
    "third_party": [],
    "doctor": ["--only", "config"],
}
"""Those of copies and of page faults are in ``test_hot_path.py``."""


TIMED = {
    "batching",
    "canary-bad",
    "shadow",
    "kill",
    "hang",
    "refusal",
    "overload",
    "heat-ramp",
    "heat-hidden",
    "never",
    "remote",
}
"""These judge milliseconds. A shared machine may stand still for 100 ms in the few seconds of a short form, which is no
fault of what is shown; one that falls short twice in a row has something to say."""


UNTIMED = {
    "runtimes",
    "load_cycles",
    "clients",
    "conformance",
    "replay",
    "bad_input",
    "shared_memory",
    "model_files",
    "disk_faults",
    "gpu_trap",
    "npu_trap",
    "power_cuts",
    "fetch",
    "split",
    "drift",
    "third_party",
    "doctor",
}
"""These judge what happened and never how long it took: each may run beside another of them."""
AT_ONCE = 2
SHOW_LIMIT = 240
"""Seconds; the emulator of QNN takes most of a minute on two cores, and another show beside it."""

Done = subprocess.CompletedProcess[str]


def shown(name: str) -> Done:
    command = [sys.executable, "-m", f"benchmarks.show.{name.partition('-')[0]}", *SHORT[name]]
    return subprocess.run(command, capture_output=True, text=True, timeout=SHOW_LIMIT)


def holds(done: Done) -> None:
    if done.returncode == NOT_HERE:
        pytest.skip(done.stdout.splitlines()[-1])
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def begun(request):
    """Those of UNTIMED that are to be shown, begun in the order in which their tests ask for them."""
    test = test_the_untimed_show_holds_in_its_short_form.__name__
    names = [item.callspec.params["name"] for item in request.session.items if item.name.startswith(f"{test}[")]
    with ThreadPoolExecutor(AT_ONCE) as beside:
        yield {name: beside.submit(shown, name) for name in names}
        beside.shutdown(cancel_futures=True)


@pytest.mark.timeout(2 * SHOW_LIMIT)
@pytest.mark.parametrize("name", [name for name in SHORT if name in UNTIMED])
def test_the_untimed_show_holds_in_its_short_form(name, begun: dict[str, Future[Done]]):
    holds(begun[name].result())


# Below the others: all of those are over before the first of these begins.
@pytest.mark.timeout(2 * SHOW_LIMIT)
@pytest.mark.parametrize("name", [name for name in SHORT if name not in UNTIMED])
def test_the_show_holds_in_its_short_form(name):
    done = shown(name)
    if done.returncode and name in TIMED:
        done = shown(name)
    holds(done)


def test_the_run_path_benchmark_compares_the_worker_to_the_runtime_alone():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.runpath", "--rounds", "1", "--calls", "100", "-o", "json"],
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert {name: row["cpuRatio"] > 0 for name, row in figures.items()} == dict.fromkeys(figures, True)
    assert {"64B", "0.9MB"} <= set(figures)


def test_the_benchmark_measures_what_it_can_in_its_short_form():
    chosen = ("small", "frame", "frame-shm", "large-sealed", "size", "hop", "tail")
    command = [sys.executable, "-m", "benchmarks.bench", *chosen, "--short", "-o", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SHOW_LIMIT)
    rows = {row["name"]: row for row in json.loads(done.stdout)["rows"]}
    names = (*chosen[1:], "small-p50", "small-cpu", "small-rate")
    assert {name: row.get("value", 0) > 0 for name, row in rows.items()} == dict.fromkeys(names, True)


def measured(name: str, *arguments: str) -> dict:
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments, "-o", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SHOW_LIMIT)
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def test_the_start_benchmark_times_launches_beside_the_direct_process():
    figures = measured("start", "--launches", "1")
    assert figures["gateway"]["firstAnswerSeconds"] >= figures["gateway"]["readySeconds"] > 0
    assert figures["direct"]["firstAnswerSeconds"] > 0
    assert figures["ok"] is (figures["gateway"]["firstAnswerSeconds"] <= figures["bound"])


def test_gateway_and_worker_are_small_and_a_request_faults_few_pages():
    figures = measured("memory", "--requests", "300", "--frames", "100", "--no-quiet")
    assert figures["ok"], figures
    assert figures["directFaultsPerRequest"]["4.9 MB"] > 10 * figures["faultsPerRequest"]["4.9 MB"]
