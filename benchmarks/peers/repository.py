"""The folders that the servers read their models from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from benchmarks.peers.models import SPECS

SERVING = Path(__file__).parent / "serving"


def edgeway(models: Path, folder: Path) -> Path:
    """``NAME/1/model.onnx``."""
    for name in SPECS:
        version = folder / name / "1"
        version.mkdir(parents=True)
        shutil.copy(models / f"{name}.onnx", version / "model.onnx")
    return folder


def triton(models: Path, folder: Path) -> Path:
    """The same with ``config.pbtxt`` and, for the Python backend, ``model.py``: one instance on the CPU each."""
    edgeway(models, folder)
    for name, spec in SPECS.items():
        shutil.copy(SERVING / "triton_model.py", folder / name / "1" / "model.py")
        (folder / name / "config.pbtxt").write_text(
            f'name: "{name}"\n'
            'backend: "python"\n'
            "max_batch_size: 0\n"
            f'input [{{ name: "x" data_type: TYPE_{spec.datatype} dims: {list(spec.shape)} }}]\n'
            f'output [{{ name: "y" data_type: TYPE_FP32 dims: {list(spec.answer)} }}]\n'
            "instance_group [{ kind: KIND_CPU count: 1 }]\n"
        )
    return folder


def mlserver(models: Path, folder: Path, grpc_port: int, http_port: int, metrics_port: int) -> Path:
    """``settings.json`` without worker processes, the custom runtime, and one folder per model."""
    folder.mkdir(parents=True)
    settings = {
        "debug": False,
        "parallel_workers": 0,
        "host": "127.0.0.1",
        "grpc_port": grpc_port,
        "http_port": http_port,
        "metrics_port": metrics_port,
        "grpc_max_message_length": 128 << 20,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    shutil.copy(SERVING / "mlserver_runtime.py", folder)
    for name in SPECS:
        (folder / name).mkdir()
        shutil.copy(models / f"{name}.onnx", folder / name / "model.onnx")
        model = {
            "name": name,
            "implementation": "mlserver_runtime.OnnxRuntime",
            "parameters": {"uri": str(folder / name / "model.onnx")},
        }
        (folder / name / "model-settings.json").write_text(json.dumps(model))
    return folder
