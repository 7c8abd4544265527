"""The simulated accelerator: its heat, its script of faults, its fake sensors, and the process that plays them."""

from __future__ import annotations

import contextlib
import json
import math
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.harness import scaled, slow_for
from edgeway import frames
from edgeway.tensors import to_array, to_bytes
from edgeway.v1 import worker_pb2
from workers.backend import BackendUnavailable, DeviceFault, RunCancelled, RunFailed, Settings, Tensor
from workers.backends.simulated import SimulatedBackend
from workers.loaded import NeverCancelled
from workers.schedule import Run
from workers.simulation.chip import Chip
from workers.simulation.heat import ReplayedCurve, ThermalMass, Throttle
from workers.simulation.options import Thermal, read_options
from workers.simulation.script import ONCE, Script


def script(*faults: dict, **options) -> Script:
    return Script(read_options({"faults": list(faults), **options}))


def chip(now: float = 0.0, origin: float = 1.0, **options) -> Chip:
    return Chip(read_options(options), "tpu", origin, now)


def zone(root: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in (root / "class/thermal/thermal_zone0").iterdir() if file.is_file()}


def cooling(root: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in (root / "class/thermal/cooling_device0").iterdir()}


# -- heat --------------------------------------------------------------------------------------------------------

thermals = st.builds(
    Thermal,
    ambient=st.floats(-20, 50),
    mass=st.floats(1, 100),
    cooling=st.floats(0.01, 1),
    idle=st.floats(0, 5),
    run=st.floats(0, 1),
    start=st.floats(0, 100),
)


@settings(max_examples=30)
@given(thermals, st.floats(0.1, 200))
def test_the_thermal_mass_follows_its_differential_equation(thermal, seconds):
    celsius, steps = thermal.start, 20_000
    for _ in range(steps):  # small straight steps, which know no exponential
        watts = thermal.idle - thermal.cooling * (celsius - thermal.ambient)
        celsius += watts / thermal.mass * seconds / steps
    span = abs(thermal.start - thermal.ambient - thermal.idle / thermal.cooling)
    assert ThermalMass(thermal, 0.0).celsius(seconds) == pytest.approx(celsius, abs=0.005 * span + 1e-6)


@given(thermals, st.lists(st.floats(0, 100), max_size=8))
def test_looking_at_it_changes_no_temperature(thermal, looks):
    watched, left_alone = ThermalMass(thermal, 0.0), ThermalMass(thermal, 0.0)
    for at in sorted(looks):
        watched.celsius(at)
    assert watched.celsius(100.0) == pytest.approx(left_alone.celsius(100.0), abs=1e-6)


def test_regular_runs_settle_where_power_equals_cooling():
    thermal = Thermal(ambient=25, mass=1, cooling=0.1, idle=1, run=0.05)
    mass = ThermalMass(thermal, 0.0)
    assert mass.celsius(0.0) == 35  # no start given: as warm as it gets when idle
    for number in range(1, 20 * 200):
        mass.absorb(number / 20)
    assert mass.celsius(200.0) == pytest.approx(25 + (1 + 20 * 0.05) / 0.1, abs=0.1)


def test_a_look_from_the_past_moves_nothing():
    mass = ThermalMass(Thermal(start=90), 10.0)
    now = mass.celsius(20.0)
    assert mass.celsius(15.0) == now
    assert mass.celsius(20.0) == now


def test_a_replayed_curve_is_followed_whatever_runs():
    curve = ReplayedCurve([(0, 50), (10, 80)])
    curve.absorb(5.0)
    assert [curve.celsius(now) for now in (-1, 5, 99)] == [50, 65, 80]


def test_a_chip_slows_in_steps_and_counts_those_that_cost_speed():
    throttle = Throttle([(65, 1), (75, 4), (85, 10)])
    assert [throttle.slowdown(celsius) for celsius in (64, 65, 75, 84.9, 85)] == [1, 1, 4, 4, 10]
    assert [throttle.level(celsius) for celsius in (64, 65, 75, 84.9, 85)] == [0, 0, 1, 1, 2]


