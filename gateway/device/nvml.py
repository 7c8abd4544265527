"""NVIDIA GPUs by NVML: needs ``nvidia-ml-py``, which is optional, and the driver's library."""

from __future__ import annotations

import importlib
from typing import Any

from gateway.device.sensors import Reading

_THERMAL = 0x20 | 0x40
"""Clocks-event reasons: software and hardware thermal slowdown. 0x8 alone may be a power brake, 0x4 a power limit."""
_POWER_BRAKE = 0x80
_HW_SLOWDOWN = 0x8
_GPU, _SLOWDOWN = 0, 1
_RETRY = 30.0
"""Seconds until a library that was not there is looked for again."""


class NvmlGpu:
    """Temperature, thermal throttling and load of one GPU."""

    def __init__(self, index: int = 0, library: Any = None) -> None:
        """``library``: a module like ``pynvml``; None: that one, imported at the first reading."""
        self._index = index
        self._library = library
        self._handle: Any = None
        self._problem = ""
        self._next_try = float("-inf")
        self._throttled = False

    def read(self, now: float) -> Reading:
        source = f"gpu {self._index}"
        if self._handle is None:
            if now >= self._next_try:
                self._next_try = now + _RETRY
                self._problem = self._open()
            if self._handle is None:
                return Reading(source, now, problem=self._problem)
        library = self._library
        try:
            temperature = self._temperature()
            reasons = self._ask(
                lambda: library.nvmlDeviceGetCurrentClocksEventReasons(self._handle),
                lambda: library.nvmlDeviceGetCurrentClocksThrottleReasons(self._handle),
            )
            busy = self._ask(lambda: library.nvmlDeviceGetUtilizationRates(self._handle).gpu)
            limit = self._limit(temperature)
        except _Gone as gone:
            self._handle = None  # it comes back by a reset, under a new handle
            return Reading(source, now, lost=str(gone), problem=str(gone))
        throttled = None if reasons is None else bool(_slowed(int(reasons)))
        begun = int(bool(throttled) and not self._throttled)
        self._throttled = bool(throttled)
        load = min(1.0, max(0.0, busy / 100)) if busy is not None else None
        return Reading(
            source,
            now,
            None if temperature is None else float(temperature),
            throttled,
            limit,
            load,
            "" if temperature is not None else "the GPU gives no temperature",
            throttle_events=begun,
            vouched=True,
        )

    def _open(self) -> str:
        """Why it can't be opened; empty if it is open."""
        if self._library is None:
            try:
                self._library = importlib.import_module("pynvml")
            except ImportError:
                return "nvidia-ml-py is not installed: pip install 'edgeway[tensorrt]'"
        library = self._library
        try:
            library.nvmlInit()
            self._handle = library.nvmlDeviceGetHandleByIndex(self._index)
        except library.NVMLError as refused:
            return f"NVML: {refused}"
        return ""

    def _temperature(self) -> Any:
        library = self._library
        return self._ask(
            lambda: library.nvmlDeviceGetTemperatureV(self._handle, _GPU),
            lambda: library.nvmlDeviceGetTemperature(self._handle, _GPU),
        )

    def _limit(self, temperature: Any) -> float | None:
        """Where the slowdown begins: the margin is what all generations have, the threshold is on its way out."""
        library = self._library
        margin = self._ask(lambda: library.nvmlDeviceGetMarginTemperature(self._handle))
        if margin is not None and temperature is not None:
            return float(temperature + margin)
        threshold = self._ask(lambda: library.nvmlDeviceGetTemperatureThreshold(self._handle, _SLOWDOWN))
        return None if threshold is None else float(threshold)

    def _ask(self, *questions: Any) -> Any:
        """The first answer; None if this GPU, driver or binding has none. Raises _Gone."""
        library = self._library
        for question in questions:
            try:
                return question()
            except AttributeError:
                continue  # the binding is older than the function, or newer
            except library.NVMLError as refused:
                if type(refused).__name__ in ("NVMLError_GpuIsLost", "NVMLError_Uninitialized"):
                    raise _Gone(f"NVML: {refused}") from refused
        return None


class _Gone(Exception):
    """The driver says that the GPU is lost."""


def _slowed(reasons: int) -> int:
    """Bits that mean heat, or a slowdown that is not a mere power brake."""
    return reasons & _THERMAL or (reasons & _HW_SLOWDOWN and not reasons & _POWER_BRAKE)
