"""Against other servers: verdicts, rounds, the messages and folders that each server gets, and the client itself."""

import itertools
import json
import mmap
import os
import statistics
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf import text_format
from tritonclient import grpc as triton
from tritonclient.grpc import model_config_pb2, service_pb2
from tritonclient.grpc._utils import _get_inference_request

from benchmarks.harness import alive, wait_for
from benchmarks.peers import __main__ as cli
from benchmarks.peers import environments, models, repository
from benchmarks.peers.client import Client, Refused
from benchmarks.peers.loads import LOADS, PLACES, Region, arrivals, message
from benchmarks.peers.models import SPECS
from benchmarks.peers.rows import ROUNDS, ROWS, Figure, Row, chosen, exit_code, judge
from benchmarks.peers.runs import EVERYTHING, Lengths, Run, Samples, collector
from benchmarks.peers.servers import LAUNCHES, Failed, Launch, Server

ROW = Row("triton-small", "triton", "latency", "small", 1.5, 1.0, "64 B")
OPEN = Row("triton-open", "triton", "open", "vision", 1.15, 0.9, "CNN")
SHARED = Row("triton-frame-shm", "triton", "latency", "frame-shm", 1.1, 1.0, "frame")
START = Row("triton-start", "triton", "start", "", 0.4, 0.2, "start")
MEMORY = Row("triton-memory", "triton", "memory", "", 0.8, 0.5, "memory")


def judged(ours, theirs, missing=""):
    return judge(ROW, Figure(tuple(ours), tuple(theirs), missing))


# Verdicts


@pytest.mark.parametrize(("ours", "state", "aim"), [(0.9, "ok", True), (1.4, "ok", False), (1.6, "short", False)])
def test_the_median_of_the_rounds_is_held_against_bound_and_aim(ours, state, aim):
    each = judged([ours] * 3 + [9.0, 0.1], [1.0] * 5)
    assert (each.state, each.aim_reached, each.ratio) == (state, aim, pytest.approx(ours))


def test_a_round_is_compared_with_the_same_round_of_the_peer():
    assert judged([1.0, 4.0, 10.0], [1.0, 4.0, 10.0]).ratio == 1.0
    assert judged([1.0, 2.0, 4.0], [2.0, 2.0, 2.0]).figure.ratios == (0.5, 1.0, 2.0)


def test_a_bound_that_is_just_met_holds():
    assert judged([1.5], [1.0]).state == "ok"


def test_a_missing_peer_is_not_measured_and_fails_only_the_full_form():
    ok, missing = judged([1.0], [1.0]), judged([], [], "triton cannot be installed")
    assert (missing.state, missing.ratio, missing.aim_reached) == ("not measured", None, False)
    assert exit_code([ok, missing], ROUNDS) == 1
    assert exit_code([ok, missing], ROUNDS - 1) == 0


def test_a_short_row_fails_every_form():
    assert exit_code([judged([1.0], [1.0]), judged([2.0], [1.0])], 1) == 1


def test_nothing_measured_at_all_is_never_a_success():
    assert exit_code([judged([], [])], 1) == 1


def test_all_rows_in_bounds_are_a_success():
    assert exit_code([judged([1.0], [1.0])] * 3, ROUNDS) == 0


def test_values_of_one_side_only_are_not_measured():
    samples = Samples()
    samples.add("edgeway", "latency", "small", 1.0)
    assert samples.figure(ROW).missing


def test_every_row_has_an_aim_within_its_bound_and_a_load_that_exists():
    assert all(0 < row.aim <= row.bound for row in ROWS)
    assert {row.load for row in ROWS} <= {*LOADS, ""}
    assert len({row.name for row in ROWS}) == len(ROWS)


def test_rows_are_chosen_by_peer_and_name_and_an_unknown_one_is_refused():
    assert {row.peer for row in chosen(["kserve"], [])} == {"kserve"}
    assert [row.name for row in chosen([], ["triton-open"])] == ["triton-open"]
    with pytest.raises(ValueError, match="nobody"):
        chosen(["nobody"], [])


# What is printed


