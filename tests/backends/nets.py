"""Small graphs that accelerators take, or do not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.harness import model_of, value

SIDE = 16


def net(batch: int | str = 1, *, seed: int = 0, then_nonzero: bool = False) -> onnx.ModelProto:
    """Two convolutions and a linear layer: 7 nodes, ``x`` (batch, 3, 16, 16) to ``y`` (batch, 10).

    ``then_nonzero``: and an output ``z`` whose shape the values decide.
    """
    draw = np.random.default_rng(seed)
    nodes, weights, last, channels = [], [], "x", 3
    for layer, width in enumerate((8, 16)):
        kernel = draw.standard_normal((width, channels, 3, 3)).astype(np.float32) / np.sqrt(9 * channels)
        weights.append(numpy_helper.from_array(kernel.astype(np.float32), f"kernel{layer}"))
        conv = helper.make_node("Conv", [last, f"kernel{layer}"], [f"conv{layer}"], pads=[1] * 4, strides=[2, 2])
        nodes += [conv, helper.make_node("Relu", [f"conv{layer}"], [f"relu{layer}"])]
        last, channels = f"relu{layer}", width
    weights.append(numpy_helper.from_array(draw.standard_normal((16, 10)).astype(np.float32), "head"))
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "head"], ["y"]),
    ]
    outputs = [value("y", TensorProto.FLOAT, [batch, 10])]
    if then_nonzero:
        nodes.append(helper.make_node("NonZero", ["y"], ["z"]))
        outputs.append(value("z", TensorProto.INT64, [2, "k"]))
    return model_of(nodes, [value("x", TensorProto.FLOAT, [batch, 3, SIDE, SIDE])], outputs, weights)


def of_bytes() -> onnx.ModelProto:
    """The real values of 4 bytes."""
    nodes = [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)]
    return model_of(nodes, [value("x", TensorProto.UINT8, [4])], [value("y", TensorProto.FLOAT, [4])])


def frames(count: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((count, 3, SIDE, SIDE)).astype(np.float32)


def quantised(folder: Path) -> bytes:
    """``net()`` with its quantization inside: INT8 weights, UINT8 activations."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Samples(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = [{"x": frame[None]} for frame in frames(8)]

        def get_next(self) -> Mapping[str, np.ndarray] | None:
            return self.left.pop() if self.left else None

    before, after = folder / "before.onnx", folder / "after.onnx"
    onnx.save(net(), before)
    quantize_static(
        before,
        after,
        Samples(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return after.read_bytes()
