"""Golden samples: a model answers inputs whose right answers are known, before it answers anybody else."""

from __future__ import annotations

import io
import time
import zipfile
import zlib
from dataclasses import dataclass
from typing import Callable, Dict, List, Optional, Sequence, Set, Tuple

import numpy as np

from edgeway.tensors import datatype_of, to_array, to_bytes
from workers.backend import BackendError, DeviceFault, Model, Tensor, TensorSpec
from workers.external import contains
from workers.loaded import NeverCancelled
from workers.tflite_file import computes_in_eight_bits, is_tflite

MAX_BYTES = 256 << 20
"""Uncompressed bytes of a file of samples, at most."""
LIMIT_SECONDS = 120.0
"""The whole check has this long: beyond 300 s a load counts as hung."""
RTOL, ATOL = 1e-2, 1e-3
TOP1, COSINE = 0.98, 0.99
"""What is asked of a file whose manifest does not say."""
_QUANTISED = (b"QuantizeLinear", b"DequantizeLinear", b"QLinear", b"MatMulInteger", b"ConvInteger", b"MatMulNBits")
_BROKEN = (ValueError, EOFError, OSError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error, KeyError)


class Unusable(Exception):
    """The file of samples makes no sense, or not for this model: that says nothing of the model."""


class Disagrees(Exception):
    """The model does not answer as it should. The message says for which sample and by how much."""


@dataclass(frozen=True)
class Rule:
    """What agreeing means; each that is given must hold. ``tolerance``: rtol and atol, for every value. ``top1``: share
    of the samples whose largest value along the last axis is where it should be. ``cosine``: of every output.
    """

    tolerance: Optional[Tuple[float, float]] = None
    top1: Optional[float] = None
    cosine: Optional[float] = None


@dataclass(frozen=True)
class Agreement:
    """A model that agrees. ``deviation``: the largest |value - golden|."""

    text: str
    deviation: float


def default_rule(content: bytes, model: Model) -> Rule:
    """Tolerance for a file of floats. Where it computes in 8 bits, values are off by steps: the class and the direction
    must be right.
    """
    outputs = {spec.datatype for spec in model.outputs}
    inputs = {spec.datatype for spec in model.inputs}
    if outputs & {"INT8", "UINT8"} or "INT8" in inputs or _computes_in_eight_bits(content):
        return Rule(top1=TOP1, cosine=COSINE)
    return Rule(tolerance=(RTOL, ATOL))


def _computes_in_eight_bits(content: bytes) -> bool:
    return computes_in_eight_bits(content) if is_tflite(content) else contains(content, _QUANTISED)


def read_samples(content: bytes) -> Dict[str, np.ndarray]:
    """Arrays by name, of an ``.npz`` file. Nothing in it is run, and its size is looked at before it is unpacked.

    Raises:
        Unusable
    """
    arrays: Dict[str, np.ndarray] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            total = sum(member.file_size for member in members)
            if total > MAX_BYTES:
                raise Unusable(f"golden samples: {total} bytes unpacked, the limit is {MAX_BYTES}")
            for member in members:
                name = member.filename[:-4] if member.filename.endswith(".npy") else member.filename
                if name in arrays:
                    raise Unusable(f"golden samples: two arrays are called {name}")
                arrays[name] = np.load(io.BytesIO(archive.read(member)), allow_pickle=False)
    except _BROKEN as broken:
        raise Unusable(f"golden samples: not an .npz file of plain arrays: {broken}") from broken
    return arrays


