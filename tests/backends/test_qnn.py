"""Qualcomm's plug-in and its emulator of the HTP, for real, in worker processes of a gateway."""

from __future__ import annotations

import platform
import runpy
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from benchmarks.harness import Gateway, scratch, wait_for
from tests.backends.nets import frames, net, of_bytes, quantised
from tests.backends.served import SETTLED, Served
from workers.backend import BackendUnavailable
from workers.backends.qnn import QnnBackend, open_cache, read_options

STUB = "int QnnInterface_getProviders(const void*** list, unsigned* count) { *list = 0; *count = 0; return 1; }"
"""A backend library that can be loaded and offers nothing: a stub, so that the plug-in gives up after the start."""


@pytest.fixture(scope="module")
def npu(runtime: Callable[[str], str]) -> Iterator[Served]:
    python = runtime("qnn")
    if platform.machine() != "x86_64":
        pytest.skip(f"the emulator is for x86_64, not for {platform.machine()}")
    with scratch() as made:
        (made / "gone").mkdir()
        workers = [
            {"name": "npu", "backend": "qnn", "python": python},
            {"name": "one", "backend": "qnn", "python": python, "options": {"dimensions": {"batch": 1}}},
            {
                "name": "gone",
                "backend": "qnn",
                "python": python,
                "options": {"backendPath": str(made / "gone" / "libQnnHtp.so")},
            },
        ]
        compiler = shutil.which("cc")
        if compiler:
            (made / "stub").mkdir()
            library = made / "stub" / "libQnnHtp.so"
            command = [compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", str(library)]
            subprocess.run(command, input=STUB.encode(), check=True)
            workers.append(
                {"name": "stub", "backend": "qnn", "python": python, "options": {"backendPath": str(library)}}
            )
        with Gateway(made, {"workers": workers}) as gateway:
            yield Served(gateway, "npu")


def test_a_graph_is_computed_by_the_emulator_and_labelled_so(npu: Served):
    npu.deploy("net", net().SerializeToString())
    target = npu.target("net")
    assert target["provenance"] == "9 of 9 nodes on QNNExecutionProvider", target
    got, answer = npu.ask("net", frames(1))
    assert (answer.served_by, answer.kind) == ("npu", "emulator")
    npu.deploy("net-cpu", net().SerializeToString(), "[cpu]")
    expected, answer = npu.ask("net-cpu", frames(1))
    assert answer.served_by == "cpu"
    np.testing.assert_allclose(got, expected, atol=0.02)  # half precision
    assert not np.array_equal(got, expected)


def test_a_quantised_graph_is_too_with_its_outer_quantization(npu: Served, tmp_path: Path):
    content = quantised(tmp_path)
    npu.deploy("int8", content)
    assert "nodes on QNNExecutionProvider" in npu.target("int8")["provenance"]
    npu.deploy("int8-cpu", content, "[cpu]")
    got, answer = npu.ask("int8", frames(1))
    assert answer.served_by == "npu"
    expected, _ = npu.ask("int8-cpu", frames(1))
    assert got.argmax() == expected.argmax()
    assert float((got * expected).sum()) > 0.99 * float(np.linalg.norm(got) * np.linalg.norm(expected))


def test_what_was_compiled_serves_again_after_a_crash_and_what_was_damaged_is_compiled_anew(npu: Served):
    npu.deploy("kept", net(seed=1).SerializeToString())
    assert npu.target("kept")["state"] == "ready"
    npu.replace()
    assert npu.target("kept")["provenance"] == "9 of 9 nodes on QNNExecutionProvider, compiled before"
    (folder,) = {file.parents[1] for file in npu.gateway.folder.rglob("context.onnx") if "npu" in file.parts}
    for context in folder.glob("*/context.onnx"):
        context.write_bytes(context.read_bytes()[:-100])
    npu.replace()
    assert "compiled before" not in npu.target("kept")["provenance"]
    _, answer = npu.ask("kept", frames(1))
    assert answer.served_by == "npu"


def test_open_sizes_are_refused_with_the_remedy_which_works(npu: Served):
    npu.deploy("open", net("batch").SerializeToString(), "[npu, one, cpu]")
    refused = npu.target("open")
    assert refused["state"] != "ready"
    assert "x (batch)" in refused["reason"]
    assert "dimensions: {batch: 1}" in refused["reason"]
    assert npu.target("open", "one")["provenance"] == "9 of 9 nodes on QNNExecutionProvider"
    _, answer = npu.ask("open", frames(1))
    assert answer.served_by == "one"


def test_operators_that_the_htp_lacks_are_named_with_the_share_and_the_cpu_serves(npu: Served):
    npu.deploy("partly", net(then_nonzero=True).SerializeToString())
    refused = npu.target("partly")
    assert refused["state"] != "ready"
    assert "only 9 of 10 nodes on QNNExecutionProvider; it would run on the CPU: NonZero" in refused["reason"]
    _, answer = npu.ask("partly", frames(1))
    assert answer.served_by == "cpu"


def test_a_graph_of_which_the_device_computes_something_else_than_the_cpu_is_refused(npu: Served):
    npu.deploy("bytes", of_bytes().SerializeToString())
    refused = npu.target("bytes")
    if refused["state"] == "ready":  # a plug-in without that error
        assert npu.ask("bytes", np.uint8([0, 1, 7, 255]))[0].tolist() == [0, 1, 7, 255]
        pytest.skip("this version of the plug-in converts bytes as it should")
    assert "off what the CPU computes" in refused["reason"]
    got, answer = npu.ask("bytes", np.uint8([0, 1, 7, 255]))
    assert (answer.served_by, got.tolist()) == ("cpu", [0, 1, 7, 255])


def test_a_library_that_is_not_there_makes_the_worker_unavailable_because_of_that(npu: Served):
    npu.deploy("never", net().SerializeToString(), "[gone, cpu]")
    worker = wait_for(
        lambda: (found := npu.gateway.worker("gone"))["state"] == "lost" and found["reason"] and found, SETTLED, "lost"
    )
    assert "libQnnHtp.so can't be loaded" in worker["reason"]
    assert npu.target("never", "gone")["state"] == "lost"


def test_a_provider_that_is_listed_first_while_all_nodes_are_on_the_cpu_is_never_ready(npu: Served):
    if not shutil.which("cc"):
        pytest.skip("no C compiler for the stub of the library")
    npu.deploy("trap", net().SerializeToString(), "[stub, cpu]")
    refused = npu.target("trap", "stub")
    assert refused["state"] != "ready"
    assert "only 0 of 7 nodes on QNNExecutionProvider" in refused["reason"]
    assert "Conv" in refused["reason"]
    _, answer = npu.ask("trap", frames(1))
    assert (answer.served_by, answer.kind) == ("cpu", "cpu")


def test_doctor_says_that_it_is_an_emulator_and_where_it_is_not_installed_what_to_do(
    npu: Served, runtime: Callable[[str], str]
):
    there = npu.doctor("qnn", "--python", runtime("qnn"))
    assert (there["available"], there["kind"]) == (True, "emulator")
    assert "emulator" in there["reason"]
    missing = npu.doctor("qnn", "--python", runtime("openvino"))
    assert (missing["available"], missing["code"]) == (False, "missing-library")
    assert "make runtimes" in missing["remedy"]


@pytest.mark.hardware
def test_a_graph_is_computed_by_a_hexagon(runtime: Callable[[str], str], gateway_in: Callable[..., Gateway]):
    if QnnBackend.kind != "hardware" or not list(Path("/dev").glob("fastrpc-cdsp*")):
        pytest.skip("there is no Hexagon NPU: /dev/fastrpc-cdsp is missing")
    npu = Served(gateway_in({"workers": [{"name": "npu", "backend": "qnn", "python": runtime("qnn")}]}), "npu")
    npu.deploy("net", net().SerializeToString())
    assert "9 of 9 nodes on QNNExecutionProvider" in npu.target("net")["provenance"]
    _, answer = npu.ask("net", frames(1))
    assert (answer.served_by, answer.kind) == ("npu", "hardware")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"speed": 9}, "speed"),
        ({"socModel": "60"}, "socModel"),
        ({"performanceMode": "warp"}, "performanceMode"),
        ({"dimensions": {"batch": 0}}, "dimensions"),
        ({"dimensions": ["batch"]}, "dimensions"),
        ({"minShare": 2}, "minShare"),
        ({"backendPath": 3}, "backendPath"),
        ({"cacheMB": -1}, "cacheMB"),
        ({"sysfsRoot": None}, "sysfsRoot"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_by_name(options: dict[str, Any], named: str):
    with pytest.raises(BackendUnavailable, match=rf"options\.{named}"):
        read_options(options)


def test_options_reach_the_provider_in_its_words():
    read = read_options({"socModel": 57, "vtcmMB": 8, "performanceMode": "burst", "dimensions": {"n": 2}})
    assert read.provider == {"soc_model": "57", "vtcm_mb": "8", "htp_performance_mode": "burst"}
    assert read.dimensions == {"n": 2}


def test_a_cache_that_cannot_be_used_is_said_and_done_without(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "file").touch()
    assert open_cache(str(tmp_path / "file" / "cache"), 1) is None
    assert "can be kept" in capsys.readouterr().err
    assert open_cache("", 1) is None
    assert open_cache(str(tmp_path / "cache"), 1) is not None


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_the_digits_said_for_the_plugin_are_the_same_graph(version: str):
    """To the bit on the CPU; the emulator takes it too, but seconds for each run."""
    folder = Path(__file__).parents[2] / "examples" / "digits"
    said = runpy.run_path(str(folder / "bytes_first.py"))["bytes_first"]
    original = onnx.load(folder / "models" / f"digits-{version}.onnx")
    frame = np.random.default_rng(0).integers(0, 256, (480, 640, 3)).astype(np.uint8)

    def scores(model: onnx.ModelProto) -> np.ndarray:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return np.asarray(session.run(None, {"frame": frame})[0])

    expected = scores(original)
    np.testing.assert_array_equal(scores(said(original)), expected)
