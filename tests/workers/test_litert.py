"""LiteRT: .tflite files on the CPU. What all backends do alike is in tests/backends."""

from __future__ import annotations

import gc
import importlib.util
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from benchmarks.tflite_models import Graph, compiled, counting, gathering, identity, nonzero, scaled
from edgeway.tensors import to_array, to_bytes
from workers import lite_runtime
from workers.backend import (
    MISSING_LIBRARY,
    BackendUnavailable,
    ModelRejected,
    Quantisation,
    Remembers,
    RunFailed,
    Settings,
    Tensor,
)
from workers.backends.litert import LiteRtBackend
from workers.golden import Rule, Samples, default_rule
from workers.loaded import LoadedModel, NeverCancelled
from workers.process import resident_bytes
from workers.tflite_file import computes_in_eight_bits, names_files

tflite = pytest.importorskip("ai_edge_litert.interpreter", reason="ai-edge-litert is not installed")
DIGITS = Path(__file__).resolve().parents[2] / "examples/digits/models"


def tensor(array: np.ndarray, datatype: str) -> Tensor:
    return Tensor(datatype, array.shape, memoryview(to_bytes(array)))


def run(model, *arrays: np.ndarray) -> list[np.ndarray]:
    feed = {spec.name: tensor(array, spec.datatype) for spec, array in zip(model.inputs, arrays, strict=True)}
    outputs = model.run(feed, [spec.name for spec in model.outputs], NeverCancelled())
    return [to_array(o.datatype, o.shape, memoryview(o.data)) for o in outputs]


@pytest.fixture
def backend():
    return LiteRtBackend(Settings("litert"))


def load(content: bytes, **settings: int):
    return LiteRtBackend(Settings("litert", **settings)).load(content, "m")


def test_quantised_tensors_stay_as_they_are_and_say_what_they_stand_for(backend):
    model = backend.load(identity("INT8", (4,), scale=[0.5], zero=-3), "m")
    assert model.inputs[0].quantisation == model.outputs[0].quantisation == Quantisation((0.5,), (-3,))
    (got,) = run(model, np.array([-128, 0, 1, 127], np.int8))
    assert got.dtype == np.int8
    assert got.tolist() == [-128, 0, 1, 127]
    assert backend.load(identity("INT8", (4,)), "m").inputs[0].quantisation is None


def test_sizes_change_from_run_to_run_where_the_model_leaves_them_open(backend):
    model = backend.load(scaled(2.0), "m")
    for size in (1, 3, 0, 2, 2):
        assert run(model, np.arange(size, dtype=np.float32))[0].tolist() == [2.0 * n for n in range(size)]


def test_text_changes_its_shape_though_the_runtime_prepares_it_only_once(backend):
    model = backend.load(identity("BYTES", (-1, -1)), "m")
    for shape in ((1, 2), (2, 3), (0, 2)):
        texts = np.full(shape, b"a\0b", object)
        assert run(model, texts)[0].tolist() == texts.tolist()


@pytest.mark.parametrize("text", [b"", b"t\xc3\xaen\0y", b"x" * 1000])
def test_a_single_text_is_never_taken_for_an_address(backend, text):
    model = backend.load(identity("BYTES", ()), "m")
    (got,) = run(model, np.array(text, object))
    assert got.reshape(-1).tolist() in ([text], [text or b"\0"])


def test_an_error_of_a_run_leaves_the_next_one_whole(backend):
    model = backend.load(gathering(), "m")
    with pytest.raises(RunFailed, match="out of bounds"):
        run(model, np.float32([4, 5]), np.int32([99]))
    assert run(model, np.float32([4, 5]), np.int32([1]))[0].tolist() == [5]


@pytest.mark.parametrize("instances", [1, 2])
def test_many_threads_run_one_model_and_no_more_interpreters_are_kept_than_instances(instances):
    model = load(scaled(2.0), instances=instances)
    answers = []

    def ask(number: int) -> None:
        for size in range(1, 20):
            answers.append((run(model, np.full(size, number, np.float32))[0] == 2 * number).all())

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 6 * 19
    assert all(answers)
    assert len(model._free) <= instances


def test_a_bound_model_notices_that_its_outputs_do_not_fit_any_more(backend):
    model = backend.load(nonzero(), "m")
    inputs, outputs = np.array([True, False, True]), np.zeros((2, 1), np.int64)
    bound = model.bind({"x": tensor(inputs, "BOOL")}, {"y": tensor(outputs, "INT64")})
    assert bound.run(NeverCancelled())
    assert outputs.tolist() == [[0], [2]]
    inputs[1] = True
    assert not bound.run(NeverCancelled())
    assert run(model, inputs)[0].tolist() == [[0], [1], [2]]


def test_what_a_model_remembers_is_not_what_the_warm_up_left(backend):
    model = backend.load(counting(), "m")
    assert isinstance(model, Remembers)
    LoadedModel(1, model).warm_up(3)
    model.start_over()
    assert [run(model, np.zeros(1, np.float32))[0].tolist() for _ in range(3)] == [[1], [2], [3]]


