"""Starts the processes of workers and zygotes. Imports little, so that they come up while the gateway still imports."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from edgeway.process import UNAVAILABLE, realtime_priority
from gateway.config import REMOTE, WorkerConfig
from gateway.device.presence import Accelerator

_ONE_THREAD = {
    # Each keeps a library from starting threads when it is imported: a process with threads can't be forked.
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "ORT_DISABLE_TELEMETRY": "1",
}


@dataclass(frozen=True, slots=True)
class Inherited:
    """What the gateway had from whoever started it. Workers get this, whatever the gateway sets for itself later."""

    cpus: tuple[int, ...]
    nice: int
    realtime: int
    """Priority of SCHED_FIFO; 0: an ordinary process."""


def inherited() -> Inherited:
    """As it is now; to be asked before the gateway sets anything of this for itself."""
    return Inherited(tuple(sorted(os.sched_getaffinity(0))), os.getpriority(os.PRIO_PROCESS, 0), realtime_priority())


@dataclass(frozen=True, slots=True)
class WorkerTerms:
    """What all worker processes are told alike."""

    starvation: float
    """Seconds that a run waits at most behind others that came later."""
    inherited: Inherited
    cache: Path
    """Folder with one for each worker, for what it builds of models and may use again."""


@dataclass(slots=True, eq=False)
class Launched:
    """A process that was just started, and our end of its link."""

    process: subprocess.Popen[bytes]
    connection: socket.socket
    at: float
    """Monotonic seconds."""

    def end(self) -> None:
        """Kill it and let go of its link."""
        self.connection.close()
        self.process.kill()
        self.process.wait()
        if self.process.stderr is not None:
            self.process.stderr.close()


_OLDEST = (3, 9)
_TOO_OLD = {
    "code": "unsupported",
    "reason": "its interpreter is Python %d.%d; workers need 3.9 or newer",
    "remedy": "name a newer one under workers[].python",
}
PROGRAM = (
    "-c",
    f"import sys; del sys.path[0]; sys.version_info < {_OLDEST} and "
    f"sys.exit({UNAVAILABLE + json.dumps(_TOO_OLD)!r} % sys.version_info[:2]); "  # any Python can read this
    "import runpy; runpy.run_module('workers', run_name='__main__', alter_sys=True)",
)
"""``python -m workers``, but for the current folder: where one called ``workers`` lies there, it must not be run."""


def launch_all(configs: Iterable[WorkerConfig], terms: WorkerTerms) -> dict[str, Launched]:
    """The first process of each worker, by name. One that can't be started is left to its supervisor, which says so."""
    launched: dict[str, Launched] = {}
    for config in configs:
        if config.backend == REMOTE:
            continue
        with contextlib.suppress(OSError):
            launched[config.name] = launch_worker(config, terms, time.monotonic())
    return launched


def launch_worker(config: WorkerConfig, terms: WorkerTerms, first_start: float) -> Launched:
    """A process for this worker.

    Args:
        config: the worker's.
        terms: of all workers.
        first_start: monotonic seconds at which the first process of this worker was started.

    Raises:
        OSError: its interpreter can't be started.
    """
    settings = {
        **process_settings(config, terms.inherited),
        "name": config.name,
        "instances": instances_of(config, terms.inherited),
        "spinMicroseconds": config.spin_microseconds,
        "options": config.options,
        "firstStart": first_start,
        "starvationSeconds": terms.starvation,
        "cache": str(terms.cache / config.name),
    }
    return _launch(["--backend", config.backend], settings, config.python, config.env)


def launch_zygote(backend: str, python: str | None, env: Mapping[str, str], given: Inherited) -> Launched:
    """A process that forks workers of this backend. Raises OSError: its interpreter can't be started."""
    settings = {"nice": given.nice, "cpus": list(given.cpus), "realtimePriority": given.realtime}
    return _launch(["--zygote", "--backend", backend], settings, python, {**env, **_ONE_THREAD})


def process_settings(config: WorkerConfig, given: Inherited) -> dict[str, Any]:
    """How a process of this worker runs: its threads, memory, CPUs and priority."""
    return {
        "threads": config.threads,
        "memoryLimitMB": config.memory_limit_mb or 0,
        "nice": given.nice + config.nice,
        "cpus": list(config.cpus or given.cpus),
        "realtimePriority": config.realtime_priority or given.realtime,
        "lockMemory": config.lock_memory,
    }


def _launch(
    arguments: Sequence[str], settings: Mapping[str, Any], python: str | None, env: Mapping[str, str]
) -> Launched:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environment = environment_of(env)
    told = json.dumps({**settings, "parentPid": os.getpid()})
    try:
        process = subprocess.Popen(
            [
                python or sys.executable,
                *PROGRAM,
                *arguments,
                "--link-fd",
                str(theirs.fileno()),
                "--settings",
                told,
            ],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment,
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return Launched(process, ours, time.monotonic())


def environment_of(env: Mapping[str, str]) -> dict[str, str]:
    """Variables of a process that runs ``PROGRAM``: ours, the worker's own, and where its code lies."""
    environment = {**os.environ, **env, "PYTHONPATH": os.pathsep.join(source_roots())}
    environment.pop("NOTIFY_SOCKET", None)  # only the gateway speaks to systemd
    return environment


def instances_of(config: WorkerConfig, given: Inherited) -> int:
    """Runs at a time: as configured, else 2 for the CPU where there are two cores or more, else 1."""
    if config.instances is not None:
        return config.instances
    return 2 if config.backend == "cpu" and len(given.cpus) >= 2 else 1


def default_workers(configs: Sequence[WorkerConfig], found: Sequence[Accelerator] = ()) -> list[WorkerConfig]:
    """The configured workers; where there are none, one for each accelerator that can be used; and always one for the
    CPU.
    """
    workers = list(configs)
    if not workers:
        names: Counter[str] = Counter()
        for each in found:
            if not each.lacks:
                names[each.backend] += 1
                name = each.backend if names[each.backend] == 1 else f"{each.backend}-{names[each.backend]}"
                workers.append(WorkerConfig(name, each.backend, options=dict(each.options)))
    if not any(config.backend == "cpu" for config in workers):
        taken = {config.name for config in workers}
        name = next(name for name in ("cpu", "cpu-path", "cpu-path-2") if name not in taken)
        workers.append(msgspec.convert({"name": name, "backend": "cpu"}, WorkerConfig))
    return workers


def source_roots() -> list[str]:
    """Folders from which another interpreter imports ``workers`` and ``edgeway``: found without importing."""
    roots = []
    for package, depth in (("workers", 1), ("edgeway.v1", 2)):
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise RuntimeError(f"the package {package} is not installed")
        roots.append(str(Path(next(iter(spec.submodule_search_locations))).parents[depth - 1]))
    return list(dict.fromkeys(roots))
