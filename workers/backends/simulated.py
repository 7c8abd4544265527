"""Simulated accelerator: true outputs, computed on the CPU, with scripted speed, queue, heat and faults.

Times in the script are seconds since the worker was first started, or since ``origin`` (``time.monotonic()`` of this
machine): a script goes on where it was when the process is replaced.
"""

from __future__ import annotations

import ctypes
import math
import os
import random
import signal
import threading
import time
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from workers.backend import (
    BackendUnavailable,
    Cancellation,
    DeviceFault,
    Heat,
    Model,
    Probe,
    RunCancelled,
    RunFailed,
    Settings,
    Tensor,
)
from workers.backends.cpu import CpuBackend

_MB = 1 << 20
_ONCE = 1.0
"""Seconds within which a crash or hang without a duration happens, so that the next process is spared."""
_OPTIONS = ("serviceMs", "jitterMs", "seed", "residentMB", "origin", "queue", "heat", "faults")
_HEAT = ("points", "bands", "slowdown")
_BANDS = ("warm", "hot", "critical")
_FAULTS = ("crash", "hang", "error", "wrong", "vanish")
_BAND_DEFAULTS = {"warm": 65.0, "hot": 75.0, "critical": 85.0}
_SLOWDOWN_DEFAULTS = {"warm": 1.0, "hot": 4.0, "critical": 10.0}


class SimulatedBackend:
    """Drives nothing: a stand-in for an accelerator, labelled simulated wherever it shows."""

    name = "simulated"
    kind = "simulated"
    formats: Sequence[str] = (".onnx",)
    can_cancel = True
    device = "simulated accelerator"

    def __init__(self, settings: Settings) -> None:
        """Raises BackendUnavailable: an option is unknown or makes no sense."""
        self._script = Script(settings.options, settings.first_start)
        self._cpu = CpuBackend(Settings(settings.name, settings.threads, settings.instances))
        self.runtime = f"simulated on {self._cpu.runtime}"
        self._resident = np.ones(self._script.resident_bytes, dtype=np.uint8)  # touched, so that death takes its time

    @classmethod
    def probe(cls) -> Probe:
        cpu = CpuBackend.probe()
        if not cpu.available:
            return cpu
        return Probe(True, "a simulation, which needs no hardware", devices=(cls.device,), runtime=cpu.runtime)

    def load(self, content: bytes, name: str) -> Model:
        return SimulatedModel(self._script, self._cpu.load(content, name))

    def heat(self) -> Heat:
        return self._script.heat()


class SimulatedModel:
    """A model of the CPU backend whose runs follow the script."""

    platform = "simulated_onnx"

    def __init__(self, script: Script, model: Model) -> None:
        self.inputs = model.inputs
        self.outputs = model.outputs
        self._script = script
        self._model = model

    def run(self, inputs: Dict[str, Tensor], outputs: Sequence[str], cancellation: Cancellation) -> List[Tensor]:
        began = time.monotonic()
        stopped = _Stop(cancellation)
        _wait(self._script.backlog(), stopped)
        fault = self._script.fault()
        results = self._model.run(inputs, outputs, stopped)
        if fault == "wrong":
            results = [_perturbed(result) for result in results]
        # The service time is the floor of the whole run: what computing took counts toward it.
        _wait(self._script.service_seconds() - (time.monotonic() - began), stopped)
        return results

    def close(self) -> None:
        self._model.close()


