"""Loading: the bytes of a file, verified, become a model."""

from __future__ import annotations

import hashlib
import os
import stat
from typing import Any, Optional

from edgeway.v1 import worker_pb2
from workers.backend import Backend, BackendError, BackendUnavailable, Model, ModelTooLarge
from workers.batching import Limits
from workers.joining import obstacle

_Reason = worker_pb2.LoadFailed
_REASONS = ((BackendUnavailable, _Reason.UNAVAILABLE), (ModelTooLarge, _Reason.MEMORY))


class LoadError(Exception):
    """Why a file was not loaded; ``reason`` is a value of ``LoadFailed.Reason``."""

    def __init__(self, reason: Any, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def load(backend: Backend, order: Any) -> Model:
    """Load what a ``Load`` message names. The bytes that are hashed are the bytes that are loaded.

    Raises:
        LoadError
    """
    content = _read(order.path)
    digest = hashlib.sha256(content).hexdigest()
    if order.sha256 and digest != order.sha256:
        raise LoadError(_Reason.CHECKSUM, f"checksum mismatch: expected sha256:{order.sha256}, got sha256:{digest}")
    try:
        model = backend.load(content, f"{order.name} {order.version}")
    except BackendError as refused:
        reason = next((reason for kind, reason in _REASONS if isinstance(refused, kind)), _Reason.REJECTED)
        raise LoadError(reason, str(refused)) from refused
    except MemoryError as refused:
        raise LoadError(_Reason.MEMORY, "not enough memory for the model") from refused
    against = obstacle(model) if order.HasField("batching") else ""
    if against:
        model.close()
        raise LoadError(_Reason.REJECTED, f"batching: {against}")
    return model


def limits_of(order: Any) -> Optional[Limits]:
    """How the runs of the model that a ``Load`` names may go together; None: they may not."""
    if not order.HasField("batching"):
        return None
    return Limits(max(1, order.batching.max_size), max(0.0, order.batching.max_delay_seconds))


def _read(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise LoadError(_Reason.UNREADABLE, f"{os.path.basename(path)} is not a regular file")
            return file.read()
    except OSError as failed:
        raise LoadError(_Reason.UNREADABLE, f"{os.path.basename(path)}: {failed.strerror}") from failed
    except MemoryError as refused:
        raise LoadError(_Reason.MEMORY, "not enough memory to read the file") from refused
