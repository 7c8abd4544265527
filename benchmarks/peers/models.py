"""The models that every server gets, made here, and what they answer."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from benchmarks.harness import identity, model_of, value

VISION_SECONDS = 0.009
"""Of one run of the CNN on one thread of this machine."""
CHANNELS = 32
TRIES = 4
SMALL = (1, 16)
FRAME = (480, 640, 3)
BIG = (1, 3, 640, 640)
VISION = (1, 3, 224, 224)
DATATYPES = {"FP32": np.float32, "UINT8": np.uint8}
TYPES = {"FP32": TensorProto.FLOAT, "UINT8": TensorProto.UINT8}


@dataclass(frozen=True)
class Spec:
    """Input ``x`` and output ``y`` of a model."""

    datatype: str
    shape: tuple[int, ...]
    answer: tuple[int, ...]
    """Shape of ``y``, which is FP32 in all of them."""

    def tensor(self) -> np.ndarray:
        """The input of every request; the same in every process."""
        chance = np.random.default_rng(7)
        if self.datatype == "UINT8":
            return chance.integers(0, 256, self.shape).astype(np.uint8)
        return chance.standard_normal(self.shape, np.float32)


SPECS: Mapping[str, Spec] = {
    "identity_small": Spec("FP32", SMALL, SMALL),
    "camera_u8": Spec("UINT8", FRAME, (FRAME[2],)),
    "big_io": Spec("FP32", BIG, BIG),
    "vision_224": Spec("FP32", VISION, (1, 10)),
}


def session(content: bytes) -> ort.InferenceSession:
    """As every server runs it: one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def camera() -> onnx.ModelProto:
    """Mean colour of every 4th pixel of every 4th line: little work on a whole frame, about 0.2 ms."""
    weights = [
        numpy_helper.from_array(np.array(numbers, np.int64), name)
        for name, numbers in (("zero", [0, 0]), ("end", FRAME[:2]), ("both", [0, 1]), ("step", [4, 4]))
    ]
    nodes = [
        helper.make_node("Slice", ["x", "zero", "end", "both", "step"], ["thin"]),
        helper.make_node("Cast", ["thin"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["real"], ["y"], axes=[0, 1], keepdims=0),
    ]
    return model_of(nodes, [value("x", TensorProto.UINT8, FRAME)], [value("y", TensorProto.FLOAT, [FRAME[2]])], weights)


def vision(layers: int) -> onnx.ModelProto:
    """A CNN: two convolutions of stride 2, then ``layers`` of 3x3 on 56x56, mean, and ten scores."""
    chance = np.random.default_rng(3)
    weights, nodes, last = [], [], "x"
    for number in range(layers + 2):
        inward = VISION[1] if number == 0 else CHANNELS
        kernel = chance.standard_normal((CHANNELS, inward, 3, 3), np.float32) * math.sqrt(2 / (inward * 9))
        weights.append(numpy_helper.from_array(kernel.astype(np.float32), f"w{number}"))
        stride = 2 if number < 2 else 1
        nodes.append(
            helper.make_node(
                "Conv", [last, f"w{number}"], [f"c{number}"], kernel_shape=[3, 3], pads=[1] * 4, strides=[stride] * 2
            )
        )
        nodes.append(helper.make_node("Relu", [f"c{number}"], [f"r{number}"]))
        last = f"r{number}"
    dense = chance.standard_normal((CHANNELS, 10), np.float32)
    weights.append(numpy_helper.from_array(dense, "dense"))
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "dense"], ["y"]),
    ]
    return model_of(nodes, [value("x", TensorProto.FLOAT, VISION)], [value("y", TensorProto.FLOAT, [1, 10])], weights)


def seconds_of(model: onnx.ModelProto, spec: Spec, runs: int = 15) -> float:
    """Of a run on this thread, the median; its processor time, so that what others do on this machine counts less."""
    ready, feed, took = session(model.SerializeToString()), {"x": spec.tensor()}, []
    for number in range(runs + 1):
        began = time.thread_time()
        ready.run(None, feed)
        if number:  # the first one allocates
            took.append(time.thread_time() - began)
    return statistics.median(took)


def calibrated(seconds: float = VISION_SECONDS) -> onnx.ModelProto:
    """The CNN of as many layers as take about so long on one thread here: the closest of a few tries."""
    layers, found = 12, []
    for _ in range(TRIES):
        took = seconds_of(vision(layers), SPECS["vision_224"])
        found.append((abs(took - seconds), layers))
        layers = max(1, round(layers * seconds / took))
    return vision(min(found)[1])


def write(folder: Path) -> float:
    """``NAME.onnx`` and what it answers, ``NAME.npy``, for every model; seconds that the CNN takes."""
    cnn = calibrated()
    made = {
        "identity_small": identity(shape=SMALL),
        "camera_u8": camera(),
        "big_io": identity(shape=BIG),
        "vision_224": cnn,
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, model in made.items():
        content = model.SerializeToString()
        (folder / f"{name}.onnx").write_bytes(content)
        (answer,) = session(content).run(None, {"x": SPECS[name].tensor()})
        np.save(folder / f"{name}.npy", answer)
    return seconds_of(cnn, SPECS["vision_224"])
