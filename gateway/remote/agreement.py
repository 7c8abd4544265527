"""Does what a remote endpoint says of its model fit the local one?"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.request import Signature, TensorSpec


def mismatch(ours: Signature, theirs: Signature) -> str:
    """Why requests for the one can't be sent to the other; empty: they can.

    Inputs: whatever fits ours must fit theirs. Outputs: those of ours, more may be there. The order does not matter.
    """
    return _side("input", ours.inputs, theirs.inputs) or _side("output", ours.outputs, theirs.outputs)


def _side(word: str, ours: Sequence[TensorSpec], theirs: Sequence[TensorSpec]) -> str:
    if not theirs and ours:
        return f"it does not say what {word}s it has"
    found = {spec.name: spec for spec in theirs}
    for own in ours:
        other = found.pop(own.name, None)
        if other is None:
            return f"it has no {word} {own.name!r}, but {', '.join(repr(spec.name) for spec in theirs)}"
        if other.datatype != own.datatype:
            return f"its {word} {own.name!r} is {other.datatype}, the local model's {own.datatype}"
        if not _fits(own.shape, other.shape, word == "output"):
            return f"its {word} {own.name!r} has the shape {list(other.shape)}, the local model's {list(own.shape)}"
    if found and word == "input":
        return f"it wants the further input {next(iter(found))!r}"
    return ""


def _fits(own: tuple[int, ...], other: tuple[int, ...], lenient: bool) -> bool:
    if len(own) != len(other):
        return lenient and not own  # a model file may not say how its outputs are shaped
    return all(b < 0 or a == b or (lenient and a < 0) for a, b in zip(own, other, strict=True))
