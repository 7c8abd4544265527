"""What a process of ours sets about itself: its allocator, CPUs, priority, locked memory. For gateway and workers."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

_MB = 1 << 20
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
_CAP_IPC_LOCK = 14
STEPS_BACK = 10
"""Of nice: beside others that want the same core, such a thread gets about a tenth of it."""
SETTING_REFUSED = "setting refused: "
"""How a worker begins the line with which it says so."""
UNAVAILABLE = "unavailable: "
"""How a worker that can't start begins the line that says why: JSON with code, reason and remedy follow."""


class SettingRefused(Exception):
    """The system does not let us have a setting. The message names the setting, the reason and the remedy."""

    def __init__(self, setting: str, problem: str, remedy: str) -> None:
        super().__init__(f"{setting}: {problem}; {remedy}")
        self.setting = setting


def tune_allocator(one_arena: bool = False) -> None:
    """Have glibc keep big blocks, where the C library is glibc; elsewhere nothing happens.

    ``one_arena``: for all threads. Of the others glibc never gives back what is free at their end: a process that loads
    models on a thread of its own kept up to 17 MB of the last one, one time more and one time less.

    It gives a freed block of a few MB back to the kernel and faults it in again: 400 to 5000 page faults a request
    with frames of 0.9 to 4.9 MB, against none with these thresholds. The price, memory that stays at its high mark, is
    paid back by ``trim`` when there is nothing to do.
    """
    libc = _glibc()
    if libc is not None:
        libc.mallopt(_M_MMAP_THRESHOLD, 32 * _MB)
        libc.mallopt(_M_TRIM_THRESHOLD, 256 * _MB)
        libc.mallopt(_M_TOP_PAD, 16 * _MB)
        if one_arena:
            libc.mallopt(_M_ARENA_MAX, 1)


def trim() -> None:
    """Give free memory back to the kernel; takes some ms, and the next requests fault it in again."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def apply_settings(cpus: Sequence[int], nice: int, realtime: int, lock: bool) -> list[str]:
    """Set all four; those that the system refused, each as one line. A refused one leaves the others in force."""
    steps: list[Callable[[], None]] = [
        lambda: set_cpus(cpus),
        lambda: set_nice(nice),
        lambda: set_realtime(realtime),
        lambda: lock_memory(lock),
    ]
    refused = []
    for step in steps:
        try:
            step()
        except SettingRefused as problem:
            refused.append(str(problem))
    return refused


def set_cpus(cpus: Sequence[int]) -> None:
    """Run on these CPUs only; none given: as it is. Raises SettingRefused."""
    if not cpus or set(cpus) == os.sched_getaffinity(0):
        return
    try:
        os.sched_setaffinity(0, cpus)
        granted = os.sched_getaffinity(0)
    except OSError as failed:
        raise SettingRefused("cpus", f"{_numbers(cpus)}: {failed.strerror}", _cpus_there()) from failed
    if granted != set(cpus):  # the kernel leaves out those that do not exist
        raise SettingRefused("cpus", f"of {_numbers(cpus)} only {_numbers(sorted(granted))} can be had", _cpus_there())


def stand_back() -> None:
    """Have the calling thread run after all others that want a core, for what takes long and need not be soon. It can't
    be undone without privileges. Where the system forbids even that, the thread stays as it is.
    """
    thread = threading.get_native_id()
    with contextlib.suppress(SettingRefused):
        set_realtime(0)  # a real-time thread ignores nice
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, thread, min(19, os.getpriority(os.PRIO_PROCESS, thread) + STEPS_BACK))


def set_nice(nice: int) -> None:
    """Priority among ordinary processes, -20 first to 19 last. Raises SettingRefused."""
    nice = max(-20, min(19, nice))
    if nice == os.getpriority(os.PRIO_PROCESS, 0):
        return
    try:
        os.setpriority(os.PRIO_PROCESS, 0, nice)
    except OSError as failed:
        raise SettingRefused(
            "nice", f"{nice}: {failed.strerror}", "give the process CAP_SYS_NICE or a higher RLIMIT_NICE (LimitNICE=)"
        ) from failed


def set_realtime(priority: int) -> None:
    """Go before all ordinary processes (SCHED_FIFO, 1 to 99); 0: be an ordinary one. Raises SettingRefused."""
    if priority == realtime_priority():
        return
    policy = os.SCHED_FIFO if priority else os.SCHED_OTHER
    try:
        os.sched_setscheduler(0, policy, os.sched_param(priority))
    except OSError as failed:
        raise SettingRefused(
            "realtimePriority",
            f"{priority}: {failed.strerror}",
            f"give the process CAP_SYS_NICE or RLIMIT_RTPRIO of {priority} (LimitRTPRIO={priority})",
        ) from failed


def realtime_priority() -> int:
    """That of the calling thread; 0: it is an ordinary one, or the C library can't tell (musl)."""
    try:
        return os.sched_getparam(0).sched_priority
    except OSError:
        return 0


def lock_memory(wanted: bool) -> None:
    """Keep every page that was ever touched in memory. Raises SettingRefused.

    Pages are locked as they are touched (MCL_ONFAULT): otherwise every reserved stack and heap would be filled, some
    100 MB that nobody uses.
    """
    if not wanted:
        return
    remedy = "give the process CAP_IPC_LOCK or no RLIMIT_MEMLOCK (LimitMEMLOCK=infinity)"
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if hard == resource.RLIM_INFINITY and soft != hard:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))
        soft = hard
    if soft != resource.RLIM_INFINITY and not _may_lock():
        # It might succeed now, and a later allocation beyond the limit would fail and end the process.
        raise SettingRefused("lockMemory", f"only {soft // 1024} kB may be locked (RLIMIT_MEMLOCK)", remedy)
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "mlockall") or libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT):
        raise SettingRefused("lockMemory", os.strerror(ctypes.get_errno()) or "not on this system", remedy)


def _may_lock() -> bool:
    """Whether the process has CAP_IPC_LOCK."""
    try:
        status = Path("/proc/self/status").read_text("ascii", "replace")
        effective = next((line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), "0")
    except OSError:
        return False
    return bool(int(effective, 16) >> _CAP_IPC_LOCK & 1)


def _cpus_there() -> str:
    return f"this machine lets the process have {_numbers(sorted(os.sched_getaffinity(0)))}"


def _numbers(cpus: Sequence[int]) -> str:
    return "CPU " + ", ".join(map(str, cpus))


def _glibc() -> ctypes.CDLL | None:
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "gnu_get_libc_version") else None
