"""The real ``nvidia-ml-py`` over a stub of the driver's library: names, structures and errors are the binding's own."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("pynvml") is None, reason="nvidia-ml-py is not installed"),
    pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc to build the stub with"),
]

STUB = """
#include <stdlib.h>
typedef struct { unsigned gpu, memory; } utilization;
int nvmlInitWithFlags(unsigned flags) { return 0; }
const char *nvmlErrorString(int error) { return error == 15 ? "GPU is lost" : "refused"; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = (void *)1; return index ? 2 : 0; }
int nvmlDeviceGetTemperature(void *device, unsigned sensor, unsigned *celsius) {
  *celsius = 71; return getenv("STUB_LOST") ? 15 : 0;
}
int nvmlDeviceGetTemperatureThreshold(void *device, unsigned which, unsigned *celsius) { *celsius = 90 + which; return 0; }
int nvmlDeviceGetCurrentClocksThrottleReasons(void *device, unsigned long long *reasons) { *reasons = 0x40; return 0; }
int nvmlDeviceGetUtilizationRates(void *device, utilization *rates) { rates->gpu = 42; rates->memory = 0; return 0; }
"""

READ = """
from gateway.device.nvml import NvmlGpu
reading = NvmlGpu(int(__import__("sys").argv[1])).read(1.0)
print([reading.temperature_c, reading.throttled, reading.limit_c, reading.load, reading.lost, reading.problem])
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("nvml")
    (folder / "stub.c").write_text(STUB)
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-o", folder / "libnvidia-ml.so.1", folder / "stub.c"], check=True, timeout=60
    )
    return folder


def read(driver: Path, index: int = 0, **environment: str) -> list[object]:
    variables = os.environ | {"LD_LIBRARY_PATH": str(driver), "PYTHONPATH": os.pathsep.join(sys.path)} | environment
    command = [sys.executable, "-c", READ, str(index)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True, timeout=60)
    return eval(done.stdout)


def test_an_old_driver_is_asked_by_its_old_names(driver):
    assert read(driver) == [71.0, True, 91.0, 0.42, "", ""]


def test_a_gpu_that_is_lost_is_told_as_lost(driver):
    *_, lost, problem = read(driver, STUB_LOST="1")
    assert lost == problem == "NVML: GPU is lost"


def test_an_index_without_a_gpu_is_a_problem(driver):
    assert read(driver, 3) == [None, None, None, None, "", "NVML: Invalid Argument"]


def test_a_missing_driver_is_a_problem(tmp_path):
    *values, problem = read(tmp_path)
    assert problem.startswith("NVML: ")
    assert values[:4] == [None, None, None, None]
