"""Finds backends: built-in ones, and those that other distributions add as entry points ``edgeway.backends``."""

from __future__ import annotations

import importlib
from typing import Any, Dict, Optional, Tuple

from workers.backend import Backend, BackendUnavailable, Probe

GROUP = "edgeway.backends"
BUILT_IN = {
    "coreml": "workers.backends.coreml:CoreMlBackend",
    "cpu": "workers.backends.cpu:CpuBackend",
    "litert": "workers.backends.litert:LiteRtBackend",
    "openvino": "workers.backends.openvino:OpenVinoBackend",
    "qnn": "workers.backends.qnn:QnnBackend",
    "simulated": "workers.backends.simulated:SimulatedBackend",
}
"""Also declared as entry points; listed here because a worker may run under an interpreter without our metadata."""

NOT_YET = ("edgetpu", "remote", "tensorrt")
"""Kinds that manifests may name already; the CPU serves in their place, degraded, reason ``lost``."""


def names() -> Dict[str, str]:
    """Backend name -> ``module:class``, nothing imported yet."""
    from importlib.metadata import entry_points  # here: 20 ms that a worker with a built-in backend does not need

    found = entry_points()
    added = found.select(group=GROUP) if hasattr(found, "select") else found.get(GROUP, ())
    return {**{entry.name: entry.value for entry in added}, **BUILT_IN}


def find(name: str) -> Any:
    """The class of a backend.

    Raises:
        BackendUnavailable: no such backend, or its module can't be imported.
    """
    where = BUILT_IN.get(name) or names().get(name)
    if where is None:
        raise BackendUnavailable(f"no backend is called {name}; there are: {', '.join(sorted(names()))}")
    module, _, attribute = where.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as broken:
        raise BackendUnavailable(f"{where} can't be imported: {broken}") from broken


def probe_all(only: Optional[str] = None) -> Dict[str, Tuple[str, Probe]]:
    """Backend name -> its kind, and what it says of this device. One that can't be imported says why."""
    found = {name: _probe(name) for name in sorted(names()) if only in (None, name)}
    for name in NOT_YET:
        if name not in found and only in (None, name):
            kind = "remote" if name == "remote" else "hardware"
            remedy = (
                "list cpu among the targets, which serves meanwhile, or install a distribution that adds the backend"
            )
            found[name] = kind, Probe(False, "this version has no backend of that name", remedy)
    return found


def _probe(name: str) -> Tuple[str, Probe]:
    try:
        backend: Backend = find(name)
    except BackendUnavailable as unavailable:
        return "unknown", Probe(False, str(unavailable), "reinstall the distribution that provides it")
    return backend.kind, backend.probe()