class Samples:
    """Golden samples of one model."""

    def __init__(self, arrays: Dict[str, np.ndarray], model: Model) -> None:
        """Raises Unusable: they are of other tensors, or of other shapes, than the model's."""
        self._model = model
        inputs, outputs = _by_name(model.inputs), _by_name(model.outputs)
        unknown = sorted(arrays.keys() - inputs.keys() - outputs.keys())
        if unknown:
            known = ", ".join([*inputs, *outputs])
            raise Unusable(f"golden samples: the model has no tensor {', '.join(unknown)}, it has {known}")
        missing = sorted(inputs.keys() - arrays.keys())
        if missing or not outputs.keys() & arrays.keys():
            raise Unusable(f"golden samples: no array for {', '.join(missing) or 'any output'}")
        counts = {array.shape[0] if array.ndim else 0 for array in arrays.values()}
        if len(counts) != 1 or counts == {0}:
            sizes = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
            raise Unusable(f"golden samples: all arrays need the same first axis, the samples: {sizes}")
        self.count: int = counts.pop()
        self._inputs = {name: _fitted(inputs[name], arrays[name]) for name in inputs}
        self._datatypes = {name: spec.datatype for name, spec in inputs.items()}
        self._outputs = {name: arrays[name] for name in outputs if name in arrays}

    def check(self, rule: Rule, pause: Callable[[float], None] = lambda seconds: None) -> Agreement:
        """Run the model on every sample. ``pause(seconds)`` is called after each run, with its time.

        Raises:
            Disagrees
            Unusable: the rule does not apply, or the samples are too many.
            DeviceFault: the accelerator failed.
        """
        wanted, tally = list(self._outputs), _Tally(rule)
        began = time.monotonic()
        for index in range(self.count):
            started = time.monotonic()
            if started - began > LIMIT_SECONDS:
                done = f"{index} of {self.count} in {LIMIT_SECONDS:.0f} s"
                raise Unusable(f"golden samples: {done}, which is too slow to wait for the rest: use fewer")
            for name, value in zip(wanted, self._run(index, wanted)):
                tally.compare(index, name, value, self._outputs[name][index])
            pause(time.monotonic() - started)
        return tally.agreement(self.count)

    def _run(self, index: int, wanted: Sequence[str]) -> List[np.ndarray]:
        tensors = {}
        for name, array in self._inputs.items():
            sample = array[index]
            tensors[name] = Tensor(self._datatypes[name], sample.shape, to_bytes(sample))
        try:
            return [_array_of(tensor) for tensor in self._model.run(tensors, wanted, NeverCancelled())]
        except DeviceFault:
            raise
        except BackendError as failed:
            raise Disagrees(f"sample {index}: the run failed: {failed}") from failed


class _Tally:
    """What the samples so far have shown."""

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._deviation = 0.0
        self._cosine = 1.0
        self._classified: Set[int] = set()
        self._wrong: Dict[int, str] = {}

    def compare(self, index: int, name: str, value: np.ndarray, golden: np.ndarray) -> None:
        """Raises Disagrees."""
        where, rule = f"sample {index}: output {name}", self._rule
        if value.shape != golden.shape:
            if value.shape[:1] != (1,) or value.shape[1:] != golden.shape:
                raise Disagrees(f"{where} has shape {list(value.shape)}, golden {list(golden.shape)}")
            value = value[0]
        if golden.dtype.kind not in "fiub" or value.dtype.kind not in "fiub":
            _equal(where, value, golden)
            return
        value, golden = value.astype(np.float64), golden.astype(np.float64)
        self._deviation = max(self._deviation, float(np.max(_distances(value, golden), initial=0.0)))
        if rule.tolerance is not None:
            _within(where, value, golden, *rule.tolerance)
        if rule.cosine is not None:
            cosine = _cosine(value, golden)
            self._cosine = min(self._cosine, cosine)
            if not cosine >= rule.cosine:
                raise Disagrees(f"{where} has a cosine of {cosine:.4f} to golden, allowed {rule.cosine:g}")
        if rule.top1 is not None and golden.ndim and golden.shape[-1] > 1:
            self._classified.add(index)
            if not _same_class(value, golden):
                got, right = int(np.argmax(value)), int(np.argmax(golden))
                self._wrong.setdefault(index, f"{where} is largest at [{got}], golden at [{right}]")

    def agreement(self, samples: int) -> Agreement:
        """Raises Disagrees, and Unusable where ``top1`` is asked of outputs without classes."""
        rule, found = self._rule, []
        if rule.tolerance is not None:
            found.append("within rtol {:g}, atol {:g}".format(*rule.tolerance))
        if rule.cosine is not None:
            found.append(f"cosine at least {self._cosine:.4f} (bound {rule.cosine:g})")
        if rule.top1 is not None and self._classified:
            rate = 1 - len(self._wrong) / len(self._classified)
            text = f"top1 of {samples} samples is {rate:.3f}, bound {rule.top1:g}"
            if rate < rule.top1:
                raise Disagrees(f"{text}; {self._wrong[min(self._wrong)]}")
            found.append(text)
        elif rule.top1 is not None and rule.cosine is None:
            raise Unusable("golden samples: top1 needs an output with two classes or more")
        return Agreement(
            f"{samples} samples: {', '.join(found)}; off by {self._deviation:.3g} at most", self._deviation
        )


