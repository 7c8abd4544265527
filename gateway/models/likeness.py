"""Whether two files of this device are the same logical model."""

from __future__ import annotations

from gateway.request import Signature, TensorSpec


def difference(first: Signature, other: Signature) -> str:
    """How a target's file differs from the first target's in what it takes or gives; empty: it does not."""
    if _names(other) != _names(first):
        return f"takes or gives other tensors than the first target: {_names(other)}"
    for ours, theirs in zip(_tensors(first), _tensors(other), strict=True):
        if None not in (ours.quantisation, theirs.quantisation) and ours.quantisation != theirs.quantisation:
            return f"{ours.name} is quantised in another way than that of the first target"
    return ""


def _tensors(signature: Signature) -> tuple[TensorSpec, ...]:
    return (*signature.inputs, *signature.outputs)


def _names(signature: Signature) -> tuple[tuple[tuple[str, str], ...], ...]:
    return tuple(tuple((spec.name, spec.datatype) for spec in side) for side in (signature.inputs, signature.outputs))
