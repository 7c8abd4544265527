"""``tensorrt`` and ``cuda-python`` as this interpreter has them, on one device; on a Jetson the first is JetPack's."""

from __future__ import annotations

import importlib
from typing import Any, Dict, List

from workers.backend import MISSING_LIBRARY, WRONG_DRIVER, BackendUnavailable, DeviceFault

_TYPES = {
    "FLOAT": "FP32",
    "HALF": "FP16",
    "BF16": "BF16",
    "INT8": "INT8",
    "UINT8": "UINT8",
    "INT32": "INT32",
    "INT64": "INT64",
    "BOOL": "BOOL",
}
"""TensorRT's names -> the protocol's. What is missing (FP8, INT4, FP4) no client could send."""

OUT_OF_MEMORY = 2
"""CUDA's number. What it refuses so leaves the device in order."""
_TOO_OLD = (35, 3)
"""CUDA's numbers for a driver that is older than the runtime, or that can't be initialised."""


class CudaFault(DeviceFault):
    """A call of CUDA's runtime failed; ``number`` is CUDA's."""

    def __init__(self, text: str, number: int) -> None:
        super().__init__(text)
        self.number = number


class Native:
    """The two libraries, on one device."""

    def __init__(self, device: int) -> None:
        """Raises BackendUnavailable: one can't be imported, or the driver does not take it."""
        self.trt = trt = _import_tensorrt()
        self.cuda = _import_cuda()
        self.device = device
        self.version = f"TensorRT {trt.__version__}"
        self.log = _Log()
        self.logger = _logger(trt, self.log)
        try:
            self.call("cudaSetDevice", device)
        except CudaFault as refused:
            old = refused.number in _TOO_OLD
            why = "; the driver is older than cuda-python, which has to be of its version of CUDA" if old else ""
            raise BackendUnavailable(f"{refused}{why}", WRONG_DRIVER if old else "") from refused
        known = {getattr(trt.DataType, name, None): datatype for name, datatype in _TYPES.items()}
        self.datatypes = {theirs: ours for theirs, ours in known.items() if theirs is not None}

    def call(self, name: str, *arguments: Any) -> Any:
        """What a function of CUDA's runtime returns beside its error. Raises CudaFault."""
        error, *results = getattr(self.cuda, name)(*arguments)
        number = int(error)
        if number:
            raise CudaFault(f"{name}: CUDA error {number} ({getattr(error, 'name', error)})", number)
        return results[0] if len(results) == 1 else tuple(results)

    def libraries(self) -> Dict[str, str]:
        """What an engine depends on, by name."""
        return {"tensorrt": str(self.trt.__version__), "cuda": str(self.call("cudaRuntimeGetVersion"))}

    def give_back(self, name: str, *arguments: Any) -> None:
        """A function of CUDA's runtime that gives back what may be gone already, with the device."""
        try:
            self.call(name, *arguments)
        except CudaFault:
            return


class _Log:
    """The last errors of TensorRT, which it tells to its logger alone."""

    def __init__(self) -> None:
        self._errors: List[str] = []

    def clear(self) -> None:
        self._errors = []

    def add(self, text: str) -> None:
        self._errors = [*self._errors[-2:], " ".join(text.split())[:300]]

    def because(self) -> str:
        """``: why``, or nothing if it has said nothing."""
        return ": " + "; ".join(self._errors) if self._errors else ""


def _import_tensorrt() -> Any:
    try:
        return importlib.import_module("tensorrt")
    except (ImportError, OSError) as missing:  # OSError: a library that it loads by itself
        raise BackendUnavailable(f"tensorrt can't be imported: {missing}", MISSING_LIBRARY) from missing


def _import_cuda() -> Any:
    """CUDA's runtime of cuda-python, under its present name or the one it had until 12.6."""
    why: List[str] = []
    for name in ("cuda.bindings.runtime", "cuda.cudart"):
        try:
            return importlib.import_module(name)
        except (ImportError, OSError) as missing:
            why.append(str(missing))
    raise BackendUnavailable(f"cuda-python can't be imported: {why[0]}", MISSING_LIBRARY)


def _logger(trt: Any, log: _Log) -> Any:
    """A logger that keeps errors. Made here: its class exists once the library is imported."""
    worst = (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR)

    class Logger(trt.ILogger):  # type: ignore[misc]  # of a library without types
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in worst:
                log.add(message)

    return Logger()
