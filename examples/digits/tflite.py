"""Write the digits classifier as .tflite files, from the ONNX files beside them: same inputs, same outputs.

    pip install onnx ai-edge-litert
    python examples/digits/tflite.py

1.0 is FP32. 1.1 is full INT8 between the camera's frame and the last average, with the ranges that the calibration of
the ONNX file found. No TensorFlow is needed: a .tflite file is a flatbuffer, and the graph is small.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE)]

from benchmarks.tflite_models import Graph  # noqa: E402 - in the checkout beside us

POOLED = (True, True, False, True, True)
ACTIVATIONS = ("pool0", "pool1", "relu2", "pool3", "")
"""Whose range each convolution's output has in the calibrated ONNX file, after its ReLU."""
SIZE, CROP, SMALL = (480, 640), (48, 128, 384), 192
SAME, VALID, RELU = 0, 1, 1
"""Numbers of the schema: padding, and a fused activation."""
CAMERA = 1 / 127.5
EVALUATED = 2000


def main() -> None:
    found = json.loads((HERE / "accuracy.json").read_text())
    for version, write in (("1.0", exact), ("1.1", quantised)):
        path = HERE / "models" / f"digits-{version}.tflite"
        path.write_bytes(write(weights_of(HERE / "models" / f"digits-{version}.onnx")))
        accuracy = evaluate(path)
        found[version]["tfliteAccuracy"] = round(accuracy, 4)
        print(f"{path.name}: accuracy {accuracy:.4f} on {EVALUATED} held-out frames, {path.stat().st_size} bytes")
    (HERE / "accuracy.json").write_text(json.dumps(found, indent=2) + "\n")


def weights_of(path: Path) -> dict[str, np.ndarray]:
    return {value.name: numpy_helper.to_array(value) for value in onnx.load(path).graph.initializer}


def exact(weights: dict[str, np.ndarray]) -> bytes:
    """The FP32 file."""
    graph = Graph()
    frame, x = image(graph)
    size = SMALL
    for index, pooled in enumerate(POOLED):
        kernel = weights[f"kernel{index}"].transpose(0, 2, 3, 1)  # out, height, width, in
        inputs = [
            x,
            graph.constant(f"kernel{index}", np.ascontiguousarray(kernel)),
            graph.constant(f"bias{index}", weights[f"bias{index}"]),
        ]
        x = graph.tensor(f"relu{index}", "FP32", [1, size, size, len(kernel)])
        convolve(graph, inputs, x)
        if pooled:
            size //= 2
            inputs, x = [x], graph.tensor(f"pool{index}", "FP32", [1, size, size, len(kernel)])
            pool(graph, inputs, x)
    return graph.model([frame], [head(graph, x, weights)], signature=True)


def quantised(weights: dict[str, np.ndarray]) -> bytes:
    """The INT8 file: integers of the ONNX file, whose activations are unsigned, as signed ones."""
    graph = Graph()
    frame, x = image(graph)
    scale, zero = float(weights["normal_scale"]), int(weights["normal_zero_point"]) - 128
    inputs, x = [x], graph.tensor("normal_int8", "INT8", [1, SMALL, SMALL, 1], [scale], [zero])
    graph.add("QUANTIZE", inputs, [x], kind="QuantizeOptions")
    size = SMALL
    for index, pooled in enumerate(POOLED):
        kernel, steps = weights[f"kernel{index}_quantized"].transpose(0, 2, 3, 1), weights[f"kernel{index}_scale"]
        sums = np.float32(scale) * steps  # real units per step of what the convolution adds up
        real = weights[f"bias{index}_quantized"] * weights[f"bias{index}_quantized_scale"]
        inputs = [
            x,
            graph.constant(f"kernel{index}", np.ascontiguousarray(kernel), steps.tolist()),
            graph.constant(f"bias{index}", np.round(real / sums).astype(np.int32), sums.tolist()),
        ]
        scale = float(weights[f"{ACTIVATIONS[index]}_scale"]) if ACTIVATIONS[index] else last_scale(weights)
        x = graph.tensor(f"relu{index}", "INT8", [1, size, size, len(kernel)], [scale], [-128])
        convolve(graph, inputs, x, version=3)
        if pooled:
            size //= 2
            inputs, x = [x], graph.tensor(f"pool{index}", "INT8", [1, size, size, len(kernel)], [scale], [-128])
            pool(graph, inputs, x, version=2)
    inputs, x = [x], graph.tensor("real", "FP32", [1, size, size, len(kernel)])
    graph.add("DEQUANTIZE", inputs, [x], version=2, kind="DequantizeOptions")
    return graph.model([frame], [head(graph, x, weights)], signature=True)


