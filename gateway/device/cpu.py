"""The CPU's own signs of heat: capped frequencies, throttle counters of x86, and its load."""

from __future__ import annotations

from pathlib import Path

from gateway.device.sensors import Reading, Unreadable, folders, read_int, read_text


class FrequencyCaps:
    """Whether some core may not go as fast as it could before.

    The highest limit seen is the measure, not ``cpuinfo_max_freq``: a limit that the owner set is no throttling.
    ``scaling_cur_freq`` is no help, it may be what was asked for.
    """

    def __init__(self, root: Path) -> None:
        self._root = root / "devices/system/cpu"
        self._highest: dict[str, int] = {}

    def read(self, now: float) -> Reading:
        capped, problems = False, []
        for policy in folders(self._root, "cpu[0-9]*/cpufreq"):
            name = policy.parent.name
            try:
                allowed = read_int(policy / "scaling_max_freq")
            except Unreadable as failed:
                problems.append(str(failed))
                continue
            if allowed <= 0:
                problems.append(f"{name}: scaling_max_freq is {allowed}")
                continue
            highest = self._highest[name] = max(allowed, self._highest.get(name, 0))
            capped |= allowed < highest
        throttled = capped if self._highest else None
        return Reading("cpufreq limits", now, throttled=throttled, problem="; ".join(problems))


class CountersOfX86:
    """Throttle counters of Intel cores: they only grow, so what counts is their growth since the reading before."""

    def __init__(self, root: Path) -> None:
        self._root = root / "devices/system/cpu"
        self._seen: dict[str, int] = {}

    def read(self, now: float) -> Reading:
        grown, known = 0, False
        for counter in folders(self._root, "cpu[0-9]*/thermal_throttle/*_throttle_count"):
            try:
                count = read_int(counter)
            except Unreadable:
                continue
            name = f"{counter.parent.parent.name}/{counter.name}"
            before = self._seen.get(name)
            self._seen[name] = count
            if before is not None:
                known = True
                grown += max(0, count - before)  # it begins anew when the core was off
        return Reading("throttle counters", now, throttled=grown > 0 if known else None, throttle_events=grown)


class CpuLoad:
    """Share of time that all cores were busy since the reading before, from ``/proc/stat``."""

    def __init__(self, proc_root: Path) -> None:
        self._path = proc_root / "stat"
        self._seen: tuple[int, int] | None = None

    def read(self, now: float) -> Reading:
        try:
            fields = [int(field) for field in read_text(self._path).splitlines()[0].split()[1:9]]
        except Unreadable as failed:
            return Reading("cpu load", now, problem=str(failed))
        except (ValueError, IndexError):
            return Reading("cpu load", now, problem="stat: the first line is not as expected")
        if len(fields) < 5:
            return Reading("cpu load", now, problem="stat: the first line is too short")
        total, idle = sum(fields), fields[3] + fields[4]
        before, self._seen = self._seen, (total, idle)
        if before is None or total <= before[0]:
            return Reading("cpu load", now)
        busy = 1 - (idle - before[1]) / (total - before[0])
        return Reading("cpu load", now, load=min(1.0, max(0.0, busy)))
