"""Models in this backend's format, for Edgeway's contract suite: what the format can't say is left out by the suite."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from benchmarks.contract import NotPossible


class Models:
    """Writes ``.linear`` files."""

    suffix = ".linear"

    def identity(self, datatype: str, shape: Sequence[int]) -> bytes:
        if datatype != "FP32" or len(shape) != 2 or shape[1] < 1:
            raise NotPossible("a linear model takes rows of FP32, as wide as its weights are")
        return _file(np.eye(shape[1]))

    def scaled(self, factor: float, open_sizes: bool) -> bytes:
        return _file(factor * np.eye(4))

    def large(self, megabytes: int) -> bytes:
        raise NotPossible("JSON of that size says more about the parser")

    def raising(self) -> tuple[bytes, list[np.ndarray]]:
        raise NotPossible("no run of a linear model fails")

    def slow(self, seconds: float) -> bytes:
        raise NotPossible("no linear model is slow")


def _file(weights: np.ndarray) -> bytes:
    return json.dumps({"weights": weights.tolist(), "bias": [0.0] * weights.shape[1]}).encode()
