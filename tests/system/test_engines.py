"""An engine is built beside the traffic: the CPU serves, the build tells how far it is, and a restart need not build.

The worker is a real one whose ``tensorrt``, CUDA and GPU are fakes, put there by its interpreter.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.harness import manifest, scaled, wait_for
from edgeway.client import Client

pytestmark = pytest.mark.system

_ROOT = Path(__file__).resolve().parents[2]
_SITE = """
import os, sys, time
from pathlib import Path
from types import SimpleNamespace
sys.path.insert(0, {root!r})
from tests.workers.fake_tensorrt import FakeCuda, FakeTensorrt
from workers import nvidia
cuda = FakeCuda()
trt = FakeTensorrt(cuda)
folder = Path({folder!r})
def build():
    with (folder / "builds").open("a") as file:
        file.write("build\\n")
    while not (folder / "go").exists():
        time.sleep(0.02)
trt.during_build = build
for name, module in (("cuda", SimpleNamespace(bindings=None)), ("cuda.bindings", SimpleNamespace(runtime=cuda)),
                     ("cuda.bindings.runtime", cuda), ("tensorrt", trt)):
    sys.modules[name] = module
sight = nvidia.Sight([nvidia.Gpu("Orin (fake)", "8.7", 8 << 30)], "540", (12, 6))
nvidia.look = lambda roots: sight
"""


@pytest.fixture
def interpreter(folder: Path) -> Path:
    site = folder / "site"
    site.mkdir()
    (site / "fakes.py").write_text(_SITE.format(root=str(_ROOT), folder=str(folder)))
    script = folder / "python"
    # The worker's program is the second argument; the fakes are imported before it.
    script.write_text(
        f'#!/bin/sh\nshift\nprogram=$1\nshift\nPYTHONPATH=$PYTHONPATH:{site} exec {sys.executable} -c "import fakes\n'
        '$program" "$@"\n'
    )
    script.chmod(0o755)
    return script


def test_the_cpu_serves_while_an_engine_is_built_and_a_new_process_reads_it(folder, gateway_in, interpreter):
    worker = {"name": "trt", "backend": "tensorrt", "python": str(interpreter)}
    gateway = gateway_in({"workers": [worker, {"name": "cpu", "backend": "cpu", "instances": 1}]})
    spec = "targets: [trt, cpu]\nlatency: {budgetMs: 1000}"
    path = manifest(folder, "m", "1", scaled(2.0).SerializeToString(), spec, "tensorrt")

    def target() -> dict:
        return next(
            (each for each in gateway.get("targets", "m") if each["worker"] == "trt"), {"reason": "", "state": ""}
        )

    gateway.deploy(path)
    with Client(gateway.unix) as client:
        ask = lambda: client.infer("m", {"x": np.float32([3])})  # noqa: E731
        wait_for(lambda: target()["reason"].startswith("loading: building the engine"), 20, "word of the build")
        assert target()["reason"].startswith("loading: building the engine: Tactics 3/4, ")
        assert target()["state"] == "unknown"
        answer = ask()
        assert (answer.served_by, answer.degraded, answer["y"].tolist()) == ("cpu", True, [6.0])
        (folder / "go").touch()
        wait_for(lambda: target()["state"] == "ready", 20, "the engine")
        answer = ask()
        assert (answer.served_by, answer["y"].tolist()) == ("trt", [6.0])
        assert target()["provenance"] == "all 3 layers in one engine of TensorRT 10.3.0"
        (folder / "go").unlink()  # a second build would never end
        first = next(each for each in gateway.get("accelerators") if each["worker"] == "trt")["pid"]
        os.kill(first, signal.SIGKILL)
        for _ in range(20):
            assert ask()["y"].tolist() == [6.0]
        wait_for(lambda: target()["state"] == "ready", 20, "the new process")
        assert ask().served_by == "trt"
    assert (folder / "builds").read_text() == "build\n"