ABOUT = {"rounds": 5, "visionMs": 9.0, "machine": {}, "versions": {}}


def printed(how, *each, about=ABOUT):
    samples = Samples()
    for name, value in (("echo", 0.5), ("echo-again", 0.505)):
        samples.add(name, "latency", "small", value)
    how(each, samples, about)


def test_json_has_the_values_of_every_round_and_why_there_are_none(capsys):
    printed(cli._json, judged([1.0, 2.0, 3.0], [2.0, 2.0, 2.0]), judged([], [], "no wheel"))
    document = json.loads(capsys.readouterr().out)
    measured, missing = document["rows"]
    assert (measured["ratios"], measured["ratio"], measured["state"]) == ([0.5, 1.0, 1.5], 1.0, "ok")
    assert (missing["state"], missing["why"]) == ("not measured", "no wheel")
    assert document["control"]["echoAgainstItself"] == 1.01


def test_bounds_name_figure_bound_and_control(capsys):
    printed(cli._bounds, judged([1.2], [1.0]), judged([2.0], [1.0]), judged([], [], "no wheel"))
    control, ok, short, missing = capsys.readouterr().out.splitlines()[1:]
    assert "control" in control
    assert "1.01" in control
    assert "ok" in ok
    assert "1.200 (at most 1.5" in ok
    assert "SHORT" in short
    assert "SHORT" in missing
    assert "not measured, no wheel" in missing


def test_what_a_run_of_few_rounds_could_not_measure_is_not_called_short(capsys):
    printed(cli._bounds, judged([], [], "no wheel"), about={**ABOUT, "rounds": 1})
    shown = capsys.readouterr().out
    assert "not measured, no wheel" in shown
    assert "SHORT" not in shown


def test_text_shows_both_sides(capsys):
    printed(cli._text, judged([1.2], [1.0]), judged([], [], "no wheel"))
    shown = capsys.readouterr().out
    assert all(text in shown for text in ("triton-small", "1.2 ms", "1 ms", "not measured: no wheel"))


