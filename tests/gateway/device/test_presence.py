"""Accelerators are found by their device files and sysfs, in fake trees; libraries by find_spec, never by an import."""

from __future__ import annotations

import importlib.util
import sys
import time
from importlib.machinery import ModuleSpec

import pytest

from gateway.config import WorkerConfig, parse_device_config
from gateway.device.presence import Accelerator, look
from gateway.dispatch.launch import default_workers
from gateway.start import find_accelerators, text

APEX = {"dev/apex_0": ""}
CORAL_USB = {"sys/bus/usb/devices/2-1/idVendor": "1a6e\n", "sys/bus/usb/devices/2-1/idProduct": "089a\n"}
PCI_GPU = {
    "sys/bus/pci/devices/0000:01:00.0/vendor": "0x10de\n",
    "sys/bus/pci/devices/0000:01:00.0/class": "0x030000\n",
    "sys/bus/pci/devices/0000:01:00.1/vendor": "0x10de\n",  # its sound
    "sys/bus/pci/devices/0000:01:00.1/class": "0x040300\n",
}
INTEL_NPU = {"dev/accel/accel0": "", "sys/class/accel/accel0/device/vendor": "0x8086\n"}
INTEL_GPU = {"dev/dri/renderD128": "", "sys/class/drm/renderD128/device/vendor": "0x8086\n"}
AMD_GPU = {"dev/dri/renderD128": "", "sys/class/drm/renderD128/device/vendor": "0x1002\n"}


@pytest.fixture
def tree(tmp_path):
    """``tree(files)``: what is found in a device of these files, where these modules are installed."""

    def found(files: dict[str, str], *modules: str) -> list[Accelerator]:
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)

        def find(module: str) -> ModuleSpec | None:
            if module not in modules:
                return None
            spec = ModuleSpec(module, None, is_package=True)
            spec.submodule_search_locations = [str(tmp_path / "packages" / module)]
            return spec

        return look(str(tmp_path / "sys"), str(tmp_path / "dev"), find)

    return found


@pytest.mark.parametrize(
    ("files", "backend", "module", "word"),
    [
        (APEX, "edgetpu", "ai_edge_litert", "PCIe"),
        (CORAL_USB, "edgetpu", "tflite_runtime", "USB"),
        ({"dev/nvidia0": "", "dev/nvidiactl": "", "dev/nvidia-uvm": "", **PCI_GPU}, "tensorrt", "tensorrt", "nvidia0"),
        ({"dev/nvhost-gpu": ""}, "tensorrt", "tensorrt", "nvhost-gpu"),
        ({"dev/fastrpc-cdsp": "", "dev/fastrpc-cdsp-secure": ""}, "qnn", "onnxruntime_qnn", "Hexagon"),
    ],
)
def test_a_device_with_its_library_gets_a_worker_and_one_without_says_what_to_install(
    tree, files, backend, module, word
):
    (without,) = tree(files)
    assert (without.backend, bool(without.lacks)) == (backend, True)
    assert "not used" in text(without)
    assert [worker.backend for worker in default_workers((), [without])] == ["cpu"]
    (found,) = tree(files, module)
    assert (found.backend, found.lacks) == (backend, "")
    assert word in found.device
    workers = default_workers((), [found])
    assert [(worker.name, worker.backend) for worker in workers] == [(backend, backend), ("cpu", "cpu")]


def test_a_gpu_without_a_driver_is_found_and_no_worker_is_started_for_it(tree):
    (found,) = tree(PCI_GPU, "tensorrt")
    assert "0000:01:00.0" in found.device
    assert "driver" in found.lacks


def test_onnx_runtime_counts_only_with_the_provider_in_it(tree, tmp_path):
    (plain,) = tree({"dev/nvidia0": ""}, "onnxruntime")
    assert plain.lacks
    capi = tmp_path / "packages" / "onnxruntime" / "capi"
    capi.mkdir(parents=True)
    (capi / "libonnxruntime_providers_tensorrt.so").touch()
    (gpu,) = tree({"dev/nvidia0": ""}, "onnxruntime")
    assert not gpu.lacks


def test_devices_of_one_kind_get_a_worker_each(tree):
    files = {**APEX, "dev/apex_1": "", **CORAL_USB, "dev/nvidia0": "", "dev/nvidia1": "", "dev/nvidia10": ""}
    found = tree(files, "ai_edge_litert", "tensorrt")
    workers = default_workers((), found)
    assert [(worker.name, worker.options.get("device")) for worker in workers] == [
        ("tensorrt", 0),
        ("tensorrt-2", 1),
        ("tensorrt-3", 2),
        ("edgetpu", "pci:0"),
        ("edgetpu-2", "pci:1"),
        ("edgetpu-3", "usb:0"),
        ("cpu", None),
    ]


def test_intels_devices_are_told_from_those_of_others(tree, tmp_path):
    assert tree(AMD_GPU) == []
    found = tree({**INTEL_NPU, **INTEL_GPU})
    assert [(each.backend, each.options) for each in found] == [
        ("openvino", {"device": "NPU"}),
        ("openvino", {"device": "GPU"}),
    ]


def test_nothing_is_found_where_there_is_nothing(tree):
    assert tree({}) == []
    assert tree({"dev/null": "", "sys/bus/usb/devices/1-1/product": "a mouse"}, "tensorrt", "ai_edge_litert") == []


def test_a_library_whose_search_fails_is_not_there(tmp_path):
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "apex_0").touch()

    def broken(module: str) -> None:
        raise ValueError(f"{module}.__spec__ is None")

    (found,) = look(str(tmp_path), str(tmp_path / "dev"), broken)
    assert found.lacks


def test_configured_workers_are_left_alone(tree, tmp_path):
    roots = f"accelerators: {{sysfsRoot: {tmp_path}/sys, devRoot: {tmp_path}/dev}}\n"
    found = tree(APEX, "ai_edge_litert")
    assert [w.name for w in default_workers([WorkerConfig("sim", "simulated")], found)] == ["sim", "cpu"]
    assert find_accelerators(parse_device_config(roots, "c"))
    assert not find_accelerators(parse_device_config(roots + "workers: [{name: sim, backend: simulated}]", "c"))
    assert not find_accelerators(parse_device_config("accelerators: {find: false}", "c"))


def test_looking_takes_under_10_ms_and_imports_nothing(tree, tmp_path):
    """Of a device with as many PCI and USB devices as a large one has; the best of some, as the machine is shared."""
    files = {f"sys/bus/pci/devices/0000:00:{n:02x}.0/vendor": "0x8086\n" for n in range(60)}
    files |= {f"sys/bus/usb/devices/{n}-1/idVendor": "046d\n" for n in range(20)}
    tree({**files, **APEX, **INTEL_NPU})
    before = set(sys.modules)
    times = []
    for _ in range(20):
        began = time.perf_counter()
        assert look(str(tmp_path / "sys"), str(tmp_path / "dev"), importlib.util.find_spec)
        times.append(time.perf_counter() - began)
    assert min(times) < 0.010
    assert not {"onnxruntime", "tensorrt", "ai_edge_litert"} & (set(sys.modules) - before)
