"""Runs a module with memory that is never kept, so that every big buffer is seen.

    python -m benchmarks.counts.loose MODULE [ARGUMENT ...]

From SIGUSR1 on, glibc takes each block of 32 kB or more fresh from the kernel and gives it back at once: a buffer that
is written costs one page fault per 4 kB, whoever writes it and however fast. Only then, because a process may set up
its allocator as it starts. What lies free on the heap is used before the kernel is asked, so each further SIGUSR1 gives
the pages of that back: they fault again.
"""

from __future__ import annotations

import ctypes
import itertools
import runpy
import signal
import sys

LOOSE = "loose"
"""Name of the process from then on, in /proc/PID/comm, with the count of signals behind it."""
_PR_SET_NAME, _PR_SET_THP_DISABLE = 15, 41
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_BIG = 32 * 1024
_signals = itertools.count(1)


def let_go(*_: object) -> None:
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_THRESHOLD, _BIG)
    libc.mallopt(_M_TRIM_THRESHOLD, _BIG)
    libc.mallopt(_M_TOP_PAD, 0)
    libc.malloc_trim(0)  # what lies free on the heap would be taken first
    libc.prctl(_PR_SET_NAME, f"{LOOSE}{next(_signals)}".encode(), 0, 0, 0)


def main() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_THP_DISABLE, 1, 0, 0, 0)  # a fault must be 4 kB
    signal.signal(signal.SIGUSR1, let_go)
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
