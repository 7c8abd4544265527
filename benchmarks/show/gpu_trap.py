"""ONNX Runtime computes on the CPU, and says so to nobody, when TensorRT or CUDA is missing: here that is no target.

Each part runs in a process of its own under ``--python``, by default this interpreter; with that of an environment with
onnxruntime-gpu the provider is really compiled in, and its libraries are really missing. The GPU is a stand-in: without
one nothing would get as far as the trap.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import subprocess
import sys

import numpy as np

from benchmarks.harness import Gateway, Verdict, manifest, scaled, scratch, wait_for
from edgeway.client import Client
from gateway.dispatch.launch import source_roots

_PROVIDERS = ("TensorrtExecutionProvider", "CUDAExecutionProvider")

_ALONE = """
import onnxruntime as ort, numpy as np
session = ort.InferenceSession(model, providers=[{provider!r}])
say(version=ort.__version__, available=ort.get_available_providers(), on=session.get_providers(),
    y=session.run(None, {{"x": np.float32([3])}})[0].tolist())
"""
_OURS = """
from workers import nvidia
nvidia.look = lambda roots: nvidia.Sight([nvidia.Gpu("GPU (stand-in)", "8.7", 8 << 30)], "580", (13, 0))
from workers.backend import BackendError, Settings
from workers.backends.tensorrt import TensorrtBackend
from workers.tensorrt import through_onnx
import onnxruntime
if {claimed}:
    onnxruntime.get_available_providers = lambda: [through_onnx.PROVIDER, through_onnx.CUDA, "CPUExecutionProvider"]
if {blind}:
    through_onnx._open_libraries = lambda folder: None
try:
    loaded = TensorrtBackend(Settings(options={{"through": "onnxruntime"}})).load(model, "m 1")
    say(ready=loaded.provenance)
except BackendError as refused:
    say(refused=type(refused).__name__, code=getattr(refused, "code", ""), why=str(refused))
"""
_WAYS = (
    ("as it is installed", False, False),
    ("the provider is listed", True, False),
    ("listed, and its libraries are not looked for", True, True),
)


def told(python: str, program: str) -> dict:
    """What a program says as its last line."""
    model = base64.b64encode(scaled(2.0).SerializeToString()).decode()
    begin = f"import base64, json\nmodel = base64.b64decode({model!r})\n"
    say = "def say(**facts): print(json.dumps(facts))\n"
    ours = filter(None, sys.path) if python == sys.executable else source_roots()  # not our packages for another one
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(ours)}
    command = [python, "-W", "ignore", "-c", begin + say + program]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    if done.returncode:
        return {"refused": "", "why": f"the process failed: {done.stderr[-500:]}"}
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", default=sys.executable, help="interpreter with the ONNX Runtime to try")
    python = parser.parse_args().python
    verdict = Verdict("a session that would run on the CPU unseen")
    for provider in _PROVIDERS:
        found = told(python, _ALONE.format(provider=provider))
        where = f"runs on {found.get('on')}, y = {found.get('y')}"
        verdict.control(f"onnxruntime {found.get('version')} alone, asked for {provider}: {where}")
    for what, claimed, blind in _WAYS:
        found = told(python, _OURS.format(claimed=claimed, blind=blind))
        verdict.check(
            found.get("refused") in ("BackendUnavailable", "NotOnDevice") and bool(found["why"]),
            f"{what}: {found.get('refused') or 'ready'} {found.get('code') or ''}: {found.get('why') or found}",
        )
    with scratch() as folder:
        workers = [{"name": "trt", "backend": "tensorrt"}, {"name": "cpu", "backend": "cpu", "instances": 1}]
        with Gateway(folder, {"workers": workers}) as gateway:
            spec = "targets: [trt, cpu]"
            path = manifest(folder, "m", "1", scaled(2.0).SerializeToString(), spec, "tensorrt")
            applied = gateway.run("apply", "-f", path, "--wait")
            wait_for(lambda: len(gateway.get("targets", "m")) == 2, 10, "both targets")
            states = {each["worker"]: each for each in gateway.get("targets", "m")}
            with Client(gateway.unix) as client:
                answers = [client.infer("m", {"x": np.float32([n])}) for n in range(50)]
            right = all(answer["y"].tolist() == [2.0 * n] for n, answer in enumerate(answers))
            by = {(answer.served_by, answer.degraded) for answer in answers}
            state, reason = states["trt"]["state"], states["trt"]["reason"]
            verdict.check(
                applied.returncode == 0 and right and (by == {("cpu", True)} or state == "ready"),
                f"through a gateway: trt is {state} ({reason}); 50 requests, all right: {right}, served by {by}",
            )
    verdict.end()


if __name__ == "__main__":
    main()
