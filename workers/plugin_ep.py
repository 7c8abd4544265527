"""Providers that are added to ONNX Runtime as plug-ins, each with a package of its own."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import sys
from typing import Any, Iterator, List

from workers.backend import MISSING_LIBRARY, BackendUnavailable
from workers.onnx_runtime import OnnxRuntime


def folder_of(package: str) -> str:
    """Folder of an installed package, found without importing it; empty: there is none."""
    spec = importlib.util.find_spec(package)
    return next(iter(spec.submodule_search_locations), "") if spec and spec.submodule_search_locations else ""


def devices_of(runtime: OnnxRuntime, provider: str, library: str) -> List[Any]:
    """The devices that the plug-in finds; none: its hardware is not here.

    Args:
        runtime: to which it is added.
        provider: what it is called there. The name under which a library is registered becomes the provider's.
        library: file of the plug-in.

    Raises:
        BackendUnavailable: it can't be added.
    """
    register = getattr(runtime.ort, "register_execution_provider_library", None)
    if register is None:
        raise BackendUnavailable(f"{runtime.version} takes no plug-ins: 1.23 or newer is needed", MISSING_LIBRARY)
    found = _devices(runtime, provider)
    if found:  # to register it again ends the process with a segmentation fault
        return found
    try:
        with without_output():
            register(provider, library)
    except runtime.errors as refused:
        raise BackendUnavailable(f"{library} can't be added to {runtime.version}: {refused}", MISSING_LIBRARY) from None
    return _devices(runtime, provider)


def require_library(path: str, symbol: str) -> None:
    """Load a library for good. ONNX Runtime would only log that it can't, and compute on the CPU.

    Raises:
        BackendUnavailable: it can't be loaded, or lacks that symbol.
    """
    name = os.path.basename(path)
    try:
        with without_output():
            getattr(ctypes.CDLL(path), symbol)
    except OSError as failed:
        raise BackendUnavailable(f"{name} can't be loaded: {failed}", MISSING_LIBRARY) from failed
    except AttributeError as failed:
        raise BackendUnavailable(f"{path} is no {name}: it has no {symbol}", MISSING_LIBRARY) from failed


@contextlib.contextmanager
def without_output() -> Iterator[None]:
    """What libraries print while they are loaded must not stand among what this program prints."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.dup2(nowhere, 1)
        yield
        ctypes.CDLL(None).fflush(None)
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def _devices(runtime: OnnxRuntime, provider: str) -> List[Any]:
    return [device for device in runtime.ort.get_ep_devices() if device.ep_name == provider]
