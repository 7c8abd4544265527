"""NVIDIA GPUs are found by nodes, bus and driver: real bindings over stubs of the driver's libraries, a fake /dev and /sys."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from workers import nvidia
from workers.backend import DEVICE_BUSY, MISSING_DEVICE, MISSING_LIBRARY, NO_PERMISSION, WRONG_DRIVER
from workers.backends.tensorrt import TensorrtBackend
from workers.nvidia import Roots, look

CUDA_STUB = """
#include <stdlib.h>
#include <string.h>
static int told(const char *name, int otherwise) { const char *text = getenv(name); return text ? atoi(text) : otherwise; }
int cuInit(unsigned flags) { return told("STUB_CUINIT", 0); }
int cuDriverGetVersion(int *version) { *version = told("STUB_CUDA", 12060); return 0; }
int cuDeviceGetCount(int *count) { *count = told("STUB_COUNT", 1); return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "Orin (stub)", size); return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = (size_t)8 << 30; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = attribute == 75 ? 8 : 7; return 0; }
"""
NVML_STUB = """
#include <stdlib.h>
#include <string.h>
typedef struct { unsigned pid; unsigned long long memory; unsigned gpu, compute; } process;
static int told(const char *name, int otherwise) { const char *text = getenv(name); return text ? atoi(text) : otherwise; }
int nvmlInitWithFlags(unsigned flags) { return told("STUB_NVML", 0); }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int error) { return error == 18 ? "Driver/library version mismatch" : "refused"; }
int nvmlSystemGetDriverVersion(char *version, unsigned size) { strncpy(version, "540.4.0", size); return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = (void *)1; return 0; }
int nvmlDeviceGetComputeMode(void *device, int *mode) { *mode = told("STUB_MODE", 0); return 0; }
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, process *found) {
  unsigned room = *count; *count = 1;
  if (room < 1 || !found) return 7;
  found[0].pid = 4242; return 0;
}
"""
LOOK = """
import json, sys
from workers.backends.tensorrt import TensorrtBackend
from workers.nvidia import Roots, look
roots = Roots(*sys.argv[1:])
sight, probe = look(roots), TensorrtBackend.probe(roots)
print(json.dumps({
    "gpus": [list(gpu) for gpu in sight.gpus], "driver": sight.driver, "cuda": sight.cuda,
    "problem": sight.problem, "code": sight.code, "remedy": sight.remedy,
    "available": probe.available, "reason": probe.reason, "probed": probe.code, "devices": probe.devices,
    "what": probe.remedy,
}))
"""


@pytest.fixture
def box(tmp_path) -> Roots:
    """The folders of a machine without any GPU."""
    for name in ("dev", "sys/module", "sys/bus/pci/devices", "proc", "etc"):
        (tmp_path / name).mkdir(parents=True)
    return Roots(*(str(tmp_path / name) for name in ("dev", "sys", "proc", "etc")))


def with_gpu(box: Roots, node: str = "nvidia0") -> Roots:
    (Path(box.dev) / node).touch()
    return box


@pytest.fixture(scope="module")
def stubs(tmp_path_factory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("no gcc to build the stubs with")
    folder = tmp_path_factory.mktemp("nvidia")
    for name, source in (("libcuda.so.1", CUDA_STUB), ("libnvidia-ml.so.1", NVML_STUB)):
        (folder / "stub.c").write_text(source)
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", folder / name, folder / "stub.c"], check=True, timeout=60)
    return folder


def seen(box: Roots, libraries: Path, **environment: str) -> dict:
    """What a process finds whose driver is a stub."""
    variables = os.environ | {"LD_LIBRARY_PATH": str(libraries), "PYTHONPATH": os.pathsep.join(sys.path)} | environment
    command = [sys.executable, "-c", LOOK, box.dev, box.sys, box.proc, box.etc]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True, timeout=60)
    return json.loads(done.stdout)


def test_without_nodes_and_without_a_card_there_is_no_device(box):
    sight = look(box)
    assert (sight.code, sight.gpus) == (MISSING_DEVICE, ())
    assert "no NVIDIA GPU" in sight.problem
    assert sight.remedy


def test_a_card_on_the_bus_without_a_driver_is_a_matter_of_the_driver(box):
    for number, (vendor, kind) in enumerate((("0x8086", "0x030000"), ("0x10de", "0x040300"), ("0x10de", "0x030200"))):
        card = Path(box.sys) / f"bus/pci/devices/0000:0{number}:00.0"
        card.mkdir()
        (card / "vendor").write_text(vendor + "\n")
        (card / "class").write_text(kind + "\n")
    sight = look(box)
    assert sight.code == WRONG_DRIVER
    assert "0000:02:00.0 has no driver" in sight.problem
    assert "install the NVIDIA driver" in sight.remedy


def test_a_node_that_we_may_not_open_is_a_matter_of_permission(box, monkeypatch):
    with_gpu(box)
    monkeypatch.setattr(nvidia.os, "access", lambda path, mode: False)
    sight = look(box)
    assert sight.code == NO_PERMISSION
    assert sight.problem.endswith("dev/nvidia0")
    assert sight.remedy


def test_a_device_without_the_drivers_library_is_a_matter_of_the_driver(box, tmp_path):
    found = seen(with_gpu(box), tmp_path)
    assert (found["code"], found["probed"]) == (WRONG_DRIVER, WRONG_DRIVER)
    assert "libcuda.so.1" in found["problem"]


@pytest.mark.parametrize("node", ["nvidia0", "nvhost-gpu", "nvhost-ctrl-gpu"])
def test_a_gpu_is_known_by_name_capability_memory_and_driver(box, stubs, node):
    found = seen(with_gpu(box, node), stubs)
    assert found["gpus"] == [["Orin (stub)", "8.7", 8 << 30]]
    assert found["cuda"] == [12, 6]
    assert found["problem"] == ""


def test_a_jetson_is_known_by_its_module_where_no_node_is_seen(box, stubs):
    (Path(box.sys) / "module/nvgpu").mkdir()
    (Path(box.etc) / "nv_tegra_release").write_text("# R36 (release), REVISION: 4.0\n")
    found = seen(box, stubs, STUB_NVML="9")  # its driver has no NVML
    assert found["gpus"] == [["Orin (stub)", "8.7", 8 << 30]]
    assert found["driver"].startswith("# R36")


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [
        ("100", MISSING_DEVICE, "finds no device"),
        ("46", DEVICE_BUSY, "busy"),
        ("803", WRONG_DRIVER, "library and its kernel module differ"),
        ("304", NO_PERMISSION, "refused the driver a call"),
        ("34", WRONG_DRIVER, "a stub"),
        ("999", WRONG_DRIVER, "CUDA error 999"),
    ],
)
def test_what_the_driver_says_has_its_code_and_remedy(box, stubs, number, code, words):
    found = seen(with_gpu(box), stubs, STUB_CUINIT=number)
    assert (found["code"], found["gpus"], found["available"]) == (code, [], False)
    assert words in found["problem"]
    assert found["remedy"]


def test_a_driver_that_lists_no_gpu_has_none(box, stubs):
    assert seen(with_gpu(box), stubs, STUB_COUNT="0")["code"] == MISSING_DEVICE


needs_nvml = pytest.mark.skipif(importlib.util.find_spec("pynvml") is None, reason="nvidia-ml-py is not installed")


@needs_nvml
def test_a_driver_and_a_library_of_two_versions_are_told_to_be_so(box, stubs):
    found = seen(with_gpu(box), stubs, STUB_NVML="18", STUB_CUINIT="803")
    assert found["code"] == WRONG_DRIVER
    assert found["problem"].startswith("NVML: ")
    assert "mismatch" in found["problem"]
    assert "reboot" in found["remedy"]


@needs_nvml
def test_a_gpu_that_another_process_has_for_itself_is_busy(box, stubs):
    found = seen(with_gpu(box), stubs, STUB_MODE="3")
    assert found["code"] == DEVICE_BUSY
    assert "process 4242 has the GPU for itself" in found["problem"]


@needs_nvml
def test_a_gpu_that_nobody_may_compute_with_is_a_matter_of_permission(box, stubs):
    assert seen(with_gpu(box), stubs, STUB_MODE="2")["code"] == NO_PERMISSION


@needs_nvml
def test_the_driver_tells_its_version_where_it_has_nvml(box, stubs):
    assert seen(with_gpu(box), stubs)["driver"] == "540.4.0"


def test_a_gpu_without_the_libraries_is_a_matter_of_libraries_and_both_ways_are_named(box, stubs):
    found = seen(with_gpu(box), stubs)
    if found["available"]:
        pytest.skip("TensorRT is installed for this interpreter")
    assert found["probed"] == MISSING_LIBRARY
    assert "for ONNX models: " in found["reason"]
    assert "for engines: tensorrt can't be imported" in found["reason"]
    assert found["devices"] == ["Orin (stub) (8192 MB, compute 8.7)"]
    assert "--system-site-packages" in found["what"]


def test_the_probe_of_this_box_never_raises():
    probe = TensorrtBackend.probe()
    assert probe.available or (probe.reason and probe.remedy and probe.code)
