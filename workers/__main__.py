"""A worker process: ``python -m workers --backend cpu --link-fd 5``, or one that forks them, or a list of backends."""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
from dataclasses import asdict
from typing import Any, Dict, List, Optional

from edgeway.process import SETTING_REFUSED, apply_settings, realtime_priority, tune_allocator
from workers import process

_MB = 1 << 20


def main(arguments: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m workers", description=__doc__)
    parser.add_argument("--backend", help="which backend to drive, or to probe alone")
    parser.add_argument("--list", action="store_true", help="print as JSON the names of the backends")
    parser.add_argument(
        "--probe", action="store_true", help="print as JSON what each backend could do here, and why not"
    )
    parser.add_argument(
        "--zygote", action="store_true", help="import the backend's runtime and fork workers when the gateway asks"
    )
    parser.add_argument("--link-fd", type=int, help="descriptor of the SEQPACKET socket to the gateway")
    parser.add_argument("--settings", default="{}", help="JSON, as the gateway makes it of the device config")
    options = parser.parse_args(arguments)
    # ONNX Runtime 1.29 and later starts a thread as it is imported, which sends usage data to its vendor.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    if options.probe or options.list:
        return answer(options.backend, probing=options.probe)
    if options.backend is None or options.link_fd is None:
        parser.error("--backend and --link-fd are needed; the gateway starts workers by itself")
    begin = fork_on_demand if options.zygote else serve
    return begin(options.backend, options.link_fd, json.loads(options.settings))


def answer(backend_name: Optional[str], probing: bool) -> int:
    """Print the names of the backends, or what each says of this device."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries of vendors print, also from C; that must not get into the answer
    from workers import registry

    if probing:
        probes = registry.probe_all(backend_name)
        rows = [{"backend": name, "kind": kind, **asdict(probe)} for name, (kind, probe) in probes.items()]
        if any(row["available"] for row in rows):
            try:
                import workers.service  # noqa: F401 - a worker needs it too, and protobuf with it
            except Exception as problem:  # noqa: BLE001 - as in serve
                from workers.unavailable import refuse

                return refuse(backend_name or "", problem)
        print(json.dumps(rows, default=str), file=out, flush=True)
    else:
        print(json.dumps(registry.listed()), file=out, flush=True)
    return 0


def serve(backend_name: str, link_fd: int, raw: Dict[str, Any]) -> int:
    """Drive the backend until the gateway closes the link; exit code 3 where the backend can't start."""
    process.die_with_parent(int(raw.get("parentPid", os.getppid())))
    tune_allocator(one_arena=True)
    _settle(raw)
    # Only now: an import at the priority of the gateway that started us would hold up the gateway.
    try:
        from workers.registry import find
        from workers.service import Service

        settings = _settings(backend_name, raw)
        backend = find(backend_name)(settings)
    except Exception as problem:  # noqa: BLE001 - an interpreter that lacks something, or anybody's backend
        from workers.unavailable import refuse

        return refuse(backend_name, problem)
    process.limit_memory(settings.memory_limit)
    connection = socket.socket(fileno=link_fd)
    connection.set_inheritable(False)
    Service(connection, backend, settings).serve()
    return 0


def _settings(backend_name: str, raw: Dict[str, Any]) -> Any:
    from workers.backend import Settings

    return Settings(
        name=str(raw.get("name", backend_name)),
        threads=max(1, int(raw.get("threads") or 1)),
        instances=max(1, int(raw.get("instances") or 1)),
        memory_limit=int(raw.get("memoryLimitMB") or 0) * _MB,
        first_start=float(raw.get("firstStart") or 0.0),
        spin_seconds=float(raw.get("spinMicroseconds") or 0.0) / 1e6,
        starvation_seconds=float(raw.get("starvationSeconds") or Settings.starvation_seconds),
        cache=str(raw.get("cache") or ""),
        options=dict(raw.get("options") or {}),
    )


def _settle(raw: Dict[str, Any]) -> None:
    """CPUs, priority and memory as configured; what the system refuses is said, and done without.

    Late answers are better than none, and what is refused depends on who started the gateway. All of it is set, also to
    what is usual: after a restart the process comes from a gateway that has set something else for itself.
    """
    refused = apply_settings(
        cpus=[int(cpu) for cpu in raw.get("cpus", ())],
        nice=int(raw.get("nice", os.getpriority(os.PRIO_PROCESS, 0))),
        realtime=int(raw.get("realtimePriority", realtime_priority())),
        lock=bool(raw.get("lockMemory")),
    )
    for problem in refused:
        print(f"{SETTING_REFUSED}{problem}", file=sys.stderr, flush=True)


def fork_on_demand(backend_name: str, link_fd: int, raw: Dict[str, Any]) -> int:
    """Be the zygote of workers of this backend; exit code 3 where its runtime can't be imported."""
    process.die_with_parent(int(raw.get("parentPid", os.getppid())))
    _settle(raw)
    try:
        from workers.backend import Settings
        from workers.registry import find
        from workers.zygote import Zygote

        find(backend_name)(Settings())  # imports its runtime, and makes nothing that a child could not share
    except Exception as problem:  # noqa: BLE001 - as above
        from workers.unavailable import refuse

        return refuse(backend_name, problem)
    connection = socket.socket(fileno=link_fd)
    connection.set_inheritable(False)
    return Zygote(connection, serve).run()


if __name__ == "__main__":
    sys.exit(main())
