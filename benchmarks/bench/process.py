"""What the kernel says of a process: its CPU time and its page faults."""

from __future__ import annotations

import time
from pathlib import Path


def cpu_seconds(pid: int) -> float:
    """User and system time of all its threads so far, those that have ended included; children are not.

    It is the process's CPU-time clock: exact, where /proc/PID/stat counts in ticks of 10 ms. The number of the clock is
    made as the kernel makes it (clock_getcpuclockid(3)).
    """
    return time.clock_gettime((~pid << 3) | 2)


def minor_faults(pid: int) -> int:
    """Pages that it touched first, so far: each one is 4 kB that the kernel had to find and clear."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[7])
