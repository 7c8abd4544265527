"""Tensors as numpy has them, and as their bytes travel; the datatypes themselves are in ``edgeway.datatypes``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeway.datatypes import BY_CODE, BY_NAME, DATATYPES, Datatype, count, decode_bytes, encode_bytes, nbytes

__all__ = [
    "BY_CODE",
    "BY_NAME",
    "DATATYPES",
    "Datatype",
    "count",
    "datatype_of",
    "decode_bytes",
    "encode_bytes",
    "nbytes",
    "to_array",
    "to_bytes",
]

_BY_NUMPY: dict[np.dtype, str] = {
    np.dtype(datatype.numpy): datatype.name
    for datatype in DATATYPES
    if datatype.numpy is not None and datatype.name != "BF16"
}


def datatype_of(array: np.ndarray) -> str:
    """Protocol datatype of an array: its dtype's, BYTES for objects and strings, BF16 for ml_dtypes' bfloat16.

    Raises:
        ValueError: the protocol has no such type.
    """
    if array.dtype.kind in "OSU":
        return "BYTES"
    name = _BY_NUMPY.get(array.dtype.newbyteorder("<"))
    if name is None and array.dtype.name == "bfloat16":
        return "BF16"
    if name is None:
        raise ValueError(f"the protocol has no datatype for numpy's {array.dtype}")
    return name


def to_bytes(array: np.ndarray) -> memoryview:
    """The array's bytes as they travel: a view where it is contiguous and little-endian, else a copy."""
    if array.dtype.kind in "OSU":
        return memoryview(encode_bytes(array.reshape(-1).tolist()))
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    if array.dtype.name == "bfloat16":
        array = array.view(np.dtype("<u2"))
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def to_array(datatype: str, shape: Sequence[int], data: memoryview) -> np.ndarray:
    """A view of the bytes as an array (BF16: of uint16); for BYTES a new array of bytes objects.

    Raises:
        ValueError: the bytes are not as many as datatype and shape need.
    """
    numpy = BY_NAME[datatype].numpy
    if numpy is None:
        elements = np.empty(count(shape), dtype=object)
        elements[:] = decode_bytes(data, count(shape))
        return elements.reshape(shape)
    if data.nbytes != nbytes(datatype, shape):
        raise ValueError(f"{datatype} of shape {list(shape)} needs {nbytes(datatype, shape)} bytes, got {data.nbytes}")
    if not data.nbytes:
        return np.empty(tuple(shape), dtype=numpy)  # numpy refuses an empty buffer
    return np.frombuffer(data, dtype=numpy).reshape(shape)
