"""Starts ``edgeway serve``: the worker processes first, because they take longest, and the gateway meanwhile.

What is imported here at the top delays the workers. gRPC and the rest of the gateway come after their launch.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from edgeway.process import apply_settings, tune_allocator
from gateway.config import DeviceConfig, ProcessSettings
from gateway.device.presence import Accelerator, look
from gateway.dispatch.launch import Inherited, WorkerTerms, default_workers, inherited, launch_all
from gateway.lock import AlreadyRunning, hold
from gateway.settings import ServeSettings


class StartFailed(Exception):
    """The gateway can't start; the message is for the operator."""


def serve(settings: ServeSettings) -> int:
    """Run until SIGTERM or SIGINT; the exit code."""
    tune_allocator()
    found = find_accelerators(settings.config)
    workers = default_workers(settings.config.workers, found)
    terms = WorkerTerms(settings.config.limits.starvation_seconds, inherited(), settings.state_dir / "cache")
    try:
        locks = take_locks(settings)
    except (StartFailed, AlreadyRunning) as failed:
        print(f"edgeway: {failed}", file=sys.stderr)
        return 1
    launched = launch_all(workers, terms)
    told = [("accelerator-found", text(each)) for each in found]
    told += [
        ("setting-refused", problem) for problem in apply_process_settings(settings.config.process, terms.inherited)
    ]
    try:
        from gateway import assembly  # here: it imports gRPC and protobuf, while the workers import their runtimes

        return assembly.serve(settings, workers, terms, launched, told)
    finally:
        for process in launched.values():  # those that no supervisor has taken over
            process.end()
        for fd in locks:
            os.close(fd)


def find_accelerators(config: DeviceConfig) -> list[Accelerator]:
    """Those that a worker is started for, or would be if its library were here. None: the config names its workers."""
    if config.workers or not config.accelerators.find:
        return []
    return look(config.accelerators.sysfs_root, config.accelerators.dev_root)


def text(found: Accelerator) -> str:
    if found.lacks:
        return f"{found.device}: not used; its worker ({found.backend}) needs {found.lacks}"
    return f"{found.device}: a worker of the backend {found.backend} is started for it"


def apply_process_settings(process: ProcessSettings, given: Inherited) -> list[str]:
    """Set what the device config wants of the gateway's own process; what the system refused.

    The gateway goes on without it: late answers are better than none, and what is refused depends on who started us.
    """
    refused = apply_settings(
        cpus=process.cpus,
        nice=given.nice + process.nice,
        realtime=process.realtime_priority or given.realtime,
        lock=process.lock_memory,
    )
    return [f"process.{problem}" for problem in refused]


def take_locks(settings: ServeSettings) -> list[int]:
    """Lock every Unix socket that we shall bind, and the state directory. Raises AlreadyRunning, StartFailed."""
    locks = []
    try:
        for address in (*settings.listen, settings.control):
            if address.startswith("unix:"):
                path = Path(address.removeprefix("unix:"))
                locks.append(hold(path.with_name(f"{path.name}.lock"), f"the socket {path}"))
        locks.append(hold(settings.state_dir / "lock", f"the state directory {settings.state_dir}"))
    except OSError as failed:
        raise StartFailed(
            f"{failed.filename}: {failed.strerror}; choose another with --listen or --state-dir"
        ) from failed
    return locks
