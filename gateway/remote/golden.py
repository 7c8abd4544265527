"""Golden samples, asked of a remote model: read and compared without numpy, which the gateway does not import.

For the few samples that a gate has. What is larger, or has elements of other kinds, can't be checked, which is said.
"""

from __future__ import annotations

import ast
import io
import math
import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeway.datatypes import BY_NAME
from gateway.target import Golden

MAX_BYTES = 16 << 20
"""Uncompressed bytes of a file of samples: Python compares some million elements a second."""
RTOL, ATOL = 1e-2, 1e-3
TOP1, COSINE = 0.98, 0.99
"""What is asked where the manifest does not say: of floats the first two, of quantised outputs the others."""
_MAGIC = b"\x93NUMPY"
_DATATYPES = {
    "<f4": "FP32", "<f8": "FP64", "<f2": "FP16", "|b1": "BOOL", "|i1": "INT8", "|u1": "UINT8",
    "<i2": "INT16", "<u2": "UINT16", "<i4": "INT32", "<u4": "UINT32", "<i8": "INT64", "<u8": "UINT64",
}  # fmt: skip
_CODES = {
    "FP32": "f", "FP64": "d", "FP16": "e", "BOOL": "B", "INT8": "b", "UINT8": "B",
    "INT16": "h", "UINT16": "H", "INT32": "i", "UINT32": "I", "INT64": "q", "UINT64": "Q",
}  # fmt: skip
_BROKEN = (ValueError, SyntaxError, EOFError, OSError, RuntimeError, KeyError, zipfile.BadZipFile, zlib.error)


class Unusable(Exception):
    """The samples can't be asked of a remote model."""


class Disagrees(Exception):
    """The remote model does not answer as it should."""


@dataclass(frozen=True, slots=True)
class Samples:
    """One array: the samples along its first axis."""

    datatype: str
    shape: tuple[int, ...]
    """Of one sample."""
    count: int
    content: memoryview

    def sample(self, index: int) -> memoryview:
        size = BY_NAME[self.datatype].itemsize * math.prod(self.shape)
        return self.content[index * size : (index + 1) * size]


def read_samples(path: str) -> dict[str, Samples]:
    """The arrays of an ``.npz`` file, by name. Nothing in it is run. Raises Unusable."""
    try:
        with zipfile.ZipFile(io.BytesIO(Path(path).read_bytes())) as archive:
            total = sum(member.file_size for member in archive.infolist())
            if total > MAX_BYTES:
                raise Unusable(f"golden samples: {total} bytes, a remote target is asked {MAX_BYTES} at most")
            found = {m.filename.removesuffix(".npy"): _array(archive.read(m)) for m in archive.infolist()}
    except _BROKEN as broken:
        raise Unusable(f"golden samples: not an .npz file of plain numbers: {broken}") from broken
    if len({each.count for each in found.values()}) != 1:
        raise Unusable("golden samples: all arrays need the same first axis, the samples")
    return found


def _array(content: bytes) -> Samples:
    if not content.startswith(_MAGIC):
        raise ValueError("not an array")
    wide = content[6] > 1
    start = 12 if wide else 10
    end = start + int.from_bytes(content[8:start], "little")
    header = ast.literal_eval(content[start:end].decode("latin-1").strip())
    shape = tuple(header["shape"])
    if header["fortran_order"] and len(shape) > 1:
        raise ValueError("an array in Fortran's order")
    datatype = _DATATYPES.get(header["descr"])
    if datatype is None or not shape:
        raise ValueError(f"an array of {header['descr']!r} and shape {list(shape)}")
    if len(content) - end != BY_NAME[datatype].itemsize * math.prod(shape):
        raise ValueError("an array that is cut off")
    return Samples(datatype, shape[1:], shape[0], memoryview(content)[end:])


def numbers(datatype: str, content: memoryview) -> list[float]:
    """Elements as floats. Raises Unusable."""
    code = _CODES.get(datatype)
    if code is None:
        raise Unusable(f"golden samples: {datatype} can't be compared here")
    count = content.nbytes // BY_NAME[datatype].itemsize
    return [float(each) for each in struct.unpack(f"<{count}{code}", content)]


@dataclass(slots=True)
class Comparison:
    """What the samples so far have shown."""

    rule: Golden
    quantised: bool
    """Some output is of 8 bits: the manifest's silence means another rule."""
    classified: int = 0
    wrong: int = 0
    first_wrong: str = ""

    def compare(self, where: str, got: Sequence[float], right: Sequence[float], classes: int) -> None:
        """Raises Disagrees. ``classes``: length of the last axis."""
        rule = self.rule
        unsaid = rule.tolerance is None and rule.top1 is None and rule.cosine is None
        tolerance = rule.tolerance or ((RTOL, ATOL) if unsaid and not self.quantised else None)
        cosine = rule.cosine or (COSINE if unsaid and self.quantised else None)
        if len(got) != len(right):
            raise Disagrees(f"{where} has {len(got)} elements, golden {len(right)}")
        if tolerance is not None:
            _within(where, got, right, *tolerance)
        if cosine is not None:
            found = _cosine(got, right)
            if not found >= cosine:
                raise Disagrees(f"{where} has a cosine of {found:.4f} to golden, allowed {cosine:g}")
        if (rule.top1 is not None or (unsaid and self.quantised)) and classes > 1:
            self.classified += 1
            rows = range(0, len(right), classes)
            if any(_largest(got[r : r + classes]) != _largest(right[r : r + classes]) for r in rows):
                self.wrong += 1
                self.first_wrong = self.first_wrong or f"{where} has its largest value elsewhere"

    def end(self) -> None:
        """Raises Disagrees."""
        top1 = self.rule.top1 or TOP1
        if self.classified and 1 - self.wrong / self.classified < top1:
            raise Disagrees(f"{self.first_wrong}: {self.wrong} of {self.classified} samples, allowed {1 - top1:.0%}")


def _within(where: str, got: Sequence[float], right: Sequence[float], rtol: float, atol: float) -> None:
    for index, (value, golden) in enumerate(zip(got, right, strict=True)):
        if value == golden or (math.isnan(value) and math.isnan(golden)):
            continue
        allowed = atol + rtol * abs(golden)
        if not abs(value - golden) <= allowed:
            raise Disagrees(
                f"{where}[{index}] is {value:.6g}, golden {golden:.6g}: "
                f"off by {abs(value - golden):.2g}, allowed {allowed:.2g}"
            )


def _cosine(got: Sequence[float], right: Sequence[float]) -> float:
    size = math.sqrt(math.fsum(a * a for a in got)) * math.sqrt(math.fsum(b * b for b in right))
    if not size:
        return 1.0 if list(got) == list(right) else 0.0
    return math.fsum(a * b for a, b in zip(got, right, strict=True)) / size


def _largest(row: Sequence[float]) -> int:
    return max(range(len(row)), key=row.__getitem__)