def test_an_unknown_row_is_a_usage_error(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["peers", "--rows", "nothing"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert "unknown: nothing" in capsys.readouterr().err


# Rounds, with servers and a client that only note what is asked of them


class FakeServer:
    def __init__(self, name, world):
        self.name, self.address, self.began, self._world = name, f"{name}:1", 0.0, world
        world.started.append(name)

    def listens(self):
        if self.name in self._world.dead:
            raise Failed(f"{self.name} ended with 1: no room")
        return True

    def processor_seconds(self):
        self._world.spent += 0.5
        return self._world.spent

    def proportional_mb(self):
        return 100.0

    def stop(self):
        self._world.stopped.append(self.name)


class World:
    """Stands for client and servers. ``refusals``: (server, load) -> gRPC code."""

    def __init__(self, refusals=None, dead=()):
        self.refusals, self.dead = refusals or {}, dead
        self.tasks, self.started, self.stopped, self.spent = [], [], [], 0.0

    def ask(self, **task):
        server = task.pop("address").partition(":")[0]
        self.tasks.append((server, task))
        if code := self.refusals.get((server, task["load"])):
            raise Refused(code, "no")
        return {"calls": 100, "p50": 1.0, "p99": 2.0, "errors": 0, "late": 0.1}

    def measure(self, rows, rounds=2, samples=None):
        run = Run(self, lambda name, collector: FakeServer(name, self), Lengths(), samples)
        return run.measure(rows, rounds, lambda what, seconds: None)

    def of(self, what):
        return [(server, task) for server, task in self.tasks if task["do"] == what]


def test_both_sides_of_the_open_loop_get_the_same_arrivals_and_each_round_others():
    world = World()
    world.measure([OPEN], rounds=3)
    plans = {name: [task for server, task in world.of("open") if server == name] for name in ("edgeway", "triton")}
    assert plans["edgeway"] == plans["triton"]
    times = [tuple(arrivals(task["rate"], task["seconds"], task["seed"])) for task in plans["edgeway"]]
    assert len(set(times)) == 3


def test_arrivals_are_poisson_and_the_same_for_the_same_seed():
    times = list(arrivals(60.0, 600.0, 1))
    gaps = [later - sooner for sooner, later in itertools.pairwise(times)]
    assert times == list(arrivals(60.0, 600.0, 1))
    assert statistics.mean(gaps) == pytest.approx(1 / 60, rel=0.05)
    assert statistics.stdev(gaps) == pytest.approx(1 / 60, rel=0.05)
    assert max(times) < 600.0


def test_the_servers_take_turns_and_another_begins_each_round():
    world = World()
    world.measure([ROW])
    order = [server for server, task in world.of("loop") if task["seconds"] == Lengths().loop]
    assert order[:2] == ["edgeway", "triton"]
    assert order[len(order) // 2 :] == [*order[1 : len(order) // 2], "edgeway"]


def test_what_is_not_offered_says_so_and_the_other_rows_go_on():
    world = World({("edgeway", "frame-shm"): "UNIMPLEMENTED"})
    samples = world.measure([ROW, SHARED])
    assert samples.figure(SHARED).missing == "not offered by edgeway"
    assert judge(ROW, samples.figure(ROW)).ratio == 1.0


def test_a_peer_that_is_not_installed_is_not_started_and_its_rows_say_why():
    samples = Samples(missing={("triton", EVERYTHING): "triton cannot be installed: no wheel"})
    world = World()
    world.measure([ROW, START], samples=samples)
    assert "triton" not in world.started
    assert samples.figure(ROW).missing == samples.figure(START).missing == "triton cannot be installed: no wheel"


def test_a_peer_that_dies_at_its_start_takes_no_other_row_with_it():
    samples = World(dead={"triton"}).measure([ROW])
    assert "no room" in samples.figure(ROW).missing
    assert len(samples.values["edgeway", "latency", "small"]) == 2


def test_a_peer_that_fails_in_a_round_is_asked_no_more():
    world = World()
    real = world.ask

    def ask(**task):
        if task["do"] == "loop" and task["address"].startswith("triton"):
            world.refusals["triton", "small"] = "INTERNAL"
        return real(**task)

    world.ask = ask
    samples = world.measure([ROW], rounds=4)
    assert "INTERNAL" in samples.figure(ROW).missing
    assert len([server for server, _ in world.of("loop") if server == "triton"]) == 1


def test_starts_are_measured_with_no_other_server_beside_and_the_first_does_not_count():
    world = World()
    samples = world.measure([START, MEMORY], rounds=3)
    assert len(samples.values["triton", "start", ""]) == len(samples.values["edgeway", "memory", ""]) == 3
    assert world.started == world.stopped
    assert len(world.started) == 2 * (3 + 1)


def test_every_server_that_was_started_is_stopped():
    world = World()
    world.measure([ROW, OPEN, SHARED])
    assert sorted(world.started) == sorted(world.stopped)


# What the servers are given


def test_the_shared_memory_messages_are_those_of_the_stock_client():
    region, spec = Region("r", "camera_u8"), SPECS["camera_u8"]
    given = triton.InferInput("x", list(spec.shape), spec.datatype)
    given.set_shared_memory("r", region.given)
    wanted = triton.InferRequestedOutput("y")
    wanted.set_shared_memory("r", region.answered, region.given)
    stock = _get_inference_request(
        model_name="camera_u8",
        inputs=[given],
        model_version="",
        request_id="",
        outputs=[wanted],
        sequence_id=0,
        sequence_start=False,
        sequence_end=False,
        priority=0,
        timeout=None,
        parameters=None,
    )
    assert service_pb2.ModelInferRequest.FromString(region.message()) == stock
    assert service_pb2.SystemSharedMemoryRegisterRequest.FromString(
        region.registration()
    ) == service_pb2.SystemSharedMemoryRegisterRequest(name="r", key="/r", offset=0, byte_size=region.size)


def test_a_region_holds_the_input_and_room_for_the_answer():
    region = Region(f"peers-test-{os.getpid()}", "camera_u8")
    memory = region.map()
    try:
        assert (region.given, region.answered) == (480 * 640 * 3, 12)
        with (PLACES / region.name).open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as seen:
            assert seen[: region.given] == SPECS["camera_u8"].tensor().tobytes()
            assert len(seen) == region.size
    finally:
        memory.close()
        region.remove()
    assert not (PLACES / region.name).exists()


@pytest.mark.parametrize("name", SPECS)
def test_the_message_is_the_stock_clients(name):
    spec = SPECS[name]
    given = triton.InferInput("x", list(spec.shape), spec.datatype)
    given.set_data_from_numpy(spec.tensor())
    request = service_pb2.ModelInferRequest.FromString(message(name))
    assert request.raw_input_contents[0] == given._get_content()
    assert (request.model_name, list(request.inputs[0].shape)) == (name, list(spec.shape))


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """All models, with a CNN of one layer."""
    folder = tmp_path_factory.mktemp("models")
    patch = pytest.MonkeyPatch()
    patch.setattr(models, "calibrated", lambda: models.vision(1))
    models.write(folder)
    patch.undo()
    return folder


@pytest.mark.parametrize("name", SPECS)
def test_tritons_repository_has_a_config_that_fits_the_model(name, written, tmp_path):
    folder = repository.triton(written, tmp_path / "models")
    config = text_format.Parse((folder / name / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    graph = onnx.load(folder / name / "1" / "model.onnx").graph
    assert (config.name, config.backend, config.max_batch_size) == (name, "python", 0)
    (instances,) = config.instance_group
    assert (instances.kind, instances.count) == (model_config_pb2.ModelInstanceGroup.KIND_CPU, 1)
    kinds = {onnx.TensorProto.FLOAT: model_config_pb2.TYPE_FP32, onnx.TensorProto.UINT8: model_config_pb2.TYPE_UINT8}
    for told, real in zip((*config.input, *config.output), (*graph.input, *graph.output), strict=True):
        assert told.name == real.name
        assert list(told.dims) == [dim.dim_value for dim in real.type.tensor_type.shape.dim]
        assert told.data_type == kinds[real.type.tensor_type.elem_type]
    compile((folder / name / "1" / "model.py").read_text(), "model.py", "exec")


def test_mlserver_runs_the_models_in_its_own_process(written, tmp_path):
    folder = repository.mlserver(written, tmp_path / "models", 1, 2, 3)
    settings = json.loads((folder / "settings.json").read_text())
    assert (settings["parallel_workers"], settings["grpc_port"]) == (0, 1)
    for name in SPECS:
        model = json.loads((folder / name / "model-settings.json").read_text())
        assert model["implementation"] == "mlserver_runtime.OnnxRuntime"
        assert Path(model["parameters"]["uri"]).exists()


def test_more_layers_of_the_cnn_make_more_work_and_its_scores_stay_finite():
    few, many = models.vision(1), models.vision(8)
    assert len(many.graph.node) > len(few.graph.node)
    (scores,) = models.session(many.SerializeToString()).run(None, {"x": SPECS["vision_224"].tensor()})
    assert scores.shape == SPECS["vision_224"].answer
    assert np.isfinite(scores).all()


def test_an_environment_is_made_anew_when_its_requirements_or_edgeways_sources_change(monkeypatch, tmp_path):
    before = environments._digest("edgeway"), environments._digest("kserve")
    assert before == (environments._digest("edgeway"), environments._digest("kserve"))
    for name in environments.NAMES:
        (tmp_path / f"{name}.txt").write_text("onnxruntime==0\n")
    monkeypatch.setattr(environments, "REQUIREMENTS", tmp_path)
    assert not {*before} & {environments._digest("edgeway"), environments._digest("kserve")}


def test_what_cannot_be_installed_says_why_in_one_line(monkeypatch, tmp_path):
    (tmp_path / "kserve.txt").write_text("no such requirement ==\n")
    monkeypatch.setattr(environments, "REQUIREMENTS", tmp_path)
    monkeypatch.setattr(environments, "FOLDER", tmp_path / "peers")
    environments.python("kserve").parent.mkdir(parents=True)
    environments.python("kserve").symlink_to(sys.executable)
    with pytest.raises(environments.Missing) as missing:
        environments.ready("kserve")
    assert "\n" not in str(missing.value)
    assert "requirement" in str(missing.value).lower()


# The client and a bare server, as processes


@pytest.fixture
def here():
    return min(os.sched_getaffinity(0))


@pytest.fixture
def asked(written, tmp_path, here):
    """(client, addresses of a bare server with the models and of an echo)."""
    servers = [Server(name, written, tmp_path, here, "") for name in ("direct", "echo")]
    try:
        for server in servers:
            wait_for(server.listens, 30, "a listening server")
        with Client(written, here) as client:
            yield client, *servers
    finally:
        for server in servers:
            server.stop()


@pytest.mark.system
def test_the_client_accepts_right_answers_and_no_others(asked):
    client, direct, echo = asked
    for load in ("small", "frame", "big", "vision"):
        client.ask(do="check", address=direct.address, load=load)
    with pytest.raises(Refused, match="another answer"):
        client.ask(do="check", address=echo.address, load="vision")


@pytest.mark.system
def test_the_client_says_that_shared_memory_is_not_offered_and_leaves_no_region(asked):
    client, direct, _ = asked
    with pytest.raises(Refused) as refused:
        client.ask(do="check", address=direct.address, load="frame-shm")
    assert refused.value.code == "UNIMPLEMENTED"
    client.__exit__()
    assert not list(PLACES.glob(f"peers-{client.pid}-*"))


@pytest.mark.system
def test_loops_count_their_calls_and_the_server_its_processor_time(asked):
    client, direct, _ = asked
    before = direct.processor_seconds()
    result = client.ask(do="loop", address=direct.address, load="small", seconds=0.3)
    used = direct.processor_seconds() - before
    assert result["calls"] > 10
    assert 0 < result["p50"] <= result["p99"]
    assert 0 < used / result["calls"] < result["p99"]
    assert direct.proportional_mb() > 10


@pytest.mark.system
def test_an_open_loop_asks_at_every_arrival_and_counts_errors_as_the_longest_wait(asked):
    client, direct, echo = asked
    task = {"do": "open", "load": "vision", "rate": 40.0, "seconds": 1.0, "seed": 5}
    served = client.ask(address=direct.address, **task)
    assert (served["calls"], served["errors"]) == (len(list(arrivals(40.0, 1.0, 5))), 0)
    echo.stop()
    failed = client.ask(address=echo.address, **task)
    assert failed["errors"] == failed["calls"]
    assert failed["p50"] == 30000.0


@pytest.mark.system
def test_a_server_runs_on_its_cpu_outside_of_the_checkout(asked, here):
    _, direct, _ = asked
    (pid,) = direct.pids()
    assert os.sched_getaffinity(pid) == {here}
    assert environments.ROOT not in Path(f"/proc/{pid}/cwd").resolve().parents


@pytest.mark.system
def test_a_process_that_outlives_its_server_is_killed_and_its_shared_memory_removed(
    monkeypatch, written, tmp_path, here
):
    stays = "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    starts = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {stays!r}]); time.sleep(60)"
    folders = []

    def launch(models, work, port, collector):
        folders.append(work)
        return Launch([sys.executable, "-c", starts])

    monkeypatch.setitem(LAUNCHES, "stays", launch)
    server = Server("stays", written, tmp_path, here, "")
    wait_for(lambda: (folders[0] / "log").read_text(), 30, "a child that ignores SIGTERM")
    left = PLACES / f"{folders[0].name}-region"
    left.touch()
    pids = server.pids()
    assert len(pids) == 2
    server.stop()
    wait_for(lambda: not any(map(alive, pids)), 10, "the end of both")
    assert not left.exists()


def test_the_collector_takes_exports():
    import grpc

    with collector() as (url, received), grpc.insecure_channel(url.removeprefix("http://")) as channel:
        export = channel.unary_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export")
        assert export(b"spans", timeout=10) == b""
        assert received == [5]
