"""QNN is listed first while the CPU computes, when its library can't be loaded: here that is no target, and says why.

Two libraries are put in the place of Qualcomm's: one that is missing, and a stub (compiled here) that can be loaded and
offers nothing, so that the provider gives up only when a model is there. Beside them, OpenVINO is asked for a GPU.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from benchmarks import runtimes
from benchmarks.harness import Gateway, Verdict, manifest, model_of, not_here, scratch, value, wait_for
from edgeway.client import Client

CALLS = 50
STUB = "int QnnInterface_getProviders(const void*** list, unsigned* count) { *list = 0; *count = 0; return 1; }"

_ALONE = """
import json, numpy as np, onnxruntime as ort, onnxruntime_qnn as qnn
ort.register_execution_provider_library("QNNExecutionProvider", qnn.get_library_path())
devices = [device for device in ort.get_ep_devices() if device.ep_name == "QNNExecutionProvider"]
options = ort.SessionOptions()
options.log_severity_level = 4
options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
options.add_provider_for_devices(devices[:1], {{"backend_path": {library!r}}})
session = ort.InferenceSession({model!r}, options)
nodes = [part.ep_name for part in session.get_provider_graph_assignment_info() for node in part.get_nodes()]
y = session.run(None, {{"x": np.ones(4, np.float32)}})[0].tolist()
print(json.dumps({{"listed": session.get_providers(), "nodes": sorted(set(nodes)), "y": y}}))
"""


def doubling() -> bytes:
    """y = x + x, of 4 values."""
    nodes = [helper.make_node("Add", ["x", "x"], ["y"])]
    sides = [value(name, TensorProto.FLOAT, [4]) for name in "xy"]
    return model_of(nodes, sides[:1], sides[1:]).SerializeToString()


def alone(python: str, model: Path, library: str) -> str:
    """What ONNX Runtime by itself says, and does."""
    program = _ALONE.format(library=library, model=str(model))
    done = subprocess.run([python, "-c", program], capture_output=True, text=True, timeout=120)
    if done.returncode:
        return f"fails: {(done.stderr.strip().splitlines() or ['no word'])[-1]}"
    said = json.loads(done.stdout.splitlines()[-1])
    return f"lists {said['listed']}, its nodes are on {said['nodes']}, and answers {said['y'][0]}"


def stub(folder: Path) -> str | None:
    """Path of the compiled stub; None: there is no compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    folder.mkdir()
    library = folder / "libQnnHtp.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", str(library)], input=STUB.encode(), check=True)
    return str(library)


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    try:
        python = str(runtimes.interpreter("qnn"))
    except runtimes.Missing as missing:
        not_here(f"the environment qnn: {missing}")
    verdict = Verdict("a provider that is listed first while the CPU computes")
    with scratch() as folder:
        (folder / "model.onnx").write_bytes(doubling())
        traps = {"missing": str(folder / "missing" / "libQnnHtp.so")}
        compiled = stub(folder / "stub")
        if compiled is None:
            print("  there is no C compiler for the stub: that part is left out")
        else:
            traps["stub"] = compiled
        for name, library in traps.items():
            verdict.control(f"onnxruntime alone, library {name}: {alone(python, folder / 'model.onnx', library)}")
        workers: list[dict[str, Any]] = [
            {"name": name, "backend": "qnn", "python": python, "options": {"backendPath": library}}
            for name, library in traps.items()
        ]
        workers.append({"name": "right", "backend": "qnn", "python": python})
        try:
            vino = {"backend": "openvino", "python": str(runtimes.interpreter("openvino"))}
            workers.append({"name": "gpu", **vino, "options": {"device": "GPU", "devRoot": str(folder)}})
            traps["gpu"] = "no device"
        except runtimes.Missing as missing:
            print(f"  the environment openvino: {missing}: that part is left out")
        with Gateway(folder, {"workers": workers}) as gateway:
            for name in traps:
                trapped(verdict, gateway, name)
            path = manifest(folder, "right", "1", doubling(), "targets: [right, cpu]")
            gateway.run("apply", "-f", path, "--wait")
            found = settled(gateway, "right", "right")
            verdict.check(found["state"] == "ready", f"with Qualcomm's own library: {found['provenance']}")
    verdict.end()


def trapped(verdict: Verdict, gateway: Gateway, name: str) -> None:
    """One worker that must never be ready, and the CPU behind it."""
    path = manifest(gateway.folder, name, "1", doubling(), f"targets: [{name}, cpu]")
    applied = gateway.run("apply", "-f", path, "--wait")
    target = settled(gateway, name, name)
    with Client(gateway.unix) as client:
        answers = [client.infer(name, {"x": np.full(4, n, np.float32)}) for n in range(CALLS)]
    right = sum(answer["y"].tolist() == [2.0 * n] * 4 for n, answer in enumerate(answers))
    by = {answer.served_by for answer in answers}
    verdict.check(
        applied.returncode == 0 and target["state"] == "lost" and bool(target["reason"]),
        f"{name}: {target['state']}: {target['reason']}",
    )
    verdict.check(right == CALLS and by == {"cpu"}, f"{name}: {right} of {CALLS} answers right, by {', '.join(by)}")


def settled(gateway: Gateway, name: str, worker: str) -> dict[str, Any]:
    """The target, once it is ready or lost."""

    def look() -> Any:
        found = [target for target in gateway.get("targets", name) if target["worker"] == worker]
        return found and found[0]["state"] in ("ready", "lost") and found[0]

    return dict(wait_for(look, 60, f"{name} on {worker}"))


if __name__ == "__main__":
    main()
