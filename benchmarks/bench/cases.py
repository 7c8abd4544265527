"""What is asked in the benchmarks: models, their inputs, and the messages that carry them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from benchmarks.harness import identity, model_of, slow_for, value
from edgeway.v1 import open_inference_pb2 as oip

PACED_SECONDS = 0.005
Layers = Sequence[tuple[int, int]]
"""Channels and stride of each convolution."""
_DTYPES: dict[str, type[np.generic]] = {"FP32": np.float32, "UINT8": np.uint8}


@dataclass(frozen=True)
class Case:
    """One model with one input, as every system under test serves it."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    input: str
    make: Callable[[], bytes]
    """The ONNX file."""

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape)) * np.dtype(_DTYPES[self.datatype]).itemsize

    def array(self) -> np.ndarray:
        """Values from 0 to 255, the same in every run."""
        drawn = np.random.default_rng(0).integers(0, 256, self.shape)
        return drawn.astype(_DTYPES[self.datatype])

    def message(self) -> bytes:
        """A ModelInferRequest with the tensor in it."""
        return message(self.name, self.input, self.array(), self.datatype)

    def region_message(self, region: str) -> bytes:
        """A ModelInferRequest whose tensor is the first ``nbytes`` of a registered region, in stock Triton's words."""
        request = oip.ModelInferRequest(model_name=self.name)
        request.inputs.add(name=self.input, datatype=self.datatype, shape=self.shape)
        parameters = request.inputs[0].parameters
        parameters["shared_memory_region"].string_param = region
        parameters["shared_memory_byte_size"].int64_param = self.nbytes
        return request.SerializeToString()


def message(model: str, name: str, array: np.ndarray, datatype: str) -> bytes:
    """A ModelInferRequest with one tensor in it."""
    request = oip.ModelInferRequest(model_name=model)
    request.inputs.add(name=name, datatype=datatype, shape=array.shape)
    request.raw_input_contents.append(array.tobytes())
    return request.SerializeToString()


def network(side: int, layers: Layers) -> bytes:
    """A model that takes an FP32 image [1, 3, side, side] and gives 1000 scores: 3 x 3 convolutions."""
    nodes, weights = convolutions("image", 3, layers)
    inputs = [value("image", TensorProto.FLOAT, [1, 3, side, side])]
    return model_of(nodes, inputs, [value("scores", TensorProto.FLOAT, [1, 1000])], weights).SerializeToString()


def camera() -> bytes:
    """A model that takes a UINT8 frame [480, 640, 3], scales it down and gives 1000 scores."""
    nodes = [
        helper.make_node("Cast", ["frame"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["real", "flat"], ["plane"]),
        helper.make_node("AveragePool", ["plane"], ["small"], kernel_shape=[4, 12], strides=[4, 12]),
    ]
    more, weights = convolutions("small", 1, [(16, 1), (24, 2), (24, 1)])
    weights.append(numpy_helper.from_array(np.array([1, 1, 480, 1920], np.int64), "flat"))
    inputs = [value("frame", TensorProto.UINT8, [480, 640, 3])]
    outputs = [value("scores", TensorProto.FLOAT, [1, 1000])]
    return model_of([*nodes, *more], inputs, outputs, weights).SerializeToString()


def convolutions(source: str, channels: int, layers: Layers) -> tuple[list[Any], list[Any]]:
    """Nodes and weights from ``source``, with so many channels, to ``scores``."""
    random = np.random.default_rng(1)
    nodes: list[Any] = []
    weights: list[Any] = []

    def weight(name: str, *shape: int) -> None:
        values = random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        weights.append(numpy_helper.from_array(values.astype(np.float32), name))

    for number, (wider, stride) in enumerate(layers):
        weight(f"w{number}", wider, channels, 3, 3)
        named = [source, f"w{number}"]
        nodes.append(helper.make_node("Conv", named, [f"c{number}"], strides=[stride] * 2, pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"c{number}"], [f"r{number}"]))
        source, channels = f"r{number}", wider
    weight("last", channels, 1000)
    nodes += [
        helper.make_node("GlobalAveragePool", [source], ["means"]),
        helper.make_node("Flatten", ["means"], ["row"]),
        helper.make_node("MatMul", ["row", "last"], ["scores"]),
    ]
    return nodes, weights


def pooled(side: int) -> bytes:
    """A model that reads each value of an FP32 image [1, 3, side, side] once, and gives 1000 scores."""
    weights = np.random.default_rng(1).random((3, 1000), np.float32)
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["means"]),
        helper.make_node("Flatten", ["means"], ["row"]),
        helper.make_node("MatMul", ["row", "weights"], ["scores"]),
    ]
    model = model_of(
        nodes,
        [value("image", TensorProto.FLOAT, [1, 3, side, side])],
        [value("scores", TensorProto.FLOAT, [1, 1000])],
        [numpy_helper.from_array(weights, "weights")],
    )
    return model.SerializeToString()


def brightest() -> bytes:
    """A model that reads each value of a UINT8 frame [480, 640, 3] once, and gives 1000 scores."""
    weights = np.random.default_rng(1).random((3, 1000), np.float32)
    nodes = [
        helper.make_node("ReduceMax", ["frame"], ["most"], axes=[0, 1], keepdims=0),
        helper.make_node("Cast", ["most"], ["row"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["row", "weights"], ["scores"]),
    ]
    model = model_of(
        nodes,
        [value("frame", TensorProto.UINT8, [480, 640, 3])],
        [value("scores", TensorProto.FLOAT, [1000])],
        [numpy_helper.from_array(weights, "weights")],
    )
    return model.SerializeToString()


def cornered() -> bytes:
    """A model that takes a 0.9 MB frame and looks at one value: what is left of a run is the way to it and back."""
    ints = [numpy_helper.from_array(np.full(3, number, np.int64), name) for number, name in ((0, "from"), (1, "to"))]
    nodes = [helper.make_node("Slice", ["frame", "from", "to"], ["corner"])]
    inputs, outputs = [value("frame", TensorProto.UINT8, [480, 640, 3])], [value("corner", TensorProto.UINT8, [1] * 3)]
    return model_of(nodes, inputs, outputs, ints).SerializeToString()


@cache
def paced() -> bytes:
    """A model of about 5 ms; made once a process, because making it means timing it."""
    return slow_for(PACED_SECONDS).SerializeToString()


SMALL = Case("small", "FP32", (16,), "x", lambda: identity(shape=[16]).SerializeToString())
FRAME = Case("frame", "UINT8", (480, 640, 3), "frame", camera)
IMAGE = Case("image", "FP32", (1, 3, 224, 224), "image", lambda: network(224, [(16, 1), (32, 2), (64, 2), (64, 1)]))
LARGE = Case("large", "FP32", (1, 3, 640, 640), "image", lambda: network(640, [(16, 4), (24, 2), (32, 1)]))
BARE_FRAME = Case("bare-frame", "UINT8", (480, 640, 3), "frame", brightest)
BARE_LARGE = Case("bare-large", "FP32", (1, 3, 640, 640), "image", lambda: pooled(640))
PACED = Case("paced", "FP32", (1,), "x", paced)
CORNER = Case("corner", "UINT8", (480, 640, 3), "frame", cornered)
SERVED = (SMALL, FRAME, IMAGE, LARGE, BARE_FRAME, BARE_LARGE, PACED)
