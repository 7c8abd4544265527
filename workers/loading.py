"""Loading: the bytes of a file, verified, become a model."""

from __future__ import annotations

import hashlib
import os
import stat
from typing import Any, Callable, Optional, Tuple

from edgeway.v1 import worker_pb2
from workers.backend import Backend, BackendError, BackendUnavailable, DeviceFault, Model, ModelTooLarge, Remembers
from workers.batching import Limits
from workers.golden import Agreement, Disagrees, Rule, Samples, Unusable, default_rule, read_samples
from workers.joining import obstacle

_Reason = worker_pb2.LoadFailed
_REASONS = ((BackendUnavailable, _Reason.UNAVAILABLE), (ModelTooLarge, _Reason.MEMORY))


class LoadError(Exception):
    """Why a file was not loaded; ``reason`` is a value of ``LoadFailed.Reason``."""

    def __init__(self, reason: Any, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def load(backend: Backend, order: Any) -> Tuple[Model, Optional[Rule]]:
    """Load what a ``Load`` message names. The bytes that are hashed are the bytes that are loaded.

    Returns:
        the model, and how it is held to its golden samples where there are any.

    Raises:
        LoadError
    """
    content = _verified(order.path, order.sha256)
    external = {file.name: _beside(order.path, file) for file in order.external}
    try:
        model = backend.load(content, f"{order.name} {order.version}", external)
    except BackendError as refused:
        reason = next((reason for kind, reason in _REASONS if isinstance(refused, kind)), _Reason.REJECTED)
        raise LoadError(reason, str(refused)) from refused
    except MemoryError as refused:
        raise LoadError(_Reason.MEMORY, "not enough memory for the model") from refused
    against = obstacle(model) if order.HasField("batching") else ""
    if against:
        model.close()
        raise LoadError(_Reason.REJECTED, f"batching: {against}")
    return model, _rule(order.golden, content, model) if order.HasField("golden") else None


def check(order: Any, model: Model, rule: Rule, pause: Callable[[float], None]) -> Agreement:
    """Hold a model to the golden samples of its ``Load``. ``pause(seconds)`` is called after each run, with its time.

    Raises:
        LoadError: with BARRED where it disagrees.
    """
    try:
        return Samples(read_samples(_verified(order.golden.path, order.golden.sha256)), model).check(rule, pause)
    except Disagrees as wrong:
        raise LoadError(_Reason.BARRED, str(wrong)) from wrong
    except Unusable as wrong:
        raise LoadError(_Reason.REJECTED, str(wrong)) from wrong
    except DeviceFault as failed:
        raise LoadError(_Reason.UNAVAILABLE, f"golden samples: {failed}") from failed


def begin_anew(model: Model) -> None:
    """Have it forget the warm-up and the golden samples, where it may remember. Raises LoadError: it can't."""
    if isinstance(model, Remembers):
        try:
            model.start_over()
        except BackendError as refused:
            model.close()
            raise LoadError(_Reason.REJECTED, f"after the warm-up: {refused}") from refused


def _rule(golden: Any, content: bytes, model: Model) -> Rule:
    which = golden.WhichOneof("rule")
    if which == "tolerance":
        return Rule(tolerance=(golden.tolerance.rtol, golden.tolerance.atol))
    return default_rule(content, model) if which is None else Rule(**{which: getattr(golden, which)})


def limits_of(order: Any) -> Optional[Limits]:
    """How the runs of the model that a ``Load`` names may go together; None: they may not."""
    if not order.HasField("batching"):
        return None
    return Limits(max(1, order.batching.max_size), max(0.0, order.batching.max_delay_seconds))


def _beside(model: str, file: Any) -> bytes:
    """A file of external data, verified. Raises LoadError."""
    if file.name in ("", ".", "..") or "/" in file.name or "\0" in file.name or not file.sha256:
        raise LoadError(_Reason.REJECTED, f"external data {file.name!r}: expected a bare file name and its checksum")
    return _verified(os.path.join(os.path.dirname(model), file.name), file.sha256, single=True)


def _verified(path: str, sha256: str, single: bool = False) -> bytes:
    """Raises LoadError."""
    content = _read(path, single)
    digest = hashlib.sha256(content).hexdigest()
    if sha256 and digest != sha256:
        name = os.path.basename(path)
        raise LoadError(_Reason.CHECKSUM, f"{name}: checksum mismatch: expected sha256:{sha256}, got sha256:{digest}")
    return content


def _read(path: str, single: bool) -> bytes:
    """``single``: a file with a second name is refused: it may be somebody else's, linked here."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(fd, "rb", buffering=0) as file:  # a buffer would be one copy more, with the interpreter held
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise LoadError(_Reason.UNREADABLE, f"{os.path.basename(path)} is not a regular file")
            if single and status.st_nlink != 1:
                raise LoadError(_Reason.UNREADABLE, f"{os.path.basename(path)} has {status.st_nlink} links, expected 1")
            return file.read()
    except OSError as failed:
        raise LoadError(_Reason.UNREADABLE, f"{os.path.basename(path)}: {failed.strerror}") from failed
    except MemoryError as refused:
        raise LoadError(_Reason.MEMORY, "not enough memory to read the file") from refused
