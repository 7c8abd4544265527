"""Which memory of another process was touched, by the kernel's own marks."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

from benchmarks.bench.process import minor_faults
from benchmarks.counts.loose import LOOSE
from benchmarks.harness import wait_for

PAGE = os.sysconf("SC_PAGE_SIZE")
SLOTS = "memfd:edgeway-slot"
_ACCESSED = "1"
"""For clear_refs: forget which pages were accessed."""


def let_go(pid: int) -> None:
    """Have a process that runs under ``benchmarks.counts.loose`` take its big buffers fresh from now on, and give back
    what lies free on its heap now.
    """
    name = Path(f"/proc/{pid}/comm")
    before = name.read_text()
    os.kill(pid, signal.SIGUSR1)
    wait_for(lambda: (now := name.read_text()) != before and now.startswith(LOOSE), 10, "buffers taken fresh")


def faulted_bytes(pid: int, call: Callable[[], object], calls: int) -> float:
    """Bytes of memory that the process touched first in a call.

    A buffer that finds room which another has left on the heap within the same call is not seen; never does one count
    twice. So it is the call with the most that tells.
    """
    counted = [0]
    for _ in range(calls):
        let_go(pid)
        before = minor_faults(pid)
        call()
        counted.append((minor_faults(pid) - before) * PAGE)
    return float(max(counted))


def touched_bytes(pid: int, mapping: str, call: Callable[[], object]) -> int:
    """Bytes in mappings of that name that the process itself read or wrote during one call, in whole pages."""
    Path(f"/proc/{pid}/clear_refs").write_text(_ACCESSED)
    call()
    touched, inside = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        key, _, rest = line.partition(":")
        if " " in key:  # an address, permissions and a name: the next mapping
            inside = mapping in line
        elif inside and key == "Referenced":
            touched += int(rest.split()[0]) * 1024
    return touched
