"""Datatypes of an ONNX model's inputs and outputs, as its file declares them: a builder may make others of them."""

from __future__ import annotations

from typing import Dict, Tuple

from edgeway.wire import read_varint
from workers.external import delimited

_DATATYPES = {
    1: "FP32",
    2: "UINT8",
    3: "INT8",
    4: "UINT16",
    5: "INT16",
    6: "INT32",
    7: "INT64",
    8: "BYTES",
    9: "BOOL",
    10: "FP16",
    11: "FP64",
    12: "UINT32",
    13: "UINT64",
    16: "BF16",
}
"""TensorProto.DataType of onnx.proto3 -> the protocol's."""
_GRAPH, _INPUT, _OUTPUT = 7, 11, 12
_NAME, _TYPE, _TENSOR, _ELEMENT = 1, 2, 1, 1


def declared_datatypes(content: bytes) -> Dict[str, str]:
    """By name of the input or output; ``""``: none that the protocol knows.

    Raises:
        ValueError: the bytes are no message.
    """
    found: Dict[str, str] = {}
    for field, start, stop in delimited(content, 0, len(content)):
        if field != _GRAPH:
            continue
        for inner, begin, end in delimited(content, start, stop):
            if inner in (_INPUT, _OUTPUT):
                name, number = _side(content, begin, end)
                found[name] = _DATATYPES.get(number, "")
    return found


def _side(content: bytes, begin: int, end: int) -> Tuple[str, int]:
    """Name and number of the datatype of a ValueInfoProto; 0: it is no tensor."""
    name, number = "", 0
    for field, start, stop in delimited(content, begin, end):
        if field == _NAME:
            name = content[start:stop].decode("utf-8", "replace")
        elif field == _TYPE:
            for kind, inner, outer in delimited(content, start, stop):
                number = _element(content, inner, outer) if kind == _TENSOR else number
    return name, number


def _element(content: bytes, begin: int, end: int) -> int:
    """``elem_type`` of a TypeProto.Tensor, which every writer puts first."""
    tag, at = read_varint(content, begin, end)
    return read_varint(content, at, end)[0] if tag == _ELEMENT << 3 else 0
