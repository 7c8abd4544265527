"""Reading of a drift reference: an .npz file that may have come from anywhere."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Dict

import numpy as np

from workers.observing.drift import NoReference

LARGEST = 128 * 1024 * 1024
"""Bytes of all its arrays, unpacked."""


def read_reference(path: Path) -> Dict[str, np.ndarray]:
    """Its arrays, by name. Raises NoReference."""
    try:
        with zipfile.ZipFile(path) as packed:
            size = sum(member.file_size for member in packed.infolist())
        if size > LARGEST:
            raise NoReference(f"{path.name}: {size} bytes unpacked, at most {LARGEST} are read")
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except NoReference:
        raise
    except Exception as wrong:
        raise NoReference(f"{path.name} is no .npz file of numbers: {wrong}") from wrong
