"""Scenario files: what they may say, how they are scaled and judged, and that the demo plays them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.harness import wait_for
from gateway.config import parse_device_config
from gateway.demo.scenario import (
    Expect,
    Served,
    Signal,
    device_config,
    load_scenario,
    scenario_files,
    signals,
    simulated_options,
)
from gateway.demo.signalling import Signaller
from gateway.demo.tally import Tally, judge
from gateway.strict_yaml import ConfigError
from workers.simulation.chip import Chip
from workers.simulation.options import read_options
from workers.simulation.script import Script

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "examples" / "scenarios").glob("*.yaml"))
SMALL = """
name: small
description: A small one.
seconds: 10
device:
  workers:
    - name: sim
      backend: simulated
      options:
        sysfsRoot: $SYSFS
        queue: [{at: 2, seconds: 3, backlogMs: 9}]
        heat: {thermalMassJPerC: 4, joulesPerRun: 1, coolingWPerC: 1}
        faults: [{at: 4, seconds: 1, lie: {nan: true}}, {afterRuns: 7, error: true}]
    - {name: cpu, backend: cpu}
  heat: {sysfsRoot: $SYSFS}
phases:
  - {name: one, from: 0, to: 4}
  - {name: two, title: the second, from: 4, to: 10}
actions:
  - {stop: sim, at: 6, seconds: 2}
  - {kill: sim, every: 1, from: 5, to: 8}
