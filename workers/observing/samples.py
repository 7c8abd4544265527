"""Samples: inputs of some requests, kept as .npz files in a folder with a bound, oldest out first."""

from __future__ import annotations

import os
import time
from collections import deque
from pathlib import Path
from typing import Deque, Mapping, Tuple

import numpy as np

REQUEST = "edgeway_request_id"
"""Array of the file that holds the id which the caller gave the request."""


def remove_samples(folder: Path) -> None:
    """Delete all samples of a version. Raises OSError."""
    if folder.is_dir():
        for path in [*folder.glob("*.npz"), *folder.glob("*.tmp")]:
            path.unlink(missing_ok=True)
        folder.rmdir()


class SampleFolder:
    """The newest samples of one version."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """What an earlier process left half-written is removed. Raises OSError."""
        self._folder = folder
        self._max_bytes = max_bytes
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob("*.tmp"):
            left.unlink(missing_ok=True)
        found = sorted(folder.glob("*.npz"))
        self._files: Deque[Tuple[Path, int]] = deque((path, path.stat().st_size) for path in found)
        self._bytes = sum(size for _, size in self._files)
        self._shrink()

    def keep(self, request: str, inputs: Mapping[str, np.ndarray]) -> None:
        """Text becomes arrays of bytes. A sample that alone is beyond the bound is not kept. Raises OSError."""
        arrays = {name: array.astype("S") if array.dtype.kind == "O" else array for name, array in inputs.items()}
        if sum(array.nbytes for array in arrays.values()) > self._max_bytes:
            return
        name = f"{time.time_ns():020d}"
        half, whole = self._folder / f"{name}.tmp", self._folder / f"{name}.npz"
        try:
            with half.open("wb") as file:
                np.savez(file, **{REQUEST: np.array(request), **arrays})  # type: ignore[arg-type]
            os.replace(half, whole)
        except OSError:
            half.unlink(missing_ok=True)
            raise
        size = whole.stat().st_size
        self._files.append((whole, size))
        self._bytes += size
        self._shrink()

    def _shrink(self) -> None:
        while self._bytes > self._max_bytes and self._files:
            path, size = self._files.popleft()
            path.unlink(missing_ok=True)
            self._bytes -= size
