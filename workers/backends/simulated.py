"""Simulated accelerator: true outputs, computed on the CPU, with scripted speed, queue, heat and faults.

Times in the script are seconds since the worker was first started, or since ``origin`` (``time.monotonic()`` of this
machine): a script goes on where it was when the process is replaced.
"""

from __future__ import annotations

import ctypes
import math
import os
import signal
import threading
import time
from typing import Any, Dict, List, Mapping, Optional, Sequence

import numpy as np

from workers.backend import (
    NO_FILES,
    Bound,
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
from workers.simulation.chip import VANISHED, Chip
from workers.simulation.options import read_options

_LONGEST_SLEEP = 2000.0
"""Seconds. ``usleep`` counts microseconds in 32 bits."""

_LEAST_PRIORITY = 19
_CHUNK = 1 << 20
"""Bytes filled at a time."""


class SimulatedBackend:
    """Drives nothing: a stand-in for an accelerator, labelled simulated wherever it shows."""

    name = "simulated"
    kind = "simulated"
    formats: Sequence[str] = (".onnx",)
    datatypes: Sequence[str] = CpuBackend.datatypes
    open_sizes = CpuBackend.open_sizes
    empty_tensors = CpuBackend.empty_tensors
    can_cancel = True
    device = "simulated accelerator"

    def __init__(self, settings: Settings) -> None:
        """Raises BackendUnavailable: an option is unknown or makes no sense."""
        options = read_options(settings.options)
        self._origin = (settings.first_start or time.monotonic()) if options.origin is None else options.origin
        self._cpu = CpuBackend(Settings(settings.name, settings.threads, settings.instances))
        self.datatypes = self._cpu.datatypes
        self.runtime = f"simulated on {self._cpu.runtime}"
        self._chip = Chip(options, settings.name, self._origin, self.now())
        self._resident = np.empty(options.resident_bytes, dtype=np.uint8)
        if options.resident_bytes:
            threading.Thread(target=_occupy, args=(self._resident,), name="resident", daemon=True).start()

    @classmethod
    def probe(cls) -> Probe:
        cpu = CpuBackend.probe()
        if not cpu.available:
            return cpu
        return Probe(True, "a simulation, which needs no hardware", devices=(cls.device,), runtime=cpu.runtime)

    def load(self, content: bytes, name: str, external: Mapping[str, bytes] = NO_FILES) -> Model:
        return SimulatedModel(self, self._chip, self._cpu.load(content, name, external))

    def heat(self) -> Heat:
        return self._chip.report(self.now())

    def now(self) -> float:
        """Seconds of the script."""
        return time.monotonic() - self._origin


def _occupy(memory: np.ndarray) -> None:
    """Touch every page, so that the process holds them and its death takes its time.

    Beside the start, at the lowest priority and half of the time at most, as a driver's transfer would: a core that
    does nothing but fill pages for a second is no part of what is simulated. ``ctypes`` calls without the
    interpreter's lock.
    """
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LEAST_PRIORITY)
    pause = threading.Event()
    for start in range(0, memory.nbytes, _CHUNK):
        began = time.monotonic()
        ctypes.memset(memory.ctypes.data + start, 1, min(_CHUNK, memory.nbytes - start))
        pause.wait(time.monotonic() - began)


class SimulatedModel:
    """A model of the CPU backend whose runs follow the script."""

    platform = "simulated_onnx"

    def __init__(self, backend: SimulatedBackend, chip: Chip, model: Model) -> None:
        self.inputs = model.inputs
        self.outputs = model.outputs
        self.provenance = f"simulated; computed by {model.provenance}"
        self._backend = backend
        self._chip = chip
        self._model = model

    def run(self, inputs: Dict[str, Tensor], outputs: Sequence[str], cancellation: Cancellation) -> List[Tensor]:
        began = time.monotonic()
        stopped = _Stop(cancellation)
        number, queued = self._chip.arrive(self._backend.now())
        _wait(queued, stopped)
        decision = self._chip.begin(number, self._backend.now())
        if decision.crash:
            os.kill(os.getpid(), signal.SIGKILL)
        if decision.hang:
            _hang(decision.hang)
        if decision.error:
            raise RunFailed("a scripted error of the simulated accelerator")
        if decision.vanished:
            raise DeviceFault(VANISHED)
        results = self._model.run(inputs, outputs, stopped)
        if decision.wrong:
            results = [_perturbed(result) for result in results]
        # The service time is the floor of the whole run: what computing took counts toward it.
        _wait(decision.service - (time.monotonic() - began), stopped)
        self._chip.end(self._backend.now())
        return results

    def bind(self, inputs: Dict[str, Tensor], outputs: Dict[str, Tensor]) -> Optional[Bound]:
        """Nothing is gained: the script says how long a run takes."""
        del inputs, outputs
        return None

    def close(self) -> None:
        self._model.close()


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


def _hang(seconds: float) -> None:
    """Wait in C, holding no lock of ours: as deaf as a driver call."""
    libc = ctypes.CDLL(None)
    while math.isinf(seconds):
        libc.pause()
    libc.usleep(int(min(seconds, _LONGEST_SLEEP) * 1e6))


def _perturbed(tensor: Tensor) -> Tensor:
    """Bytes with every last bit of an element's last byte turned: close in form, wrong in value."""
    changed = np.frombuffer(tensor.data, dtype=np.uint8).copy()
    if tensor.datatype != "BYTES":
        changed ^= 0x15
    return Tensor(tensor.datatype, tensor.shape, memoryview(changed))
