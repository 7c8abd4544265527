"""Tiny .tflite models, written without TensorFlow: the schema's own classes come with ai-edge-litert."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

TYPES = {
    "BOOL": "BOOL",
    "UINT8": "UINT8",
    "UINT16": "UINT16",
    "UINT32": "UINT32",
    "UINT64": "UINT64",
    "INT8": "INT8",
    "INT16": "INT16",
    "INT32": "INT32",
    "INT64": "INT64",
    "FP16": "FLOAT16",
    "FP32": "FLOAT32",
    "FP64": "FLOAT64",
    "BYTES": "STRING",
    "BF16": "BFLOAT16",
}
"""Datatype of the protocol -> name in the schema."""

_DTYPES = {
    np.dtype(t): n for t, n in ((np.float32, "FP32"), (np.int32, "INT32"), (np.int8, "INT8"), (np.uint8, "UINT8"))
}
VERSION = 3
"""Of the schema: the only one that runtimes take."""


class Graph:
    """One subgraph in the making. Tensors are numbers, as the schema has them."""

    def __init__(self) -> None:
        """Raises ImportError: ai-edge-litert is not installed."""
        from ai_edge_litert import schema_py_generated as schema  # here: whoever lacks it can still import this module

        self.schema = schema
        self._graph, self._once = (
            schema.SubGraphT(tensors=[], inputs=[], outputs=[], operators=[], name=name) for name in ("main", "once")
        )
        self._buffers = [schema.BufferT()]  # number 0 is that of tensors without values
        self._codes: dict[str, int] = {}

    def tensor(
        self,
        name: str,
        datatype: str,
        shape: Sequence[int],
        scale: Sequence[float] = (),
        zero_point: Sequence[int] = (),
        axis: int = 0,
    ) -> int:
        """A tensor without values; -1 is any size. ``scale`` and ``zero_point``: of a quantised one, along ``axis``."""
        made = self.schema.TensorT(
            shape=[max(1, size) for size in shape],
            shapeSignature=list(shape) if min(shape, default=0) < 0 else None,
            type=getattr(self.schema.TensorType, TYPES[datatype]),
            name=name,
            hasRank=True,
        )
        if scale:
            made.quantization = self.schema.QuantizationParametersT(
                scale=list(scale), zeroPoint=list(zero_point or [0] * len(scale)), quantizedDimension=axis
            )
        self._graph.tensors.append(made)
        return len(self._graph.tensors) - 1

    def constant(self, name: str, values: np.ndarray, scale: Sequence[float] = (), axis: int = 0) -> int:
        """A tensor with values."""
        number = self.tensor(name, _DTYPES[values.dtype], values.shape, scale, axis=axis)
        self._graph.tensors[number].buffer = len(self._buffers)
        self._buffers.append(self.schema.BufferT(data=np.frombuffer(values.tobytes(), np.uint8)))
        return number

    def variable(self, name: str, initial: np.ndarray) -> int:
        """What is kept from run to run; a handle for READ_VARIABLE and ASSIGN_VARIABLE. One per graph."""
        graph = self._graph
        handle = self._handle(name)
        self.add("CALL_ONCE", [], [], kind="CallOnceOptions", initSubgraphIndex=1)
        self.add("VAR_HANDLE", [], [handle], kind="VarHandleOptions", sharedName=name)
        self._graph = self._once
        first, value = self._handle(name), self.constant("initial", initial)
        self.add("VAR_HANDLE", [], [first], kind="VarHandleOptions", sharedName=name)
        self.add("ASSIGN_VARIABLE", [first, value], [], kind="AssignVariableOptions")
        self._graph = graph
        return handle

    def _handle(self, name: str) -> int:
        number = self.tensor(name, "INT32", [])
        self._graph.tensors[number].type = self.schema.TensorType.RESOURCE
        return number

    def add(
        self, operator: str, inputs: Sequence[int], outputs: Sequence[int], version: int = 1, **options: Any
    ) -> None:
        """An operation, named as in the schema (``CONV_2D``); any other name is a custom one.

        ``options``: fields of its options, and ``kind``: the name of their table, where it has any.
        """
        schema = self.schema
        made = schema.OperatorT(inputs=list(inputs), outputs=list(outputs))
        made.opcodeIndex = self._codes.setdefault(f"{operator} {version}", len(self._codes))
        kind = options.pop("kind", "")
        if kind:
            made.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
            made.builtinOptions = getattr(schema, f"{kind}T")(**options)
        self._graph.operators.append(made)

    def model(self, inputs: Sequence[int], outputs: Sequence[int], signature: bool = False) -> bytes:
        """The file. ``signature``: with one, of the tensors' names."""
        import flatbuffers

        schema, graph = self.schema, self._graph
        subgraphs = [graph, self._once] if self._once.operators else [graph]
        graph.inputs, graph.outputs = list(inputs), list(outputs)
        made = schema.ModelT(version=VERSION, subgraphs=subgraphs, buffers=self._buffers, description="edgeway")
        made.operatorCodes = [_code(schema, *key.split()) for key in self._codes]
        if signature:
            maps = [
                [schema.TensorMapT(name=graph.tensors[number].name, tensorIndex=number) for number in side]
                for side in (inputs, outputs)
            ]
            made.signatureDefs = [schema.SignatureDefT(inputs=maps[0], outputs=maps[1], signatureKey="serving_default")]
        builder = flatbuffers.Builder(1024)
        builder.Finish(made.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def _code(schema: Any, operator: str, version: str) -> Any:
    number = getattr(schema.BuiltinOperator, operator, None)
    if number is None:
        return schema.OperatorCodeT(
            builtinCode=schema.BuiltinOperator.CUSTOM,
            deprecatedBuiltinCode=schema.BuiltinOperator.CUSTOM,
            customCode=operator,
            version=int(version),
        )
    return schema.OperatorCodeT(builtinCode=number, deprecatedBuiltinCode=min(number, 127), version=int(version))


def identity(datatype: str = "FP32", shape: Sequence[int] = (-1,), scale: Sequence[float] = (), zero: int = 0) -> bytes:
    """y = x. ``datatype``: the protocol's; -1 in ``shape``: any size. Quantised where there is a ``scale``."""
    graph = Graph()
    zeros = [zero] * len(scale)
    x, y = (graph.tensor(name, datatype, shape, scale, zeros) for name in ("x", "y"))
    if not shape:
        graph.add("RESHAPE", [x], [y], kind="ReshapeOptions", newShape=[])
        return graph.model([x], [y])
    begin = graph.constant("begin", np.zeros(len(shape), np.int32))
    size = graph.constant("size", np.full(len(shape), -1, np.int32))
    graph.add("SLICE", [x, begin, size], [y], kind="SliceOptions")
    return graph.model([x], [y])


def scaled(factor: float) -> bytes:
    """y = factor * x, FP32 of any size."""
    graph = Graph()
    x, y = (graph.tensor(name, "FP32", [-1]) for name in ("x", "y"))
    graph.add("MUL", [x, graph.constant("factor", np.float32([factor]))], [y], kind="MulOptions")
    return graph.model([x], [y])


def gathering() -> bytes:
    """y = x[i] with FP32 ``x`` of 2 elements: an INT32 index that is out of range makes the runtime raise."""
    graph = Graph()
    x, y = graph.tensor("x", "FP32", [2]), graph.tensor("y", "FP32", [1])
    index = graph.tensor("i", "INT32", [1])
    graph.add("GATHER", [x, index], [y], kind="GatherOptions", axis=0)
    return graph.model([x, index], [y])


def nonzero() -> bytes:
    """y = the places where BOOL ``x`` is true: their number follows from the values."""
    graph = Graph()
    x, y = graph.tensor("x", "BOOL", [-1]), graph.tensor("y", "INT64", [-1, 1])
    graph.add("WHERE", [x], [y], kind="WhereOptions")
    return graph.model([x], [y])


def compiled() -> bytes:
    """As the Edge TPU's compiler leaves a model: its own operation, between UINT8 [1, 4] and UINT8 [1, 2], and one for
    the CPU behind it. There are no instructions in it, so no real device would take it.
    """
    graph = Graph()
    x = graph.tensor("x", "UINT8", [1, 4], [0.5], [128])
    found = graph.tensor("found", "UINT8", [1, 2], [0.25], [0])
    real = graph.tensor("y", "FP32", [1, 2])
    graph.add("edgetpu-custom-op", [x], [found])
    graph.add("DEQUANTIZE", [found], [real], kind="DequantizeOptions")
    return graph.model([x], [real])


def counting() -> bytes:
    """y = how often it was run, as FP32 [1]: what is left from run to run. ``x`` of one FP32 is not looked at."""
    graph = Graph()
    x, y = graph.tensor("x", "FP32", [1]), graph.tensor("y", "FP32", [1])
    handle = graph.variable("count", np.float32([0]))
    before = graph.tensor("before", "FP32", [1])
    graph.add("READ_VARIABLE", [handle], [before], kind="ReadVariableOptions")
    zero, one = graph.constant("zero", np.float32([0])), graph.constant("one", np.float32([1]))
    nothing = graph.tensor("nothing", "FP32", [1])
    graph.add("MUL", [x, zero], [nothing], kind="MulOptions")
    more = graph.tensor("more", "FP32", [1])
    graph.add("ADD", [before, one], [more], kind="AddOptions")
    graph.add("ADD", [more, nothing], [y], kind="AddOptions")
    graph.add("ASSIGN_VARIABLE", [handle, y], [], kind="AssignVariableOptions")
    return graph.model([x], [y])
