"""Does a request fit the model: the gateway's own check, so that a mistake of the caller never reaches a worker."""

from __future__ import annotations

from typing import NoReturn

from gateway.errors import InvalidRequest
from gateway.request import Request, Signature


def check(request: Request, signature: Signature) -> None:
    """Compare names, datatypes and shapes with what the model takes.

    Raises:
        InvalidRequest: naming the tensor, what was expected and what came.
    """
    if len(request.inputs) != len(signature.inputs):
        _raise_names(request, signature)
    specs = signature.inputs_by_name
    for tensor in request.inputs:
        spec = specs.get(tensor.name)
        if spec is None:
            _raise_names(request, signature)
        if tensor.datatype != spec.datatype:
            raise InvalidRequest(f"input {tensor.name!r}: expected {spec.datatype}, got {tensor.datatype}")
        if tensor.shape == spec.shape:
            continue
        if len(tensor.shape) != len(spec.shape):
            raise InvalidRequest(
                f"input {tensor.name!r}: expected {len(spec.shape)} dimensions {list(spec.shape)}, "
                f"got {len(tensor.shape)}: {list(tensor.shape)}"
            )
        for expected, got in zip(spec.shape, tensor.shape, strict=True):
            if expected not in (-1, got):
                raise InvalidRequest(
                    f"input {tensor.name!r}: expected shape {list(spec.shape)}, got {list(tensor.shape)}"
                )
    if request.outputs:
        known = {spec.name for spec in signature.outputs}
        for name in request.outputs:
            if name not in known:
                raise InvalidRequest(
                    f"output {name!r} is unknown: expected outputs of {_names(known)}, got {_names(request.outputs)}"
                )


def _raise_names(request: Request, signature: Signature) -> NoReturn:
    given, wanted = {tensor.name for tensor in request.inputs}, {spec.name for spec in signature.inputs}
    if missing := sorted(wanted - given):
        raise InvalidRequest(f"input {missing[0]!r} is missing: expected inputs {_names(wanted)}, got {_names(given)}")
    extra = sorted(given - wanted)
    raise InvalidRequest(f"input {extra[0]!r} is unknown: expected inputs {_names(wanted)}, got {_names(given)}")


def _names(names: object) -> str:
    return ", ".join(map(repr, sorted(names))) or "nothing"  # type: ignore[call-overload]