def _equal(where: str, value: np.ndarray, golden: np.ndarray) -> None:
    """For text and bytes. Raises Disagrees."""
    got = [_bytes_of(element) for element in value.reshape(-1).tolist()]
    right = [_bytes_of(element) for element in golden.reshape(-1).tolist()]
    for at, (ours, theirs) in enumerate(zip(got, right)):
        if ours != theirs:
            raise Disagrees(f"{where}{_place(golden.shape, at)} is {ours[:40]!r}, golden {theirs[:40]!r}")


def _bytes_of(element: object) -> bytes:
    return element if isinstance(element, bytes) else str(element).encode()


def _distances(value: np.ndarray, golden: np.ndarray) -> np.ndarray:
    """|value - golden|; what is not a number, or infinite, is right only where golden is the same."""
    with np.errstate(invalid="ignore"):
        distances = np.abs(value - golden)
    same = (value == golden) | (np.isnan(value) & np.isnan(golden))
    distances = np.where(same, 0.0, distances)
    return np.where(np.isnan(distances), np.inf, distances)


def _within(where: str, value: np.ndarray, golden: np.ndarray, rtol: float, atol: float) -> None:
    """Raises Disagrees."""
    distances = _distances(value, golden)
    allowed = atol + rtol * np.abs(np.where(np.isfinite(golden), golden, 0.0))
    beyond = distances - allowed
    if beyond.size and beyond.max() > 0:
        at = int(np.argmax(beyond))
        got, right, off, bound = (float(a.reshape(-1)[at]) for a in (value, golden, distances, allowed))
        count = int(np.count_nonzero(beyond > 0))
        others = f", and {count - 1} more of {beyond.size}" if count > 1 else ""
        place = _place(golden.shape, at)
        raise Disagrees(
            f"{where}{place} is {got:.6g}, golden {right:.6g}: off by {off:.3g}, allowed {bound:.3g}{others}"
        )


def _cosine(value: np.ndarray, golden: np.ndarray) -> float:
    ours, theirs = value.reshape(-1), golden.reshape(-1)
    norms = float(np.linalg.norm(ours) * np.linalg.norm(theirs))
    if norms == 0.0:
        return 1.0 if not ours.any() and not theirs.any() else 0.0
    with np.errstate(invalid="ignore"):  # infinities: not a number, which is below every bound
        return float(np.dot(ours, theirs) / norms)


def _same_class(value: np.ndarray, golden: np.ndarray) -> bool:
    """Whether the largest value along the last axis is where it should be, were it beside others as large."""
    right = np.argmax(golden, axis=-1)[..., np.newaxis]
    return bool(np.all(np.take_along_axis(value, right, axis=-1)[..., 0] == np.max(value, axis=-1)))


def _place(shape: Tuple[int, ...], at: int) -> str:
    return "[" + ", ".join(map(str, np.unravel_index(at, shape))) + "]" if shape else ""


def _array_of(tensor: Tensor) -> np.ndarray:
    array = to_array(tensor.datatype, tensor.shape, tensor.data)
    return (array.astype(np.uint32) << 16).view(np.float32) if tensor.datatype == "BF16" else array


def _by_name(specs: Sequence[TensorSpec]) -> Dict[str, TensorSpec]:
    return {spec.name: spec for spec in specs}


def _fitted(spec: TensorSpec, array: np.ndarray) -> np.ndarray:
    """The samples of one input, each in the datatype and the shape that the model takes. Raises Unusable."""
    shape, where = array.shape[1:], f"golden samples: input {spec.name}"
    if not _fits(shape, spec.shape):
        if not (spec.shape and spec.shape[0] in (1, -1) and _fits(shape, spec.shape[1:])):
            raise Unusable(f"{where}: expected samples of shape {list(spec.shape)}, got {list(shape)}")
        array = array[:, np.newaxis]
    if spec.datatype == "BF16" and array.dtype == np.float32:  # numpy has no such type; the upper half of the bits
        return (np.ascontiguousarray(array).view(np.uint32) >> 16).astype(np.uint16)
    try:
        got = datatype_of(array)
    except ValueError:
        got = str(array.dtype)
    if got != spec.datatype:
        raise Unusable(f"{where}: expected {spec.datatype}, got {got}")
    return array


def _fits(shape: Sequence[int], spec: Sequence[int]) -> bool:
    return len(shape) == len(spec) and all(size in (-1, ours) for size, ours in zip(spec, shape))
