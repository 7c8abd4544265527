"""OpenVINO's provider, for real on its CPU device, in worker processes of a gateway; its other devices on fake trees."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from benchmarks.harness import Gateway, identity, scratch, slow, wait_for
from tests.backends.nets import frames, net, quantised
from tests.backends.served import SETTLED, Served
from workers import device_files
from workers.backend import BackendUnavailable, Settings
from workers.backends.openvino import Options, best_device, files_of, provider_options, read_options

INTEL, OTHER = "0x8086", "0x1002"


def tree(root: Path, *devices: tuple[str, str, str]) -> tuple[str, str]:
    """A fake /dev and /sys with these (class, device file, vendor)."""
    for kind, file, vendor in devices:
        path = root / "dev" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        told = root / "sys" / "class" / kind / path.name / "device"
        told.mkdir(parents=True)
        (told / "vendor").write_text(vendor + "\n")
    return str(root / "dev"), str(root / "sys")


GPU = ("drm", "dri/renderD128", INTEL)
NPU = ("accel", "accel/accel0", INTEL)


@pytest.fixture(scope="module")
def vino(runtime: Callable[[str], str]) -> Iterator[Served]:
    python = runtime("openvino")
    with scratch() as made:
        dev, sys = tree(made / "fake", NPU)
        workers = [
            {"name": "vino", "backend": "openvino", "python": python, "options": {"device": "CPU"}},
            {
                "name": "gpu",
                "backend": "openvino",
                "python": python,
                "options": {"device": "GPU", "devRoot": dev, "sysfsRoot": sys},
            },
            {
                "name": "npu",
                "backend": "openvino",
                "python": python,
                "options": {"devRoot": dev, "sysfsRoot": sys},
            },
        ]
        with Gateway(made, {"workers": workers}) as gateway:
            yield Served(gateway, "vino")


def test_a_graph_is_computed_by_openvino_on_the_cpu_and_labelled_so(vino: Served):
    vino.deploy("net", net().SerializeToString())
    target = vino.target("net")
    assert target["provenance"] == "7 of 7 nodes on OpenVINOExecutionProvider, device CPU", target
    got, answer = vino.ask("net", frames(1))
    assert (answer.served_by, answer.accelerator, answer.kind) == ("vino", "openvino", "cpu")
    vino.deploy("net-cpu", net().SerializeToString(), "[cpu]")
    expected, _ = vino.ask("net-cpu", frames(1))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_a_quantised_graph_is_too(vino: Served, tmp_path: Path):
    content = quantised(tmp_path)
    vino.deploy("int8", content)
    assert "nodes on OpenVINOExecutionProvider" in vino.target("int8")["provenance"]
    vino.deploy("int8-cpu", content, "[cpu]")
    got, answer = vino.ask("int8", frames(1))
    assert answer.served_by == "vino"
    expected, _ = vino.ask("int8-cpu", frames(1))
    assert got.argmax() == expected.argmax()


def test_open_sizes_may_be_any(vino: Served):
    vino.deploy("open", net("batch").SerializeToString())
    assert vino.target("open")["state"] == "ready"
    vino.deploy("open-cpu", net("batch").SerializeToString(), "[cpu]")
    for count in (1, 5, 2):
        got, answer = vino.ask("open", frames(count))
        assert (answer.served_by, got.shape) == ("vino", (count, 10))
        np.testing.assert_allclose(got, vino.ask("open-cpu", frames(count))[0], rtol=1e-4, atol=1e-5)


def test_what_was_compiled_is_kept_in_the_workers_cache(vino: Served):
    vino.deploy("kept", net(seed=1).SerializeToString())
    assert vino.target("kept")["state"] == "ready"
    kept = [file for file in vino.gateway.folder.rglob("*.blob") if "vino" in file.parts]
    assert kept
    vino.replace()
    assert vino.target("kept")["provenance"] == "7 of 7 nodes on OpenVINOExecutionProvider, device CPU"
    _, answer = vino.ask("kept", frames(1))
    assert answer.served_by == "vino"


def test_operators_that_openvino_lacks_are_named_and_the_cpu_serves(vino: Served):
    vino.deploy("text", identity(TensorProto.STRING, (1,)).SerializeToString())
    refused = vino.target("text")
    assert refused["state"] == "lost"
    assert "only 0 of 1 nodes on OpenVINOExecutionProvider; it would run on the CPU: Identity" in refused["reason"]
    _, answer = vino.ask("text", np.array(["a"], dtype=object))
    assert answer.served_by == "cpu"


def test_a_graph_that_openvino_refuses_is_refused_in_its_words_alone(vino: Served):
    vino.deploy("loop", slow(2).SerializeToString())
    refused = vino.target("loop")
    assert refused["state"] == "lost"
    assert "OpenVINO does not support" in refused["reason"]
    assert ".cpp" not in refused["reason"].partition("Check")[0]
    assert "\n" not in refused["reason"]


def test_a_device_that_is_not_there_makes_the_worker_unavailable_because_of_that(vino: Served):
    worker = wait_for(lambda: (row := vino.gateway.worker("gpu"))["state"] == "lost" and row, SETTLED, "lost")
    assert "no GPU of Intel's" in worker["reason"]


def test_a_device_that_openvino_cannot_use_makes_the_worker_unavailable_and_is_not_replaced_by_the_cpu(vino: Served):
    worker = wait_for(lambda: (row := vino.gateway.worker("npu"))["state"] == "lost" and row, SETTLED, "lost")
    assert "the NPU is there, and OpenVINO can't use it: it lists CPU" in worker["reason"]


def test_doctor_says_which_device_it_would_be_and_where_it_is_not_installed_what_to_do(
    vino: Served, runtime: Callable[[str], str]
):
    there = vino.doctor("openvino", "--python", runtime("openvino"))
    assert there["available"]
    assert "CPU" in there["devices"]
    missing = vino.doctor("openvino", "--python", runtime("qnn"))
    assert (missing["available"], missing["code"]) == (False, "missing-library")
    assert "make runtimes" in missing["remedy"]


@pytest.mark.hardware
@pytest.mark.parametrize("device", ["GPU", "NPU"])
def test_a_graph_is_computed_by_an_intel_accelerator(
    runtime: Callable[[str], str], gateway_in: Callable[..., Gateway], device: str
):
    if not files_of(device):
        pytest.skip(f"there is no Intel {device} here")
    worker = {"name": "intel", "backend": "openvino", "python": runtime("openvino"), "options": {"device": device}}
    intel = Served(gateway_in({"workers": [worker]}), "intel")
    intel.deploy("net", net().SerializeToString())
    assert f"7 of 7 nodes on OpenVINOExecutionProvider, device {device}" in intel.target("net")["provenance"]
    _, answer = intel.ask("net", frames(1))
    assert (answer.served_by, answer.kind) == ("intel", "hardware")


@pytest.mark.parametrize(
    ("devices", "best"),
    [
        ((), "CPU"),
        ((GPU,), "GPU"),
        ((GPU, NPU), "NPU"),
        ((("drm", "dri/renderD128", OTHER),), "CPU"),
        ((("drm", "dri/renderD128", OTHER), ("drm", "dri/renderD129", INTEL)), "GPU"),
        ((("accel", "accel/accel0", OTHER), GPU), "GPU"),
    ],
)
def test_the_best_device_is_found_by_its_file_and_vendor(tmp_path: Path, devices: Any, best: str):
    assert best_device(*tree(tmp_path, *devices)) == best


def test_a_device_without_permission_is_not_the_best_and_says_which_file(tmp_path: Path, monkeypatch: Any):
    roots = tree(tmp_path, GPU)
    monkeypatch.setattr(device_files.os, "access", lambda path, mode: False)
    assert best_device(*roots) == "CPU"
    found = device_files.obstacle(files_of("GPU", *roots), "GPU", "")
    assert found is not None
    assert found.code == "no-permission"
    assert "renderD128" in found.reason


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"speed": 9}, "speed"),
        ({"device": "TPU"}, "device"),
        ({"device": ["CPU"]}, "device"),
        ({"numThreads": "2"}, "numThreads"),
        ({"precision": "int4"}, "precision"),
        ({"minShare": "all"}, "minShare"),
        ({"devRoot": 3}, "devRoot"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_by_name(options: dict[str, Any], named: str):
    with pytest.raises(BackendUnavailable, match=rf"options\.{named}"):
        read_options(options)


def test_options_reach_the_provider_in_its_words(tmp_path: Path):
    settings = Settings("vino", threads=3, instances=2, cache=str(tmp_path / "cache"))
    assert provider_options(read_options({}), "CPU", settings) == {
        "device_type": "CPU",
        "precision": "FP32",
        "num_of_threads": "3",
        "num_streams": "2",
        "cache_dir": str(tmp_path / "cache"),
    }
    assert provider_options(read_options({"numThreads": 1}), "CPU", Settings())["num_of_threads"] == "1"
    assert provider_options(Options(precision="f16"), "GPU", Settings()) == {"device_type": "GPU", "precision": "FP16"}
    assert provider_options(Options(), "NPU", Settings())["precision"] == "FP16"


def test_a_precision_that_the_device_lacks_is_refused():
    with pytest.raises(BackendUnavailable, match=r"options\.precision: the NPU computes in f16, got f32"):
        provider_options(Options(precision="f32"), "NPU", Settings())


def test_a_cache_that_cannot_be_used_is_said_and_done_without(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "file").touch()
    assert "cache_dir" not in provider_options(Options(), "CPU", Settings(cache=str(tmp_path / "file" / "cache")))
    assert "can be kept" in capsys.readouterr().err
