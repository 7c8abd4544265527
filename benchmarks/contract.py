"""Models of the contract suite, by file format; and the suite for one backend that is not ours.

    python -m benchmarks.contract NAME [--python FILE] [--models FILE.py] [flags of pytest]

runs ``tests/backends/test_contract.py`` on the backend NAME of that interpreter. ``--models``: a file with a class
``Models`` that writes what the suite asks for (``FormatModels``) in the backend's own format.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from benchmarks import harness, tflite_models
from benchmarks.harness import model_of, value

ROOT = Path(__file__).resolve().parents[1]
CHOSEN = "EDGEWAY_CONTRACT"
"""Variable of the environment that names the one backend which the suite is for, as JSON."""


ONNX_TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
    "BF16": TensorProto.BFLOAT16,
}


class NotPossible(Exception):
    """This format can't say that; the message is why."""


class FormatModels(Protocol):
    """Writes models in one file format. Each method may raise NotPossible, and the suite skips what needs it."""

    suffix: str

    def identity(self, datatype: str, shape: Sequence[int]) -> bytes:
        """y = x; -1 in ``shape`` is any size."""
        ...

    def scaled(self, factor: float, open_sizes: bool) -> bytes:
        """y = factor * x, of FP32 and any rank. ``open_sizes``: whether the request may say how many."""
        ...

    def large(self, megabytes: int) -> bytes:
        """Any model with weights of that size."""
        ...

    def raising(self) -> tuple[bytes, list[np.ndarray]]:
        """A model that its runtime loads, and inputs of the right form on which a run fails."""
        ...

    def slow(self, seconds: float) -> bytes:
        """y = x of one FP32, after about so long on one core of this machine."""
        ...


class OnnxModels:
    """ONNX files."""

    suffix = ".onnx"

    def identity(self, datatype: str, shape: Sequence[int]) -> bytes:
        sizes = [size if size >= 0 else f"d{axis}" for axis, size in enumerate(shape)]
        return harness.identity(ONNX_TYPES[datatype], sizes).SerializeToString()

    def scaled(self, factor: float, open_sizes: bool) -> bytes:
        sizes: list[int | str] = ["n"] if open_sizes else [1, 64]
        weight = numpy_helper.from_array(np.float32([factor]), "factor")
        x, y = (value(name, TensorProto.FLOAT, sizes) for name in ("x", "y"))
        return model_of([helper.make_node("Mul", ["x", "factor"], ["y"])], [x], [y], [weight]).SerializeToString()

    def large(self, megabytes: int) -> bytes:
        values = np.random.default_rng(0).standard_normal((512, megabytes * 512)).astype(np.float32)
        x = value("x", TensorProto.FLOAT, [1, 512])
        y = value("y", TensorProto.FLOAT, [1, megabytes * 512])
        weight = numpy_helper.from_array(values, "w")
        return model_of([helper.make_node("MatMul", ["x", "w"], ["y"])], [x], [y], [weight]).SerializeToString()

    def raising(self) -> tuple[bytes, list[np.ndarray]]:
        inputs = [value("x", TensorProto.FLOAT, [2]), value("i", TensorProto.INT64, [1])]
        node = helper.make_node("Gather", ["x", "i"], ["y"])
        model = model_of([node], inputs, [value("y", TensorProto.FLOAT, [1])])
        return model.SerializeToString(), [np.zeros(2, np.float32), np.int64([99])]

    def slow(self, seconds: float) -> bytes:
        return harness.slow_for(seconds).SerializeToString()


class TfliteModels:
    """TensorFlow Lite files, written with the schema that comes with ai-edge-litert."""

    suffix = ".tflite"

    def __init__(self) -> None:
        """Raises NotPossible: the schema is not here."""
        if importlib.util.find_spec("ai_edge_litert") is None:
            raise NotPossible("ai-edge-litert is not installed beside the tests: nothing else writes .tflite files")

    def identity(self, datatype: str, shape: Sequence[int]) -> bytes:
        if 0 in shape:
            raise NotPossible("the factory writes no tensor that is always empty")
        return tflite_models.identity(datatype, shape)

    def scaled(self, factor: float, open_sizes: bool) -> bytes:
        del open_sizes  # these runtimes take both
        return tflite_models.scaled(factor)

    def large(self, megabytes: int) -> bytes:
        graph = tflite_models.Graph()
        x, y = graph.tensor("x", "FP32", [1, 512]), graph.tensor("y", "FP32", [1, megabytes * 512])
        values = np.random.default_rng(0).standard_normal((megabytes * 512, 512)).astype(np.float32)
        graph.add("FULLY_CONNECTED", [x, graph.constant("w", values), -1], [y], kind="FullyConnectedOptions")
        return graph.model([x], [y])

    def raising(self) -> tuple[bytes, list[np.ndarray]]:
        return tflite_models.gathering(), [np.zeros(2, np.float32), np.int32([99])]

    def slow(self, seconds: float) -> bytes:
        raise NotPossible("runs of this format can't be ended anywhere")


FORMATS: tuple[type[Any], ...] = (OnnxModels, TfliteModels)


def models_for(formats: Sequence[str], file: str = "") -> FormatModels:
    """What writes models that a backend of these formats loads; ``file``: where a format's own ``Models`` is.

    Raises:
        NotPossible: nothing does.
    """
    if file:
        spec = importlib.util.spec_from_file_location("contract_models", file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        made: FormatModels = module.Models()
        return made
    for format_ in FORMATS:
        if format_.suffix in formats:
            return format_()
    raise NotPossible(f"the suite has no models of the formats {', '.join(formats)}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backend")
    parser.add_argument("--python", default=sys.executable, help="interpreter in which the backend is installed")
    parser.add_argument("--models", default="", help="file with a class Models of the backend's format")
    parser.add_argument("--options", default="{}", help="the backend's options, as JSON")
    given, rest = parser.parse_known_args()  # what is left is for pytest
    chosen = {
        "backend": given.backend,
        "python": given.python,
        "models": str(Path(given.models).resolve()) if given.models else "",
        "options": json.loads(given.options),
    }
    command = [sys.executable, "-m", "pytest", "tests/backends/test_contract.py", *rest]
    environment = {**os.environ, CHOSEN: json.dumps(chosen)}
    return subprocess.run(command, cwd=ROOT, env=environment).returncode


if __name__ == "__main__":
    raise SystemExit(main())
