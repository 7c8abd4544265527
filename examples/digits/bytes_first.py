"""Make of a digits model one that also Qualcomm's plug-in reads rightly.

    python bytes_first.py models/digits-1.0.onnx digits-1.0-qnn.onnx

onnxruntime-qnn 2.7.0 takes UINT8 for truth values where a graph casts it, so the cast to 1.0 or 0.0 loses the frame.
Said as a quantised tensor of scale 1 the same bytes arrive whole; the graph means the same, to the bit on the CPU.
"""

from __future__ import annotations

import sys

import numpy as np
import onnx
from onnx import helper, numpy_helper


def bytes_first(model: onnx.ModelProto) -> onnx.ModelProto:
    """In place of slicing the frame and casting what is left, its values are taken first, and sliced then."""
    graph = model.graph
    crop = next(node for node in graph.node if node.op_type == "Slice" and node.input[0] == "frame")
    cast = next(node for node in graph.node if node.op_type == "Cast" and node.input[0] == crop.output[0])
    graph.initializer.extend(
        [numpy_helper.from_array(np.float32(1), "one_step"), numpy_helper.from_array(np.uint8(0), "no_offset")]
    )
    values = helper.make_node("DequantizeLinear", ["frame", "one_step", "no_offset"], ["values"])
    crop.input[0], crop.output[0] = "values", cast.output[0]
    graph.node.remove(cast)
    graph.node.insert(0, values)
    del graph.value_info[:]
    return model


if __name__ == "__main__":
    onnx.save(bytes_first(onnx.load(sys.argv[1])), sys.argv[2])