def test_runs_heat_the_chip_until_it_throttles_and_rest_cools_it():
    made = chip(
        serviceMs=2,
        heat={
            "ambientC": 25,
            "thermalMassJPerC": 1,
            "coolingWPerC": 0.1,
            "idleWatts": 0,
            "joulesPerRun": 0.5,
            "throttle": [[55, 3]],
        },
    )
    assert (made.report(0.0).temperature_c, made.report(0.0).throttled) == (25, False)
    for number in range(100):
        made.end(number / 10)
    assert made.report(10.0).throttled
    assert made.begin(101, 10.0).service == pytest.approx(0.006)
    assert made.report(100.0).temperature_c < 26
    assert made.begin(102, 100.0).service == pytest.approx(0.002)


# -- the script --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["error", "wrong", "vanish"])
def test_a_fault_lasts_as_long_as_it_says(what):
    played = script({"at": 5, "seconds": 2, what: True})
    seen = [played.decide(run, now) for run, now in enumerate((4.9, 5.0, 6.9, 7.0), 1)]
    assert [each.error or each.wrong or each.vanished for each in seen] == [False, True, True, False]


def test_a_fault_without_an_end_stays():
    played = script({"at": 5, "vanish": True})
    assert [played.vanished(now) for now in (4, 5, 5e6)] == [False, True, True]


def test_a_crash_is_not_made_up_for_by_the_next_process():
    assert [script({"at": 5, "crash": True}).decide(1, now).crash for now in (4.9, 5.1, 5 + ONCE)] == [
        False,
        True,
        False,
    ]


def test_a_crash_that_lasts_takes_every_process_down():
    fault = {"at": 5, "seconds": 10, "crash": True}
    assert script(fault).decide(1, 6).crash
    assert script(fault).decide(1, 14).crash
    assert not script(fault).decide(1, 15).crash


def test_a_hang_lasts_for_what_is_left_of_its_time():
    fault = {"at": 5, "seconds": 10, "hang": True}
    assert [script(fault).decide(1, now).hang for now in (4, 7, 15)] == [0, 8, 0]


def test_a_device_that_hangs_hangs_for_every_run():
    timed = script({"at": 5, "seconds": 10, "hang": True})
    assert [timed.decide(run, now).hang for run, now in enumerate((6, 7, 16), 1)] == [9, 8, 0]
    for_ever = script({"at": 5, "hang": True})
    assert [for_ever.decide(run, now).hang for run, now in enumerate((5.1, 100), 1)] == [math.inf, math.inf]
    assert script({"at": 5, "hang": True}).decide(1, 100).hang == 0  # the process that replaces it is spared


def test_a_fault_may_wait_for_a_run_instead_of_a_time():
    played = script({"afterRuns": 3, "seconds": 2, "error": True}, {"afterRuns": 2, "crash": True})
    seen = [played.decide(run, now) for run, now in enumerate((0, 1, 50, 51, 52), 1)]
    assert [each.error for each in seen] == [False, False, True, True, False]
    assert [each.crash for each in seen] == [False, True, True, True, True]  # the first one ends the process


def test_a_slow_fault_multiplies_the_service_time():
    played = script({"at": 5, "seconds": 5, "slow": 4}, {"at": 8, "seconds": 9, "slow": 2}, serviceMs=3)
    assert [played.decide(1, now).service for now in (4, 5, 8, 10, 17)] == pytest.approx(
        [0.003, 0.012, 0.024, 0.006, 0.003]
    )


def test_an_error_rate_is_kept():
    played = script({"errorRate": 0.3})
    failed = sum(played.decide(run, 1.0).error for run in range(1, 4001))
    assert failed == pytest.approx(1200, abs=4 * math.sqrt(4000 * 0.3 * 0.7))


@given(st.permutations(range(1, 40)), st.integers(0, 2**31))
def test_a_runs_fate_is_its_numbers_whatever_the_order(order, seed):
    options = {"seed": seed, "serviceMs": 2, "jitterMs": 3, "queue": [{"backlogMs": 5, "jitterMs": 5}]}
    straight, mixed = script({"errorRate": 0.5}, **options), script({"errorRate": 0.5}, **options)
    expected = {run: (straight.decide(run, 1.0), straight.wait(run, 1.0)) for run in range(1, 40)}
    assert {run: (mixed.decide(run, 1.0), mixed.wait(run, 1.0)) for run in order} == expected


def test_another_seed_is_another_fate():
    one, other = (script({"errorRate": 0.5}, jitterMs=1, seed=seed) for seed in (1, 2))
    assert [one.decide(n, 1.0) for n in range(1, 50)] != [other.decide(n, 1.0) for n in range(1, 50)]


