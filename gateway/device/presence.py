"""Presence: which accelerators are here, by device files and sysfs, and which could be driven. Imports no runtime, and
opens no device: it is asked before the workers are started, and takes a few milliseconds.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_NVIDIA, _INTEL = "0x10de", "0x8086"
_DISPLAY = "0x03"
"""How PCI classes of GPUs begin."""
_CORAL_USB = {("1a6e", "089a"), ("18d1", "9302")}
"""USB ids: as it is plugged in, and after its runtime has loaded the firmware."""

_LIBRARIES: Mapping[str, Sequence[tuple[str, str]]] = {
    "tensorrt": (("tensorrt", ""), ("onnxruntime", "capi/libonnxruntime_providers_tensorrt.so")),
    "edgetpu": (("ai_edge_litert", ""), ("tflite_runtime", "")),
    "openvino": (("onnxruntime", "capi/libonnxruntime_providers_openvino.so"),),
    "qnn": (("onnxruntime_qnn", ""),),
}
"""By backend: a module that must be there, one of them, and a file in it where the module alone says too little."""
_INSTALL = {
    "tensorrt": "TensorRT, or onnxruntime-gpu in an environment that workers[].python names",
    "edgetpu": "ai-edge-litert and libedgetpu",
    "openvino": "onnxruntime-openvino in an environment that workers[].python names",
    "qnn": "onnxruntime-qnn in an environment that workers[].python names",
}


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One that was found. ``backend``: what would drive it, with these options."""

    backend: str
    device: str
    """For people, with the file by which it was found."""
    options: Mapping[str, Any] = field(default_factory=dict)
    lacks: str = ""
    """What has to be installed before a worker can use it; empty: nothing."""


def look(
    sysfs_root: str = "/sys", dev_root: str = "/dev", find: Callable[[str], Any] = importlib.util.find_spec
) -> list[Accelerator]:
    """Every accelerator of this device that a backend could drive, best first within a kind.

    Args:
        sysfs_root: where sysfs is mounted.
        dev_root: folder of device files.
        find: as ``importlib.util.find_spec``: finds a module without importing it.
    """
    found = [
        *_nvidia(Path(sysfs_root), Path(dev_root)),
        *_edge_tpus(Path(sysfs_root), Path(dev_root)),
        *_intel(Path(sysfs_root), Path(dev_root)),
        *_qualcomm(Path(dev_root)),
    ]
    return [each if each.lacks else _with_library(each, find) for each in found]


def _with_library(accelerator: Accelerator, find: Callable[[str], Any]) -> Accelerator:
    """Raises nothing: a module that can't be looked for is not there."""
    for module, file in _LIBRARIES[accelerator.backend]:
        try:
            spec = find(module)
        except (ImportError, ValueError):
            continue
        places = (spec.submodule_search_locations or ()) if spec is not None else ()
        if spec is not None and (not file or any(Path(place, file).exists() for place in places)):
            return accelerator
    return Accelerator(accelerator.backend, accelerator.device, accelerator.options, _INSTALL[accelerator.backend])


def _nvidia(sysfs: Path, dev: Path) -> Iterator[Accelerator]:
    nodes = [name for name in _listed(dev) if re.fullmatch(r"nvidia\d+", name)]
    nodes = sorted(nodes, key=lambda name: int(name[6:]))
    nodes = nodes or [name for name in ("nvhost-gpu", "nvgpu") if name in _listed(dev)]  # of a Jetson
    for number, name in enumerate(nodes):
        options = {"device": number} if len(nodes) > 1 else {}
        yield Accelerator("tensorrt", f"NVIDIA GPU ({dev}/{name})", options)
    if not nodes:
        pci = sysfs / "bus" / "pci" / "devices"
        for name in _listed(pci):
            folder = pci / name
            if _read(folder, "vendor") == _NVIDIA and _read(folder, "class").startswith(_DISPLAY):
                yield Accelerator("tensorrt", f"NVIDIA GPU (PCI {name})", lacks="the NVIDIA driver: no /dev/nvidia0")


def _edge_tpus(sysfs: Path, dev: Path) -> Iterator[Accelerator]:
    found = [("pci", f"Coral Edge TPU, PCIe ({dev}/{name})") for name in _listed(dev) if _apex(name)]
    usb = sysfs / "bus" / "usb" / "devices"
    for name in _listed(usb):
        folder = usb / name
        if (_read(folder, "idVendor"), _read(folder, "idProduct")) in _CORAL_USB:
            found.append(("usb", f"Coral Edge TPU, USB ({name})"))
    counts = {"pci": 0, "usb": 0}
    for bus, device in found:
        yield Accelerator("edgetpu", device, {"device": f"{bus}:{counts[bus]}"} if len(found) > 1 else {})
        counts[bus] += 1


def _apex(name: str) -> bool:
    return re.fullmatch(r"apex_\d+", name) is not None


def _intel(sysfs: Path, dev: Path) -> Iterator[Accelerator]:
    for kind, folder, prefix, group in (("NPU", "accel", "accel", "accel"), ("GPU", "dri", "renderD", "drm")):
        for name in _listed(dev / folder):
            about = sysfs / "class" / group / name / "device"
            if name.startswith(prefix) and _read(about, "vendor") == _INTEL:
                yield Accelerator("openvino", f"Intel {kind} ({dev}/{folder}/{name})", {"device": kind})
                break  # OpenVINO's names of a second one are its own


def _qualcomm(dev: Path) -> Iterator[Accelerator]:
    for name in _listed(dev):
        if name.startswith(("fastrpc-cdsp", "adsprpc-smd")):
            yield Accelerator("qnn", f"Qualcomm Hexagon ({dev}/{name})")
            return  # several files of one DSP


def _listed(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in folder.iterdir())
    except OSError:
        return []


def _read(folder: Path, name: str) -> str:
    try:
        with (folder / name).open(encoding="ascii", errors="replace") as file:
            return file.read(64).strip()
    except OSError:
        return ""
