"""What a worker process sets about itself before it serves."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent dies, also if that has just happened.

    The end of the link would end it too, but a thread that hangs in a driver never looks at the link.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the gateway decides what ends
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def limit_memory(limit: int) -> None:
    """Allow ``limit`` bytes of address space beyond what the process has now; 0 is no limit.

    A model of a hundred bytes can ask for 16 GB when it runs. Beyond the limit the runtime's allocation fails, which
    is an error of that run, instead of the kernel killing something.
    """
    if limit:
        with open("/proc/self/statm", encoding="ascii") as file:
            pages = int(file.read().split()[0])
        ceiling = pages * resource.getpagesize() + limit
        resource.setrlimit(resource.RLIMIT_AS, (ceiling, resource.getrlimit(resource.RLIMIT_AS)[1]))


def resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def thread_count() -> int:
    """Threads of this process, those of libraries included."""
    return len(os.listdir("/proc/self/task"))