def test_a_model_that_remembers_counts_every_run_of_every_thread_once():
    model = load(counting(), instances=4)
    seen = []
    threads = [
        threading.Thread(
            target=lambda: seen.extend(float(run(model, np.zeros(1, np.float32))[0][0]) for _ in range(25))
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == list(range(1, 101))


def test_a_file_for_the_edge_tpu_is_refused_with_that_reason(backend):
    with pytest.raises(ModelRejected, match="compiled for the Edge TPU"):
        backend.load(compiled(), "m")


def test_weights_in_other_files_are_refused_before_a_runtime_looks_for_them(backend):
    graph = Graph()
    x, y = (graph.tensor(name, "FP32", [2]) for name in ("x", "y"))
    graph.add("ABS", [x], [y], kind="AbsOptions")
    import flatbuffers

    schema = graph.schema
    made = schema.ModelT.InitFromObj(schema.Model.GetRootAs(graph.model([x], [y]), 0))
    made.externalBufferGroups = [schema.ExternalBufferGroupT(name="/etc/passwd")]
    builder = flatbuffers.Builder()
    builder.Finish(made.Pack(builder), b"TFL3")
    assert names_files(bytes(builder.Output()))
    with pytest.raises(ModelRejected, match="other files"):
        backend.load(bytes(builder.Output()), "m")
    assert not names_files(graph.model([x], [y]))


def test_no_bytes_that_are_wrong_get_past_the_look_into_the_file(backend):
    whole = scaled(2.0)
    for at in range(0, len(whole), 3):
        broken = whole[:at] + b"\xff\xff\xff\x7f" + whole[at + 4 :]
        assert computes_in_eight_bits(broken[: at + 1]) in (True, False)
        assert names_files(broken) in (True, False)


def test_it_is_held_to_the_rule_of_what_it_computes_in(backend):
    for version, rule in (("1.0", Rule(tolerance=(1e-2, 1e-3))), ("1.1", Rule(top1=0.98, cosine=0.99))):
        content = (DIGITS / f"digits-{version}.tflite").read_bytes()
        assert default_rule(content, backend.load(content, "m")) == rule


@pytest.fixture(scope="module")
def golden():
    """Frames of digits, and what the FP32 file says of them in ONNX Runtime."""
    spec = importlib.util.spec_from_file_location("frames_of_digits", DIGITS.parent / "frames.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    source = module.Frames(5, "held-out")
    frames = np.stack([source.next()[0] for _ in range(20)])
    session = onnxruntime.InferenceSession(DIGITS / "digits-1.0.onnx", providers=["CPUExecutionProvider"])
    return {"frame": frames, "scores": np.stack([session.run(None, {"frame": frame})[0] for frame in frames])}


@pytest.mark.parametrize(("version", "bound"), [("1.0", 1e-5), ("1.1", 0.1)])
def test_the_digits_agree_with_the_onnx_file_by_the_golden_rule(backend, golden, version, bound):
    content = (DIGITS / f"digits-{version}.tflite").read_bytes()
    model = backend.load(content, "m")
    specs = {spec.name: (list(spec.shape), spec.datatype) for spec in (*model.inputs, *model.outputs)}
    assert specs == {"frame": ([480, 640, 3], "UINT8"), "scores": ([10], "FP32")}
    agreement = Samples(golden, model).check(default_rule(content, model))
    assert agreement.deviation < bound


def test_the_same_bits_come_out_as_of_the_runtime_alone(backend):
    content = (DIGITS / "digits-1.1.tflite").read_bytes()
    alone = tflite.Interpreter(model_content=content, num_threads=1)
    alone.allocate_tensors()
    frame = np.random.default_rng(1).integers(0, 256, (480, 640, 3), np.uint8)
    alone.set_tensor(alone.get_input_details()[0]["index"], frame)
    alone.invoke()
    right = alone.get_tensor(alone.get_output_details()[0]["index"])
    assert run(backend.load(content, "m"), frame)[0].tobytes() == right.tobytes()


def test_a_closed_model_gives_its_memory_back(backend):
    content = (DIGITS / "digits-1.0.tflite").read_bytes()
    frame = np.zeros((480, 640, 3), np.uint8)

    def once() -> None:
        model = backend.load(content, "m")
        run(model, frame)
        model.close()
        gc.collect()

    for _ in range(5):
        once()
    before = resident_bytes()
    for _ in range(20):
        once()
    assert resident_bytes() - before < 4 << 20  # one such model takes 30 MB


def test_a_model_that_does_not_fit_is_too_large_and_smaller_ones_still_load():
    code = """
from benchmarks.tflite_models import Graph, scaled
from workers.backend import ModelTooLarge, Settings
from workers.backends.litert import LiteRtBackend
from workers.process import limit_memory
import numpy as np
graph = Graph()
x, y = graph.tensor("x", "FP32", [1, 512]), graph.tensor("y", "FP32", [1, 24576])
weights = graph.constant("w", np.ones((24576, 512), np.float32))
graph.add("FULLY_CONNECTED", [x, weights, -1], [y], kind="FullyConnectedOptions")
content, backend = graph.model([x], [y]), LiteRtBackend(Settings("litert"))
backend.load(scaled(1.0), "small")
limit_memory(30 << 20)
try:
    backend.load(content, "large")
except ModelTooLarge:
    print("too large")
print(backend.load(scaled(2.0), "small").provenance)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ["too large", "1 of 1 nodes on the CPU (XNNPACK: 1 part)"], done.stderr


def test_without_a_library_both_are_named(monkeypatch):
    monkeypatch.setattr(lite_runtime, "PACKAGES", (("no_such_litert", "no-litert"), ("no_such_tflite", "no-tflite")))
    probe = LiteRtBackend.probe()
    assert (probe.available, probe.code) == (False, MISSING_LIBRARY)
    assert "no-litert can't be used" in probe.reason
    assert "no-tflite can't be used" in probe.reason
    assert "pip install" in probe.remedy
    with pytest.raises(BackendUnavailable):
        LiteRtBackend(Settings("litert"))


def test_an_unknown_option_is_refused_by_name():
    with pytest.raises(BackendUnavailable, match="speed"):
        LiteRtBackend(Settings("litert", options={"speed": 9}))
