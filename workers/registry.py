"""Finds backends: built-in ones, and those that other distributions add as entry points ``edgeway.backends``."""

from __future__ import annotations

import importlib
import sys
from typing import Any, Dict, List, Optional, Tuple

from workers.backend import UNSUPPORTED, Backend, BackendUnavailable, Probe

GROUP = "edgeway.backends"
BUILT_IN = {
    "coreml": "workers.backends.coreml:CoreMlBackend",
    "cpu": "workers.backends.cpu:CpuBackend",
    "edgetpu": "workers.backends.edgetpu:EdgeTpuBackend",
    "litert": "workers.backends.litert:LiteRtBackend",
    "openvino": "workers.backends.openvino:OpenVinoBackend",
    "qnn": "workers.backends.qnn:QnnBackend",
    "simulated": "workers.backends.simulated:SimulatedBackend",
    "tensorrt": "workers.backends.tensorrt:TensorrtBackend",
}
"""Also declared as entry points; listed here because a worker may run under an interpreter without our metadata."""

REMOTE = "remote"
"""The gateway's own: no worker process speaks to an endpoint elsewhere. Listed, because it can be had."""


def names() -> Dict[str, str]:
    """Backend name -> ``module:class``, nothing imported yet."""
    from importlib.metadata import entry_points  # here: 20 ms that a worker with a built-in backend does not need

    try:
        found: Any = entry_points()
    except Exception as damaged:  # noqa: BLE001 - of any distribution: what is built in is there all the same
        print(f"backends of other packages can't be listed: {damaged}", file=sys.stderr, flush=True)
        return dict(BUILT_IN)
    added = found.select(group=GROUP) if hasattr(found, "select") else found.get(GROUP, ())
    return {**{entry.name: entry.value for entry in added}, **BUILT_IN}


def find(name: str) -> Any:
    """The class of a backend.

    Raises:
        BackendUnavailable: no such backend, or its module can't be imported.
    """
    where = BUILT_IN.get(name) or names().get(name)
    if where is None:
        reason = f"no backend is called {name}; there are: {', '.join(sorted(names()))}"
        raise BackendUnavailable(reason, UNSUPPORTED, "install a distribution that adds it, or name another")
    module, _, attribute = where.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as broken:  # a module of somebody else's, which may raise anything
        from workers.unavailable import explain

        why = explain(broken)
        raise BackendUnavailable(f"{where} can't be imported: {why}", why.code, why.remedy) from broken


def listed() -> List[str]:
    """Names of all backends that there are or that manifests may name."""
    return sorted({*names(), REMOTE})


def probe_all(only: Optional[str] = None) -> Dict[str, Tuple[str, Probe]]:
    """Backend name -> its kind, and what it says of this device. One that can't be imported says why."""
    found = {name: _probe(name) for name in sorted(names()) if only in (None, name)}
    if only in (None, REMOTE):
        reason = "an endpoint of the Open Inference Protocol elsewhere: a worker of the device config with options.url"
        found[REMOTE] = REMOTE, Probe(True, reason)
    return found


def _probe(name: str) -> Tuple[str, Probe]:
    try:
        backend: Backend = find(name)
    except BackendUnavailable as unavailable:
        remedy = unavailable.remedy or "reinstall the distribution that provides it"
        return "unknown", Probe(False, str(unavailable), remedy, code=unavailable.code)
    try:
        return backend.kind, backend.probe()
    except Exception as problem:  # noqa: BLE001 - it may be anybody's, and one that fails must not hide the others
        from workers.unavailable import explain

        why = explain(problem)
        return str(getattr(backend, "kind", "unknown")), Probe(False, str(why), why.remedy, code=why.code)
