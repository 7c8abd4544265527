"""Versions of a model ``m`` that multiplies, as manifests with their files: with nothing beside them, or with all."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from onnx.external_data_helper import set_external_data

from benchmarks.harness import manifest, scaled


def plain(folder: Path, label: str, factor: float, more: str = "", note: str = "") -> str:
    """Path of a manifest for y = factor x. ``more``: further lines of the spec; ``note``: text in the model."""
    model = scaled(factor)
    model.doc_string = note
    return manifest(folder, "m", label, model.SerializeToString(), more)


def with_files(folder: Path, label: str, factor: float, more: str = "", note: str = "") -> str:
    """The same with external data and golden samples, which have no checksum."""
    model = scaled(factor)
    model.doc_string = note
    (weight,) = model.graph.initializer
    content, name = weight.raw_data, f"factor-{label}.bin"
    set_external_data(weight, name, offset=0, length=len(content))
    weight.ClearField("raw_data")
    (folder / name).write_bytes(content)
    x = np.arange(8, dtype=np.float32).reshape(4, 2)
    np.savez(folder / f"golden-{label}.npz", x=x, y=x * np.float32(factor))
    golden = f"golden: {{uri: 'file:golden-{label}.npz'}}"
    path = Path(manifest(folder, "m", label, model.SerializeToString(), f"{golden}\n{more}"))
    listed = f'externalData: [{{path: {name}, checksum: "sha256:{hashlib.sha256(content).hexdigest()}"}}]'
    path.write_text(path.read_text().replace("}\n  hardware", f", {listed}}}\n  hardware"))
    return str(path)


def sources(folder: Path, label: str) -> list[Path]:
    """The files that a manifest's version is fetched from."""
    names = (f"m-{label}.onnx", f"factor-{label}.bin", f"golden-{label}.npz")
    return [path for name in names if (path := folder / name).exists()]
