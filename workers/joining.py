"""Joining: the tensors of several runs become those of one, and its outputs become theirs again.

A batch lies along axis 0, of runs that have the same types and the same shapes behind it. Its inputs are those of its
members behind each other, which for row-major tensors, BYTES too, are their bytes behind each other.
"""

from __future__ import annotations

from typing import Callable, Dict, Hashable, List, Optional, Sequence

import numpy as np

from edgeway.tensors import BY_NAME, nbytes, to_array
from workers.backend import BackendError, Cancellation, Model, Tensor, TensorSpec
from workers.loaded import NeverCancelled

_ROWS = 3
_TOLERANCE = 1e-3
"""Relative and absolute: another size of batch takes another kernel, which rounds otherwise."""


def rows_of(inputs: Dict[str, Tensor]) -> int:
    """Size of axis 0 that all inputs share; 0: they do not, or it is empty."""
    sizes = {tensor.shape[0] if tensor.shape else 0 for tensor in inputs.values()}
    return sizes.pop() if len(sizes) == 1 else 0


def kind_of(inputs: Dict[str, Tensor]) -> Hashable:
    """Equal for inputs that can go behind each other."""
    return tuple((name, tensor.datatype, tensor.shape[1:]) for name, tensor in sorted(inputs.items()))


def join(parts: Sequence[Dict[str, Tensor]]) -> Dict[str, Tensor]:
    """The inputs of several runs behind each other; a copy."""
    joined: Dict[str, Tensor] = {}
    for name, first in parts[0].items():
        rows = sum(part[name].shape[0] for part in parts)
        data = memoryview(b"".join([part[name].data for part in parts]))
        joined[name] = Tensor(first.datatype, (rows, *first.shape[1:]), data)
    return joined


def split(outputs: Sequence[Tensor], rows: Sequence[int]) -> Optional[List[List[Tensor]]]:
    """The outputs of each run, as views; None where they do not have as many rows as the inputs had."""
    total = sum(rows)
    if any(not output.shape or output.shape[0] != total for output in outputs):
        return None
    shares: List[List[Tensor]] = [[] for _ in rows]
    for output in outputs:
        width, at = output.data.nbytes // total, 0
        for share, count in zip(shares, rows):
            data = output.data[at : at + count * width]
            share.append(Tensor(output.datatype, (count, *output.shape[1:]), data))
            at += count * width
    return shares


class Shared:
    """The cancellation of a batch: it is ended when nobody waits for any of its members."""

    def __init__(self, members: Sequence[Cancellation]) -> None:
        self._members = members

    @property
    def cancelled(self) -> bool:
        return all(member.cancelled for member in self._members)

    def on_cancel(self, stop: Callable[[], None]) -> None:
        def another() -> None:
            if self.cancelled:
                stop()

        for member in self._members:
            member.on_cancel(another)


def obstacle(model: Model) -> str:
    """Why runs of this model can't go together; empty: they can, as far as trying on zeros and ones can tell.

    What a model declares is not enough: an open first size may be no batch at all, where the rows depend on each
    other.
    """
    for side, specs in (("input", model.inputs), ("output", model.outputs)):
        for spec in specs:
            if not spec.shape or spec.shape[0] >= 0:
                found = f"the fixed size {spec.shape[0]}" if spec.shape else "no axis"
                return f"{side} {spec.name} has {found} where a batch would lie, axis 0 must be of any size"
            if side == "output" and spec.datatype == "BYTES":
                return f"output {spec.name} is BYTES, whose rows can't be told apart"
    if not model.inputs:
        return "the model has no inputs"
    for filling in (0, 1):
        reason = _tried(model, filling)
        if reason:
            return reason
    return ""


def _tried(model: Model, filling: int) -> str:
    """What is wrong with the answers to several equal rows, compared to the answer to one."""
    names = [spec.name for spec in model.outputs]
    one, several = _filled(model.inputs, 1, filling), _filled(model.inputs, _ROWS, filling)
    try:
        alone = model.run(one, names, NeverCancelled())
    except BackendError:
        return ""  # such values are nothing for this model, with or without company
    try:
        joined = model.run(several, names, NeverCancelled())
    except BackendError as failed:
        return f"it takes one row but not {_ROWS}: {failed}"
    shares = split(joined, [1] * _ROWS)
    if shares is None:
        wrong = next(name for name, output in zip(names, joined) if not output.shape or output.shape[0] != _ROWS)
        return f"output {wrong} has no row for each row of the inputs"
    for share in shares:
        for name, own, row in zip(names, alone, share):
            if own.shape != row.shape or not _alike(own, row):
                return f"output {name} of one row depends on the other rows"
    return ""


def _filled(specs: Sequence[TensorSpec], rows: int, filling: int) -> Dict[str, Tensor]:
    """Inputs of zeros or ones; BYTES: of empty elements. Open sizes other than the first count as 1."""
    filled: Dict[str, Tensor] = {}
    for spec in specs:
        shape = (rows, *(1 if size < 0 else size for size in spec.shape[1:]))
        dtype = BY_NAME[spec.datatype].numpy
        if dtype is None or not filling or spec.datatype == "BF16":
            data = memoryview(bytes(nbytes(spec.datatype, shape)))
        else:
            data = np.full(shape, filling, dtype).reshape(-1).view(np.uint8).data
        filled[spec.name] = Tensor(spec.datatype, shape, data)
    return filled


def _alike(one: Tensor, other: Tensor) -> bool:
    if one.datatype == "BF16" or not one.data.nbytes:
        return True  # numpy can't compare them
    a, b = (to_array(t.datatype, t.shape, t.data).astype(np.float64) for t in (one, other))
    return bool(np.allclose(a, b, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True))
