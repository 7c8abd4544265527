"""What a call gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Result:
    """The outputs of one inference, and who computed them."""

    outputs: Mapping[str, np.ndarray]
    """By name; read-only views of the message (BYTES: arrays of bytes objects; BF16: widened to float32)."""
    model: str
    version: str
    served_by: str
    """The worker's name."""
    accelerator: str
    """Its backend kind."""
    kind: str
    """``hardware``, ``emulator``, ``cpu``, ``simulated`` or ``remote``."""
    degraded: bool
    """Another than the first target served."""
    reason: str
    """Why the first did not; empty if it did."""
    queue_ms: float
    """From the gateway's door until the run began."""
    compute_ms: float
    """The run."""
    total_ms: float
    """All of the gateway's time."""
    budget_left_ms: float
    """Negative where the answer is late."""
    wall_ms: float
    """What the caller waited."""
    id: str = ""

    def __getitem__(self, name: str) -> np.ndarray:
        return self.outputs[name]


@dataclass(frozen=True)
class TensorMetadata:
    """An input or output; ``shape`` has -1 where any size will do."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ModelMetadata:
    """What a model takes and gives."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]
