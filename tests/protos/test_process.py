"""What a process sets about itself takes effect, or is refused with a remedy; read back from the kernel."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

UNPRIVILEGED = """
import encodings.ascii, resource  # what is imported later may be readable for root alone
resource.setrlimit(resource.RLIMIT_RTPRIO, (0, 0))
resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))
resource.setrlimit(resource.RLIMIT_NICE, (0, 0))
if os.geteuid() == 0:
    os.setuid(65534)
"""
READ_BACK = """
locked = next(line for line in open("/proc/self/status") if line.startswith("VmLck"))
print(json.dumps({
    "cpus": sorted(os.sched_getaffinity(0)), "nice": os.getpriority(os.PRIO_PROCESS, 0),
    "policy": os.sched_getscheduler(0), "priority": os.sched_getparam(0).sched_priority,
    "lockedKB": int(locked.split()[1]), "refused": refused,
}))
"""


def applied(before: str = "", cpus: tuple[int, ...] = (), nice: int = 0, realtime: int = 0, lock: bool = False) -> dict:
    code = "import json, os\nfrom edgeway.process import apply_settings\n" + before
    code += f"\nrefused = apply_settings({cpus!r}, {nice}, {realtime}, {lock})\n" + READ_BACK
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def granted(**setting: object) -> dict:
    """The process after this setting; skips where this machine does not grant it to us."""
    found = applied(**setting)
    if found["refused"]:
        pytest.skip(f"not granted here: {found['refused'][0]}")
    return found


def test_cpus_and_nice_take_effect():
    last = max(os.sched_getaffinity(0))
    found = applied(cpus=(last,), nice=os.getpriority(os.PRIO_PROCESS, 0) + 3)
    assert (found["cpus"], found["nice"], found["refused"]) == ([last], os.getpriority(os.PRIO_PROCESS, 0) + 3, [])


def test_realtime_priority_takes_effect():
    found = granted(realtime=7)
    assert (found["policy"], found["priority"]) == (os.SCHED_FIFO, 7)


def test_what_is_started_at_a_realtime_priority_becomes_an_ordinary_process_when_told_so():
    found = applied("os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(3))" if _may_fifo() else "")
    assert (found["policy"], found["refused"]) == (os.SCHED_OTHER, [])


def test_locked_memory_is_what_was_touched_and_no_more():
    found = granted(lock=True)
    assert found["lockedKB"] > 1024
    assert granted()["lockedKB"] == 0


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"realtime": 9}, ["realtimePriority: 9: ", "CAP_SYS_NICE", "LimitRTPRIO=9"]),
        ({"lock": True}, ["lockMemory: ", "RLIMIT_MEMLOCK", "CAP_IPC_LOCK", "LimitMEMLOCK=infinity"]),
        ({"nice": -5}, ["nice: -5: ", "CAP_SYS_NICE", "LimitNICE="]),
        ({"cpus": (4000,)}, ["cpus: CPU 4000: ", "this machine lets the process have CPU "]),
    ],
)
def test_what_is_refused_is_said_with_its_remedy_and_changes_nothing(setting, says):
    before, after = applied(UNPRIVILEGED, nice=_nice()), applied(UNPRIVILEGED, **{"nice": _nice(), **setting})
    (problem,) = after.pop("refused")
    assert before.pop("refused") == []
    assert [part for part in says if part not in problem] == []
    assert after == before


def test_of_cpus_only_some_of_which_exist_it_is_said_which_can_be_had():
    first = min(os.sched_getaffinity(0))
    (problem,) = applied(cpus=(first, 1000), nice=_nice())["refused"]
    assert f"only CPU {first} can be had" in problem


def test_a_refused_setting_leaves_the_others_in_force():
    found = applied(UNPRIVILEGED, realtime=9, nice=_nice() + 2)
    assert (found["nice"], len(found["refused"])) == (_nice() + 2, 1)


def _nice() -> int:
    return os.getpriority(os.PRIO_PROCESS, 0)


def _may_fifo() -> bool:
    code = "import os; os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(3))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
