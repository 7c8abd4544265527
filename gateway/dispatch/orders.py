"""Load orders as they travel to a worker."""

from __future__ import annotations

from edgeway.v1 import worker_pb2
from gateway.target import Golden, LoadOrder


def load_message(handle: int, order: LoadOrder, check: bool, background: bool) -> worker_pb2.Load:
    """``check``: whether the model is to be held to its golden samples, if it has any; ``background``: whether others
    run meanwhile.
    """
    load = worker_pb2.Load(
        model=handle,
        name=order.name,
        version=order.version,
        path=order.path,
        sha256=order.sha256,
        background=background,
    )
    for name, sha256 in order.external:
        load.external.add(name=name, sha256=sha256)
    if check and order.golden is not None:
        _hold_to(load.golden, order.golden)
    return load


def _hold_to(message: worker_pb2.Golden, golden: Golden) -> None:
    message.path, message.sha256 = golden.path, golden.sha256
    if golden.tolerance is not None:
        message.tolerance.rtol, message.tolerance.atol = golden.tolerance
    elif golden.top1 is not None:
        message.top1 = golden.top1
    elif golden.cosine is not None:
        message.cosine = golden.cosine