def test_others_work_is_told_and_felt_with_its_jitter():
    played = script(queue=[{"at": 5, "seconds": 5, "backlogMs": 40, "jitterMs": 20}])
    assert [played.backlog(now) for now in (4.9, 5, 10)] == [0, 0.04, 0]
    waits = [played.wait(run, 6) for run in range(1, 200)]
    assert 0.04 <= min(waits) < 0.045
    assert 0.055 < max(waits) < 0.06


# -- sensors -----------------------------------------------------------------------------------------------------


def test_the_fake_tree_has_the_kernels_names_and_units(folder):
    made = chip(sysfsRoot=str(folder), heat={"points": [[0, 50.5], [10, 80]], "throttle": [[60, 1], [70, 2], [78, 5]]})
    assert zone(folder) == {
        "type": "tpu-thermal\n",
        "mode": "enabled\n",
        "temp": "50500\n",
        "trip_point_0_type": "passive\n",
        "trip_point_0_temp": "70000\n",
        "trip_point_0_hyst": "0\n",
        "trip_point_1_type": "passive\n",
        "trip_point_1_temp": "78000\n",
        "trip_point_1_hyst": "0\n",
        "cdev0_trip_point": "0\n",
    }
    assert cooling(folder) == {"type": "devfreq-sim\n", "cur_state": "0\n", "max_state": "2\n"}
    assert (folder / "class/thermal/thermal_zone0/cdev0/type").read_text() == "devfreq-sim\n"
    assert made.report(10.0).temperature_c == 80
    assert zone(folder)["temp"] == "80000\n"
    assert cooling(folder)["cur_state"] == "2\n"


def test_a_root_without_a_heat_option_shows_a_chip_at_rest(folder):
    chip(sysfsRoot=str(folder))
    assert zone(folder)["temp"] == "35000\n"


def test_two_chips_may_share_a_root(folder):
    chip(sysfsRoot=str(folder), heat={"points": [[0, 50]]})
    chip(sysfsRoot=str(folder), heat={"points": [[0, 60]]}, zone=1)
    assert zone(folder)["temp"] == "50000\n"
    assert (folder / "class/thermal/thermal_zone1/temp").read_text() == "60000\n"


def test_a_reader_never_sees_half_a_temperature(folder):
    made = chip(sysfsRoot=str(folder), heat={"points": [[0, 8.0], [1000, 1008.0]]})
    seen: set[str] = set()
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            seen.add((folder / "class/thermal/thermal_zone0/temp").read_text())

    reader = threading.Thread(target=read)
    reader.start()
    written = {"8000\n"}
    for now in range(300):
        made.report(float(now))
        written.add(f"{(now + 8) * 1000}\n")
    over.set()
    reader.join()
    assert len(seen) > 1
    assert seen <= written
    assert not [file for file in (folder / "class/thermal/thermal_zone0").iterdir() if file.name.startswith(".")]


@pytest.mark.parametrize(
    ("lie", "text", "told"),
    [
        ({"temperatureC": -87.9}, "-87900\n", -87.9),
        ({"frozen": True}, "62000\n", 62.0),
        ({"missing": True}, None, None),
        ({"nan": True}, "nan\n", math.nan),
    ],
)
def test_the_sensor_lies_and_the_heat_goes_on(folder, lie, text, told):
    heat = {"points": [[0, 60], [10, 80]]}
    made = chip(sysfsRoot=str(folder), serviceMs=1, heat=heat, faults=[{"at": 2, "seconds": 7, "lie": lie}])
    assert made.report(1.0).temperature_c == 62
    lying = made.report(8.0)
    assert zone(folder).get("temp") == text
    assert lying.temperature_c == pytest.approx(told, nan_ok=True) if told is not None else lying.temperature_c is None
    assert lying.throttled  # of that it tells the truth
    assert made.begin(1, 8.0).service == pytest.approx(0.004)
    assert made.report(9.0).temperature_c == 78
    assert zone(folder)["temp"] == "78000\n"


def test_throttling_may_be_hidden_too(folder):
    made = chip(
        sysfsRoot=str(folder),
        serviceMs=1,
        heat={"points": [[0, 80]]},
        faults=[{"lie": {"temperatureC": 55, "throttled": False}}],
    )
    assert (made.report(1.0).temperature_c, made.report(1.0).throttled) == (55, False)
    assert cooling(folder)["cur_state"] == "0\n"
    assert made.begin(1, 1.0).service == pytest.approx(0.004)


