"""Linear models in JSON, computed by numpy: ``{"weights": [[2, 0], [0, 2]], "bias": [1, 1]}`` is y = x W + b."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgeway.tensors import to_array, to_bytes
from workers.backend import (
    NO_FILES,
    BackendUnavailable,
    Heat,
    ModelRejected,
    Probe,
    RunFailed,
    Settings,
    Tensor,
    TensorSpec,
)


class LinearBackend:
    """What the gateway must know of a backend is declared here, as data."""

    name = "linear"
    kind = "cpu"  # or hardware, emulator, simulated: every answer says so, so it must be true
    formats: Sequence[str] = (".linear",)
    datatypes: Sequence[str] = ("FP32",)
    open_sizes = True
    empty_tensors = True
    can_cancel = False
    device = "numpy"

    def __init__(self, settings: Settings) -> None:
        if settings.options:
            raise BackendUnavailable(f"the linear backend has no options, got {', '.join(sorted(settings.options))}")
        self.runtime = f"numpy {np.__version__}"

    @classmethod
    def probe(cls) -> Probe:
        """Looks for the device, not for a package. What is missing: Probe(False, "because ...", "do ...", code=...)."""
        return Probe(True, "numpy computes it", devices=(cls.device,), runtime=f"numpy {np.__version__}")

    def load(self, content: bytes, name: str, external: Mapping[str, bytes] = NO_FILES) -> LinearModel:
        try:
            return LinearModel(json.loads(content))
        except (ValueError, KeyError, TypeError) as wrong:  # a library's own errors are translated here, each by name
            raise ModelRejected(f"{name} is no linear model: {wrong!r}") from wrong

    def heat(self) -> Heat:
        return Heat()  # no thermometer, and nobody else's work to wait for


class LinearModel:
    """One loaded file."""

    platform = "numpy_linear"
    provenance = "numpy, in this process"  # where it was proved to run; what isn't there raises NotOnDevice in load

    def __init__(self, file: dict[str, Any]) -> None:
        self._weights = np.asarray(file["weights"], np.float32)
        rows, columns = self._weights.shape
        self._bias = np.asarray(file["bias"], np.float32).reshape(columns)
        self.inputs = [TensorSpec("x", "FP32", (-1, rows))]
        self.outputs = [TensorSpec("y", "FP32", (-1, columns))]

    def run(self, inputs: dict[str, Tensor], outputs: Sequence[str], cancellation: Any) -> list[Tensor]:
        given = inputs["x"]
        try:
            y = to_array(given.datatype, given.shape, given.data) @ self._weights + self._bias
        except ValueError as failed:
            raise RunFailed(str(failed)) from failed
        return [Tensor("FP32", y.shape, to_bytes(y)) for _ in outputs]

    def bind(self, inputs: dict[str, Tensor], outputs: dict[str, Tensor]) -> None:
        """Runs that find their memory prepared would be no faster."""

    def close(self) -> None:
        self._weights = self._bias = np.empty(0, np.float32)
