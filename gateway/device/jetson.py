"""NVIDIA Jetson: load of the GPU and the counters of over-current events, which can throttle a cold chip."""

from __future__ import annotations

from pathlib import Path

from gateway.device.sensors import Reading, Unreadable, folders, read_int, read_text

_NAMES = ("gv11b", "gp10b", "ga10b", "gm20b", "gb10b", "gpu")
"""What the device tree, or the folder, calls the GPU; the last one from Orin on."""
_FULL = 1000
"""``load`` is in thousandths."""


class JetsonGpu:
    """GPU load from devfreq, and over-current throttling from hwmon."""

    def __init__(self, root: Path) -> None:
        self._devfreq = root / "class/devfreq"
        self._hwmon = root / "class/hwmon"
        self._events: dict[str, int] = {}

    @property
    def present(self) -> bool:
        return self._device() is not None

    def read(self, now: float) -> Reading:
        grown, known = self._growth()
        throttled = grown > 0 if known else None
        device = self._device()
        if device is None:
            return Reading("gpu load", now, throttled=throttled, throttle_events=grown, problem="no devfreq GPU")
        load, problem = None, ""
        try:
            raw = read_int(device / "device/load")
            load, problem = (raw / _FULL, "") if 0 <= raw <= _FULL else (None, f"load: {raw} is no per mille")
        except Unreadable as failed:
            problem = str(failed)
        return Reading("gpu load", now, throttled=throttled, load=load, throttle_events=grown, problem=problem)

    def _device(self) -> Path | None:
        for device in folders(self._devfreq, "*"):
            try:
                name = read_text(device / "device/of_node/name").rstrip("\0")
            except Unreadable:
                name = device.name
            if any(word in name.lower() for word in _NAMES):
                return device
        return None

    def _growth(self) -> tuple[int, bool]:
        """Events since the reading before. One at boot may cap clocks for ever: that shows in service times only."""
        grown, known = 0, False
        for counter in folders(self._hwmon, "hwmon*/oc*_event_cnt"):
            try:
                count = read_int(counter)
            except Unreadable:
                continue
            before = self._events.get(counter.name)
            self._events[counter.name] = count
            if before is not None:
                known = True
                grown += max(0, count - before)
        return grown, known