def test_a_replaced_process_finds_the_chip_as_warm_as_it_was(folder):
    heat = {"ambientC": 25, "thermalMassJPerC": 1, "coolingWPerC": 0.1, "idleWatts": 0, "joulesPerRun": 40}
    first = chip(sysfsRoot=str(folder), heat=heat)
    first.end(1.0)
    left = first.report(1.0).temperature_c
    assert left > 60
    second = chip(now=3.0, sysfsRoot=str(folder), heat=heat)
    assert second.report(3.0).temperature_c == pytest.approx(25 + (left - 25) * math.exp(-0.2))
    another_play = chip(origin=2.0, sysfsRoot=str(folder), heat=heat)
    assert another_play.report(0.0).temperature_c == 25


def test_a_chip_without_heat_has_no_sensor():
    heat = chip(serviceMs=2).report(1.0)
    assert (heat.temperature_c, heat.throttled) == (None, False)


def test_a_tree_that_cannot_be_written_is_refused_at_start(folder):
    (folder / "class").write_text("in the way")
    with pytest.raises(BackendUnavailable, match=r"options\.sysfsRoot"):
        chip(sysfsRoot=str(folder))


# -- options -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"speed": 9}, "options.speed: unknown"),
        ({"serviceMs": -1}, "options.serviceMs: expected a number >= 0, got -1"),
        ({"seed": 1.5}, "options.seed: expected a whole number"),
        ({"faults": {"at": 1}}, "options.faults: expected a list"),
        ({"faults": [{"at": 1}]}, "options.faults[0]: expected one of crash"),
        ({"faults": [{"crash": True, "hang": True}]}, "options.faults[0]: expected one of crash"),
        ({"faults": [{"crash": 1}]}, "options.faults[0].crash: expected true, got 1"),
        ({"faults": [{"error": False}]}, "options.faults[0]: expected one of crash"),
        ({"faults": [{"hang": True, "for": 1}]}, "options.faults[0].for: unknown"),
        ({"faults": [{"hang": True, "seconds": 0}]}, "options.faults[0].seconds: expected a number > 0"),
        ({"faults": [{"hang": True, "at": 1, "afterRuns": 1}]}, "options.faults[0].afterRuns: it begins at a time"),
        ({"faults": [{"slow": 0}]}, "options.faults[0].slow: expected a number > 0"),
        ({"faults": [{"errorRate": 1.2}]}, "options.faults[0].errorRate: expected a share"),
        ({"faults": [{"lie": {}}]}, "options.faults[0].lie: expected one of"),
        ({"faults": [{"lie": {"nan": True, "frozen": True}}]}, "options.faults[0].lie.nan: frozen says it"),
        ({"faults": [{"lie": {"frozen": 1}}]}, "options.faults[0].lie.frozen: expected true or false"),
        ({"heat": 50}, "options.heat: expected a mapping"),
        ({"heat": {"points": [[0, 50], [-1, 50]]}}, "options.heat.points[1][0]: expected at least 0"),
        ({"heat": {"points": [[0]]}}, "options.heat.points[0]: expected a pair"),
        ({"heat": {"points": [[0, 50]], "idleWatts": 1}}, "options.heat.idleWatts: a replayed curve"),
        ({"heat": {"coolingWPerC": 0}}, "options.heat.coolingWPerC: expected a number > 0"),
        ({"heat": {"throttle": [[70, 0.5]]}}, "options.heat.throttle[0][1]: expected a number >= 1"),
        ({"heat": {"throttle": [], "bands": {}}}, "options.heat.bands: throttle says it already"),
        ({"heat": {"bands": {"mild": 1}}}, "options.heat.bands.mild: unknown"),
        ({"queue": [{"backlogMs": "60"}]}, "options.queue[0].backlogMs: expected a number >= 0"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_with_its_path(options, told):
    with pytest.raises(BackendUnavailable) as refused:
        read_options(options)
    assert told in str(refused.value)


# -- the process -------------------------------------------------------------------------------------------------


def model(**options):
    backend = SimulatedBackend(Settings("tpu", 1, 1, options=options))
    return backend, backend.load(scaled(2.0).SerializeToString(), "m")


def ask(loaded, cancellation=None) -> list[float]:
    one = np.ones(1, np.float32)
    (got,) = loaded.run({"x": Tensor("FP32", (1,), to_bytes(one))}, ["y"], cancellation or NeverCancelled())
    return to_array(got.datatype, got.shape, memoryview(got.data)).tolist()


def test_a_run_takes_its_service_time_and_n_times_that_when_slow():
    _, loaded = model(serviceMs=20, faults=[{"slow": 4}])
    began = time.monotonic()
    assert ask(loaded) == [2.0]
    assert time.monotonic() - began >= 0.08


def test_errors_vanishing_and_wrong_outputs_reach_the_caller():
    with pytest.raises(RunFailed):
        ask(model(faults=[{"errorRate": 1.0}])[1])
    backend, loaded = model(faults=[{"vanish": True}])
    with pytest.raises(DeviceFault):
        ask(loaded)
    assert "vanished" in backend.heat().lost
    assert ask(model(faults=[{"wrong": True}])[1]) != [2.0]


def test_the_script_of_a_replaced_process_goes_on_where_it_was():
    heat = {"points": [[0, 20], [1000, 1020]]}
    backend = SimulatedBackend(Settings("tpu", 1, 1, first_start=time.monotonic() - 500, options={"heat": heat}))
    assert backend.heat().temperature_c == pytest.approx(520, abs=5)


def test_a_crash_is_a_real_sigkill():
    code = (
        "from workers.backends.simulated import SimulatedBackend as B; from workers.backend import Settings, Tensor\n"
        "from workers.loaded import NeverCancelled; from benchmarks.harness import scaled\n"
        "b = B(Settings('tpu', 1, 1, options={'faults': [{'afterRuns': 2, 'crash': True}]}))\n"
        "m = b.load(scaled(2.0).SerializeToString(), 'm')\n"
        "for n in (1, 2):\n"
        "    m.run({'x': Tensor('FP32', (1,), memoryview(bytes(4)))}, ['y'], NeverCancelled()); print(n, flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "1\n"), done.stderr


def test_a_hang_hears_no_cancel_and_holds_up_no_other_thread():
    backend, loaded = model(faults=[{"afterRuns": 1, "hang": True, "seconds": 0.6}])
    cancellation = Run(1, 5, 0.0, 0.0)
    ended = threading.Event()

    def hung() -> None:
        with contextlib.suppress(RunCancelled):  # once it hears again
            ask(loaded, cancellation)
        ended.set()

    began = time.monotonic()
    thread = threading.Thread(target=hung)
    thread.start()
    cancellation.cancel()
    backend.heat()
    told = time.monotonic() - began
    assert ended.wait(10)
    thread.join()
    assert time.monotonic() - began >= 0.6
    assert told < 0.5


def test_the_worker_reports_what_its_device_says():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    heat = {"points": [[0, 81.5]]}
    settings = {"name": "tpu", "options": {"heat": heat, "queue": [{"backlogMs": 40}], "faults": [{"vanish": True}]}}
    command = [sys.executable, "-m", "workers", "--backend", "simulated", "--settings", json.dumps(settings)]
    with ours, subprocess.Popen([*command, "--link-fd", str(theirs.fileno())], pass_fds=[theirs.fileno()]) as process:
        theirs.close()
        ours.settimeout(30)
        while True:
            frame = ours.recv(frames.MAX_FRAME)
            assert frame, "the worker ended"
            message = worker_pb2.ToGateway.FromString(frames.unpack_control(frame))
            if message.WhichOneof("message") == "report":
                break
        ours.shutdown(socket.SHUT_RDWR)
        process.wait(10)
    report = message.report
    assert (report.temperature_c, report.throttled, report.backlog_seconds) == (81.5, True, 0.04)
    assert "vanished" in report.lost


def test_the_simulated_backend_says_so_everywhere():
    kind, probe = "simulated", SimulatedBackend.probe()
    made = SimulatedBackend(Settings("tpu", 1, 1))
    assert kind == made.kind == "simulated"
    assert "simulat" in probe.reason + made.device
    assert "simulated" in made.runtime


def test_service_time_is_the_floor_of_the_whole_run():
    made = SimulatedBackend(Settings("tpu", 1, 1, options={"serviceMs": 300}))
    model = made.load(slow_for(0.2).SerializeToString(), "m")
    given = np.ones(1, np.float32)
    began = time.monotonic()
    model.run({"x": Tensor("FP32", (1,), to_bytes(given))}, ["y"], NeverCancelled())
    assert 0.3 <= time.monotonic() - began < 0.45  # not 0.5: computing counts toward it