"""


def small(folder: Path, old: str = "", new: str = ""):
    assert old in SMALL
    path = folder / "small.yaml"
    path.write_text(SMALL.replace(old, new, 1) if old else SMALL)
    return load_scenario(path)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_scenario_loads_and_its_worker_takes_the_options(path, folder):
    scenario = load_scenario(path)
    assert scenario.name == path.stem
    config = parse_device_config(json.dumps(device_config(scenario, 100.0, folder)), "device.yaml")
    assert config.heat.sysfs_root == str(folder)  # a play must not depend on the sensors of the machine it runs on
    chip = Chip(read_options(simulated_options(scenario, 100.0, folder)), "accelerator", 100.0, 0.0)
    if any(worker.zones for worker in config.workers):
        assert (folder / "class/thermal/thermal_zone0/type").read_text() == f"{config.workers[0].zones[0]}\n"
        assert chip.report(0.0).temperature_c is not None


def test_the_scenarios_of_the_founding_cases_are_there():
    wanted = {"failover", "busy", "hot", "killed", "hang", "vanish", "slow", "errors", "lying-sensor"}
    assert wanted | {"throttle-unseen"} <= set(scenario_files())


def test_the_failover_scenario_is_the_demonstration():
    scenario = load_scenario(scenario_files()["failover"])
    assert (scenario.seconds, scenario.load.rate, scenario.load.budget_ms) == (30, 30, 20)
    assert [phase.name for phase in scenario.phases] == ["normal", "busy", "hot", "killed", "back"]
    assert [(each.at, each.name) for each in signals(scenario)] == [(at, "SIGKILL") for at in (18, 19.5, 21, 22.5)]
    assert scenario.expect == Expect()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_one_seed_is_one_fate(path, folder):
    scenario = load_scenario(path)
    one, two = (Script(read_options(simulated_options(scenario, 5.0, folder))) for _ in range(2))
    when = [run * scenario.seconds / 300 for run in range(300)]
    assert [one.decide(run, at) for run, at in enumerate(when)] == [two.decide(run, at) for run, at in enumerate(when)]


def test_the_players_folder_takes_the_place_of_the_placeholder(folder):
    plain = device_config(small(folder), 3.0, Path("/fake"))
    assert plain["heat"]["sysfsRoot"] == "/fake"
    assert plain["workers"][0]["options"]["sysfsRoot"] == "/fake"
    assert "$SYSFS" not in json.dumps(plain)


def test_the_worker_gets_seed_and_origin_unless_the_scenario_gives_its_own(folder):
    options = simulated_options(small(folder, "seconds: 10", "seed: 4\nseconds: 10"), 3.0, Path("/fake"))
    assert (options["seed"], options["origin"]) == (4, 3.0)
    own = small(folder, "sysfsRoot: $SYSFS", "seed: 9")
    assert simulated_options(own, 3.0, Path("/fake"), "sim")["seed"] == 9
    with pytest.raises(KeyError, match="cpu"):
        simulated_options(own, 3.0, Path("/fake"), "cpu")


def test_all_times_follow_the_length_but_for_the_pause_between_kills(folder):
    scenario = small(folder).lasting(20)
    options = simulated_options(scenario, 0.0, Path("/fake"))
    assert [(phase.start, phase.end) for phase in scenario.phases] == [(0, 8), (8, 20)]
    assert options["queue"] == [{"at": 4, "seconds": 6, "backlogMs": 9}]
    assert options["faults"] == [{"at": 8, "seconds": 2, "lie": {"nan": True}}, {"afterRuns": 7, "error": True}]
    kills = [each.at for each in signals(scenario) if each.name == "SIGKILL"]
    assert kills == [10, 11, 12, 13, 14, 15]


def test_a_curve_is_stretched_and_a_thermal_mass_takes_as_many_times_as_long(folder):
    curve = small(folder, "{thermalMassJPerC: 4, joulesPerRun: 1, coolingWPerC: 1}", "{points: [[0, 50], [10, 80]]}")
    assert simulated_options(curve.lasting(5), 0.0, folder)["heat"] == {"points": [[0, 50], [5, 80]]}
    warm = small(folder, "joulesPerRun: 1", "startC: 90")
    long, short = (
        Chip(read_options(simulated_options(each, 0.0, folder / str(each.seconds))), "sim", 0.0, 0.0)
        for each in (warm, warm.lasting(5))
    )
    assert short.report(3.0).temperature_c == pytest.approx(long.report(6.0).temperature_c)


def test_signals_come_in_order_and_a_stopped_worker_goes_on(folder):
    assert signals(small(folder)) == [
        Signal(5, "SIGKILL", "sim"),
        Signal(6, "SIGSTOP", "sim"),
        Signal(6, "SIGKILL", "sim"),
        Signal(7, "SIGKILL", "sim"),
        Signal(8, "SIGCONT", "sim"),
    ]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("name: small", "nome: small", ":2: nome: unknown field; did you mean name?"),
        ("seconds: 10\n", "", ":2: seconds: is missing"),
        ("seconds: 10\n", "seconds: soon\n", ':4: seconds: expected a number, got "soon"'),
        ("backend: cpu", "backend: cpu, thread: 1", ":14: device.workers[1].thread: unknown field"),
        ("backend: simulated", "backend: tensorrt", ":6: device.workers: none is simulated"),
        ("from: 4", "from: 5", ":18: phases[1].from: expected 4, where the phase before ends"),
        ("to: 4}", "to: 0.0}", ":17: phases[0].to: "),
        ("name: two", "name: one", ':18: phases[1].name: another phase is called "one" already'),
        ("to: 10", "to: 9", ":16: phases: end at 9 s, and the scenario at 10 s"),
        ("stop: sim", "stop: tpu", ':20: actions[0].stop: no worker is called "tpu"'),
        ("stop: sim", "pause: sim", ":20: actions[0].pause: unknown field"),
        ("stop: sim, at: 6", "at: 6", ":20: actions[0]: expected either kill or stop"),
        (", seconds: 2}", "}", ":20: actions[0].seconds: says how long"),
        ("stop: sim, at: 6", "stop: sim", ":20: actions[0]: expected either at, or every, from and to"),
        ("kill: sim, ", "kill: sim, at: 1, ", ":21: actions[1].at: is for once"),
        ("phases:", "expect: {served: [{kind: gpu}]}\nphases:", ":16: expect.served[0].kind: "),
        ("phases:", "expect: {served: [{kind: cpu, phase: x}]}\nphases:", ":16: expect.served[0].phase: no phase"),
        ("phases:", "load: {rate: 0}\nphases:", ":16: load.rate: "),
        ("phases:", "load: {classes: [{name: a, rate: 1}]}\nphases:", ":16: load.classes[0].budgetMs: is missing"),
    ],
)
def test_a_wrong_scenario_is_refused_with_file_line_and_field(folder, old, new, told):
    with pytest.raises(ConfigError) as refused:
        small(folder, old, new)
    assert f"{folder}/small.yaml{told}" in str(refused.value)


def test_who_asks_is_the_camera_unless_classes_are_given(folder):
    (camera,) = small(folder).load.callers()
    assert (camera.name, camera.rate, camera.budget_ms, camera.priority) == ("camera", 30, 20, 0)
    classes = "load: {classes: [{name: high, rate: 5, budgetMs: 10, priority: 1, degrade: never}]}\nphases:"
    (high,) = small(folder, "phases:", classes).load.callers()
    assert (high.name, high.rate, high.budget_ms, high.priority, high.degrade) == ("high", 5, 10, 1, "never")


def tally(simulated: int, cpu: int, ms: float = 5.0) -> Tally:
    made = Tally(20.0)
    for kind, count in (("simulated", simulated), ("cpu", cpu)):
        for _ in range(count):
            made.add({"ms": ms, "digit": 1, "label": 1, "kind": kind, "reason": ""})
    return made


def failed(expect: Expect, total: Tally, **phases: Tally) -> list[str]:
    return [check.figure for check in judge(expect, total, phases, 100, 1.0) if not check.passed]


def test_a_play_is_judged_by_what_its_scenario_expects():
    assert failed(Expect(), tally(50, 50)) == []
    assert len(failed(Expect(), tally(100, 0))) == 1
    assert failed(Expect(kinds=("simulated",)), tally(100, 0)) == []
    assert len(failed(Expect(), tally(50, 50, ms=21))) == 1
    assert len(failed(Expect(), tally(40, 40))) == 1  # too few frames


def test_shares_are_asked_of_a_phase_or_of_all():
    expect = Expect(
        served=(Served(kind="cpu", phase="hot", at_least_percent=80), Served(kind="cpu", at_most_percent=30))
    )
    assert failed(expect, tally(75, 25), hot=tally(1, 9)) == []
    assert failed(expect, tally(60, 40), hot=tally(5, 5)) == [
        "the CPU answered 50.0 % in phase hot (at least 80 %)",
        "the CPU answered 40.0 % (at most 30 %)",
    ]
    assert len(failed(expect, tally(75, 25), hot=tally(0, 0))) == 1  # an empty phase shows nothing


@pytest.fixture
def sleeper():
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_stopped_process_goes_on_when_told_and_at_the_end(sleeper):
    signaller = Signaller(lambda worker: sleeper.pid)
    assert signaller.send(Signal(0, "SIGSTOP", "sim")) == sleeper.pid
    wait_for(lambda: state(sleeper.pid) == "T", 5, "the stop")
    signaller.send(Signal(1, "SIGCONT", "sim"))
    wait_for(lambda: state(sleeper.pid) != "T", 5, "going on")
    signaller.send(Signal(2, "SIGSTOP", "sim"))
    wait_for(lambda: state(sleeper.pid) == "T", 5, "the stop")
    signaller.close()
    wait_for(lambda: state(sleeper.pid) != "T", 5, "going on")


def test_a_process_that_has_ended_is_not_hit_nor_is_its_successor_told_to_go_on(sleeper):
    signaller = Signaller({"sim": sleeper.pid, "away": 0}.__getitem__)
    signaller.send(Signal(0, "SIGSTOP", "sim"))
    assert signaller.send(Signal(1, "SIGKILL", "sim")) == sleeper.pid
    sleeper.wait(10)
    assert signaller.send(Signal(2, "SIGKILL", "sim")) == 0
    assert signaller.send(Signal(3, "SIGCONT", "sim")) == 0
    assert signaller.send(Signal(4, "SIGKILL", "away")) == 0


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway", "demo", "--plain", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=100)


@pytest.mark.system
def test_the_demo_plays_a_file_and_signals_real_processes(folder):
    expect = "expect: {inBudgetPercent: 0, accuracyWithinPercent: 10, kinds: [cpu]}\nphases:"
    small(folder, "phases:", expect)
    played = demo("--scenario", str(folder / "small.yaml"), "--seconds", "5")
    assert played.returncode == 0, played.stdout + played.stderr
    assert "the second: " in played.stdout
    assert "SIGSTOP to the worker sim, pid" in played.stdout
    assert "SIGKILL to the worker sim, pid" in played.stdout


@pytest.mark.system
def test_the_demo_says_what_is_wrong_with_a_scenario(folder):
    with pytest.raises(ConfigError):
        small(folder, "seconds: 10\n", "")
    refused = demo("--scenario", str(folder / "small.yaml"))
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert f"{folder}/small.yaml:2: seconds: is missing" in refused.stderr
    unknown = demo("--scenario", "nope")
    assert unknown.returncode == 2
    assert "failover" in unknown.stderr