class Script:
    """The options of a simulated worker, and what they say of now."""

    def __init__(self, options: Mapping[str, Any], first_start: float = 0.0) -> None:
        _known(options, _OPTIONS, "options")
        self._service = _number(options, "serviceMs", 0.0) / 1e3
        self._jitter = _number(options, "jitterMs", 0.0) / 1e3
        self._random = random.Random(int(_number(options, "seed", 0)))  # noqa: S311 - jitter, no secret
        self.resident_bytes = int(_number(options, "residentMB", 0.0) * _MB)
        self._origin = _number(options, "origin", first_start or time.monotonic())
        self._queue = [_queue_entry(entry) for entry in options.get("queue", ())]
        heat = options.get("heat", {})
        _known(heat, _HEAT, "options.heat")
        self._points = [(float(at), float(celsius)) for at, celsius in heat.get("points", ())]
        self._bands = {**_BAND_DEFAULTS, **heat.get("bands", {})}
        self._slowdown = {**_SLOWDOWN_DEFAULTS, **heat.get("slowdown", {})}
        _known(self._bands, _BANDS, "options.heat.bands")
        _known(self._slowdown, _BANDS, "options.heat.slowdown")
        self._faults = [_fault_entry(entry) for entry in options.get("faults", ())]
        self._done: List[int] = []
        self._runs = 0
        self._lock = threading.Lock()

    def now(self) -> float:
        return time.monotonic() - self._origin

    def service_seconds(self) -> float:
        """How long a run takes in all, at present heat."""
        slow: float = self._slowdown.get(self.heat().band, 1.0)
        return (self._service + self._random.uniform(0.0, self._jitter)) * slow

    def backlog(self) -> float:
        """Seconds that others' work will still take before ours begins."""
        now = self.now()
        return max((backlog for at, end, backlog in self._queue if at <= now < end), default=0.0)

    def heat(self) -> Heat:
        now = self.now()
        lost = "the simulated accelerator vanished" if self._active("vanish", now) is not None else ""
        if not self._points:
            return Heat(backlog_seconds=self.backlog(), lost=lost)
        celsius = float(np.interp(now, [at for at, _ in self._points], [degrees for _, degrees in self._points]))
        band = "nominal"
        for name in _BANDS:
            if celsius >= self._bands[name]:
                band = name
        return Heat(band, celsius, self.backlog(), lost)

    def fault(self) -> str:
        """Apply the faults that are due: crash and hang don't return, error and vanish raise, ``wrong`` is returned."""
        now = self.now()
        with self._lock:
            self._runs += 1
        if self._active("crash", now) is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        hang = self._active("hang", now)
        if hang is not None:
            # In C, holding no lock of ours: as deaf as a driver call.
            ctypes.CDLL(None).usleep(int(min(hang, 2000.0) * 1e6)) if math.isfinite(hang) else _hang_for_ever()
        if self._active("error", now) is not None:
            raise RunFailed("a scripted error of the simulated accelerator")
        if self._active("vanish", now) is not None:
            raise DeviceFault("the simulated accelerator vanished")
        return "wrong" if self._active("wrong", now) is not None else ""

    def _active(self, kind: str, now: float) -> Optional[float]:
        """Seconds that a fault still lasts, if one of this kind is due; one without a duration of its own happens once,
        but for ``vanish``, which stays. The next process does not make up for a crash or hang that is over.
        """
        for index, (what, at, after_runs, seconds) in enumerate(self._faults):
            due = self._runs >= after_runs if after_runs is not None else now >= at
            if what != kind or not due:
                continue
            if kind in ("error", "wrong", "vanish") and (seconds is None or now < at + seconds):
                return seconds or math.inf
            over = after_runs is None and now >= at + (seconds or _ONCE)
            if kind in ("crash", "hang") and index not in self._done and not over:
                self._done.append(index)
                return seconds - (now - at if after_runs is None else 0.0) if seconds else math.inf
        return None


class _Stop:
    """A cancellation that also wakes our own waiting."""

    def __init__(self, cancellation: Cancellation) -> None:
        self._cancellation = cancellation
        self._stop: Any = None
        self.event = threading.Event()
        cancellation.on_cancel(self._cancelled)

    @property
    def cancelled(self) -> bool:
        return self._cancellation.cancelled

    def on_cancel(self, stop: Any) -> None:
        self._stop = stop
        if self.event.is_set():
            stop()

    def _cancelled(self) -> None:
        self.event.set()
        if self._stop is not None:
            self._stop()


def _wait(seconds: float, stop: _Stop) -> None:
    """Raises RunCancelled: nobody waits any more."""
    if seconds > 0 and stop.event.wait(seconds):
        raise RunCancelled("ended because nobody waits for it")


def _hang_for_ever() -> None:
    while True:
        ctypes.CDLL(None).pause()


def _perturbed(tensor: Tensor) -> Tensor:
    """Bytes with every last bit of an element's last byte turned: close in form, wrong in value."""
    changed = np.frombuffer(tensor.data, dtype=np.uint8).copy()
    if tensor.datatype != "BYTES":
        changed ^= 0x15
    return Tensor(tensor.datatype, tensor.shape, memoryview(changed))


def _known(given: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in given:
        if key not in known:
            raise BackendUnavailable(f"{where}.{key}: unknown; known are {', '.join(known)}")


def _number(given: Mapping[str, Any], key: str, default: float) -> float:
    value = given.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
        raise BackendUnavailable(f"options.{key}: expected a number >= 0, got {value!r}")
    return float(value)


def _queue_entry(entry: Mapping[str, Any]) -> Tuple[float, float, float]:
    """(from, until, seconds of others' work)."""
    _known(entry, ("at", "seconds", "backlogMs"), "options.queue")
    at = _number(entry, "at", 0.0)
    return at, at + _number(entry, "seconds", math.inf), _number(entry, "backlogMs", 0.0) / 1e3


def _fault_entry(entry: Mapping[str, Any]) -> Tuple[str, float, Optional[int], Optional[float]]:
    """(what, from, or after how many runs, for how long)."""
    _known(entry, ("at", "afterRuns", "seconds", *_FAULTS), "options.faults")
    kinds = [kind for kind in _FAULTS if entry.get(kind)]
    if len(kinds) != 1:
        raise BackendUnavailable(f"options.faults: one of {', '.join(_FAULTS)} must be true, got {dict(entry)!r}")
    after = entry.get("afterRuns")
    seconds = _number(entry, "seconds", 0.0) if "seconds" in entry else None
    return kinds[0], _number(entry, "at", 0.0), None if after is None else int(after), seconds