def last_scale(weights: dict[str, np.ndarray]) -> float:
    """Of the last convolution, whose range was calibrated before its ReLU: only what is above zero is left of it."""
    return float(weights["conv4_scale"]) * (255 - int(weights["conv4_zero_point"])) / 255


def image(graph: Graph) -> tuple[int, int]:
    """The frame, and what the first convolution sees of it. Grey, half the size and -1 to 1 are one convolution."""
    frame = graph.tensor("frame", "UINT8", [*SIZE, 3])
    top, left, side = CROP
    crop = graph.tensor("crop", "UINT8", [side, side, 3])
    begin, extent = np.array([top, left, 0], np.int32), np.array([side, side, 3], np.int32)
    graph.add(
        "SLICE",
        [frame, graph.constant("begin", begin), graph.constant("extent", extent)],
        [crop],
        version=2,
        kind="SliceOptions",
    )
    batch = graph.tensor("batch", "UINT8", [1, side, side, 3])
    shape = [1, side, side, 3]
    graph.add(
        "RESHAPE", [crop, graph.constant("shape", np.int32(shape))], [batch], kind="ReshapeOptions", newShape=shape
    )
    real = graph.tensor("colours", "FP32", shape)
    graph.add("CAST", [batch], [real], kind="CastOptions")
    grey = graph.tensor("normal", "FP32", [1, SMALL, SMALL, 1])
    kernel = np.full((1, 2, 2, 3), CAMERA / 12, np.float32)
    inputs = [real, graph.constant("mean", kernel), graph.constant("minus_one", np.float32([-1]))]
    graph.add("CONV_2D", inputs, [grey], kind="Conv2DOptions", padding=VALID, strideW=2, strideH=2)
    return frame, grey


def convolve(graph: Graph, inputs: list[int], output: int, version: int = 1) -> None:
    options = {"padding": SAME, "strideW": 1, "strideH": 1, "fusedActivationFunction": RELU}
    graph.add("CONV_2D", inputs, [output], version, kind="Conv2DOptions", **options)


def pool(graph: Graph, inputs: list[int], output: int, version: int = 1) -> None:
    options = {"padding": VALID, "strideW": 2, "strideH": 2, "filterWidth": 2, "filterHeight": 2}
    graph.add("MAX_POOL_2D", inputs, [output], version, kind="Pool2DOptions", **options)


def head(graph: Graph, x: int, weights: dict[str, np.ndarray]) -> int:
    """From the last features to the scores."""
    channels = weights["head"].shape[1]
    mean = graph.tensor("flat", "FP32", [1, channels])
    graph.add("MEAN", [x, graph.constant("axes", np.int32([1, 2]))], [mean], kind="ReducerOptions", keepDims=False)
    logits = graph.tensor("logits", "FP32", [1, 10])
    inputs = [mean, graph.constant("head", weights["head"]), graph.constant("head_bias", weights["head_bias"])]
    graph.add("FULLY_CONNECTED", inputs, [logits], kind="FullyConnectedOptions")
    softmax = graph.tensor("softmax", "FP32", [1, 10])
    graph.add("SOFTMAX", [logits], [softmax], kind="SoftmaxOptions", beta=1.0)
    scores = graph.tensor("scores", "FP32", [10])
    graph.add(
        "RESHAPE", [softmax, graph.constant("ten", np.int32([10]))], [scores], kind="ReshapeOptions", newShape=[10]
    )
    return scores


def evaluate(path: Path) -> float:
    from ai_edge_litert.interpreter import Interpreter

    from frames import Frames

    interpreter, frames, right = Interpreter(str(path)), Frames(3, "held-out"), 0
    interpreter.allocate_tensors()
    taken, given = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    for _ in range(EVALUATED):
        frame, label = frames.next()
        interpreter.set_tensor(taken, frame)
        interpreter.invoke()
        right += int(interpreter.get_tensor(given).argmax()) == label
    return right / EVALUATED


if __name__ == "__main__":
    main()
