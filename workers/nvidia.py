"""NVIDIA GPUs of this box: found by device nodes, the PCI bus and the driver's own libraries, not by packages."""

from __future__ import annotations

import ctypes
import glob
import grp
import importlib
import os
from dataclasses import dataclass
from typing import Any, List, NamedTuple, Sequence, Tuple

from workers.backend import DEVICE_BUSY, MISSING_DEVICE, NO_PERMISSION, WRONG_DRIVER

_NODES = ("nvidia[0-9]*", "nvhost-gpu", "nvhost-ctrl-gpu", "nvgpu/igpu0/*")
"""Nodes of GPUs below /dev: of the desktop's driver, then of Jetsons."""
_MODULES = ("nvidia", "nvgpu")
_VENDOR = "0x10de"
_DISPLAY = "0x03"
"""Class of PCI devices that show, or compute."""
_DRIVER = (
    "install the NVIDIA driver, on a Jetson JetPack; in a container, start it with the NVIDIA runtime (--gpus all)"
)
_SAME = "reboot, so that the kernel's module and the driver's libraries are of one version; or install them anew"

# Of cuInit and what follows it: what the number means, its code, and what to do.
_CUDA = {
    3: ("the driver is not initialised", WRONG_DRIVER, _DRIVER),
    34: ("the driver's library is a stub, which comes with compilers and drives nothing", WRONG_DRIVER, _DRIVER),
    46: ("the device is busy or unavailable", DEVICE_BUSY, "end what holds it, or: nvidia-smi -c DEFAULT"),
    100: ("the driver finds no device", MISSING_DEVICE, "look at CUDA_VISIBLE_DEVICES, and at dmesg for the GPU"),
    101: ("no device has that number", MISSING_DEVICE, "set options.device to one that is there"),
    304: ("the system refused the driver a call", NO_PERMISSION, "let this user open the device nodes"),
    802: ("the driver is not ready yet", WRONG_DRIVER, "wait for, or start, nvidia-fabricmanager and -persistenced"),
    803: ("the driver's library and its kernel module differ", WRONG_DRIVER, _SAME),
    804: ("this GPU can't be driven by a compatibility package", WRONG_DRIVER, _SAME),
}
# Of NVML, by the binding's class, which is the library's own name.
_NVML = {
    "NVMLError_DriverNotLoaded": (WRONG_DRIVER, "modprobe nvidia; look at dmesg for why it is not loaded"),
    "NVMLError_LibRmVersionMismatch": (WRONG_DRIVER, _SAME),
    "NVMLError_NoPermission": (NO_PERMISSION, "let this user open the device nodes"),
    "NVMLError_GpuIsLost": (MISSING_DEVICE, "the GPU fell off the bus: power it down and up again"),
}
_EXCLUSIVE, _PROHIBITED = (1, 3), 2
"""Compute modes of NVML."""


class Gpu(NamedTuple):
    """One GPU as the driver has it."""

    name: str
    capability: str
    """Compute capability: ``8.7``."""
    memory: int
    """Bytes."""


@dataclass(frozen=True)
class Sight:
    """What was found: GPUs, or why there is none to be used."""

    gpus: Sequence[Gpu] = ()
    driver: str = ""
    """Its version, as it calls itself."""
    cuda: Tuple[int, int] = (0, 0)
    """Newest CUDA that the driver knows."""
    problem: str = ""
    code: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class Roots:
    """Where the system's folders are; others for tests."""

    dev: str = "/dev"
    sys: str = "/sys"
    proc: str = "/proc"
    etc: str = "/etc"


def look(roots: Roots = Roots()) -> Sight:
    """Find the GPUs. Asks the driver only where the system knows of one: a driver's library may be there without."""
    nodes = sorted(path for pattern in _NODES for path in glob.glob(os.path.join(roots.dev, pattern)))
    modules = [name for name in _MODULES if os.path.isdir(os.path.join(roots.sys, "module", name))]
    if not nodes and not modules:
        return _without_driver(roots)
    shut = [node for node in nodes if not os.access(node, os.R_OK | os.W_OK)]
    if nodes and len(shut) == len(nodes):
        return Sight(problem=f"no permission to open {shut[0]}", code=NO_PERMISSION, remedy=_admit(shut[0]))
    driver, refused = _ask_nvml(roots)
    sight = _ask_cuda(driver)
    if refused.problem and (sight.problem or refused.code != WRONG_DRIVER):  # NVML may be broken where CUDA works
        return refused
    return sight


def _without_driver(roots: Roots) -> Sight:
    for folder in sorted(glob.glob(os.path.join(roots.sys, "bus/pci/devices/*"))):
        vendor, what = _line(os.path.join(folder, "vendor")), _line(os.path.join(folder, "class"))
        if vendor == _VENDOR and what.startswith(_DISPLAY):
            where = os.path.basename(folder)
            problem = f"the NVIDIA GPU at {where} has no driver: neither a device node nor the module nvidia is there"
            return Sight(problem=problem, code=WRONG_DRIVER, remedy=_DRIVER)
    problem = "no NVIDIA GPU: no /dev/nvidia*, no /dev/nvhost-gpu, none on the PCI bus"
    return Sight(problem=problem, code=MISSING_DEVICE, remedy="a Jetson or an NVIDIA GPU is needed")


def _admit(node: str) -> str:
    try:
        group = grp.getgrgid(os.stat(node).st_gid).gr_name
    except (OSError, KeyError):
        group = "video"
    if group == "root":
        return f"let this user open {node}: a udev rule, or in a container --device {node}"
    return f"usermod -aG {group} USER, then log in again; for a service: SupplementaryGroups={group}"


def _ask_nvml(roots: Roots) -> Tuple[str, Sight]:
    """The driver's version, and what NVML has against using the first GPU: nothing where there is no NVML."""
    version = _line(os.path.join(roots.sys, "module/nvidia/version"))
    version = version or _line(os.path.join(roots.etc, "nv_tegra_release"))
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return version, Sight()
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as failed:
        return version, _refused_by_nvml(failed)
    try:
        told = _attempt(nvml, nvml.nvmlSystemGetDriverVersion)
        version = (told.decode() if isinstance(told, bytes) else str(told)) if told else version
        return version, _mode(nvml)
    finally:
        _attempt(nvml, nvml.nvmlShutdown)


def _mode(nvml: Any) -> Sight:
    """Whether somebody has the GPU for himself, or nobody may have it."""
    handle = _attempt(nvml, nvml.nvmlDeviceGetHandleByIndex, 0)
    mode = None if handle is None else _attempt(nvml, nvml.nvmlDeviceGetComputeMode, handle)
    if mode == _PROHIBITED:
        return Sight(problem="its compute mode is Prohibited", code=NO_PERMISSION, remedy="nvidia-smi -c DEFAULT")
    if mode in _EXCLUSIVE:
        others = [each.pid for each in _attempt(nvml, nvml.nvmlDeviceGetComputeRunningProcesses, handle) or ()]
        others = [pid for pid in others if pid != os.getpid()]
        if others:
            problem = f"process {others[0]} has the GPU for itself (compute mode Exclusive_Process)"
            return Sight(problem=problem, code=DEVICE_BUSY, remedy="end that process, or: nvidia-smi -c DEFAULT")
    return Sight()


def _refused_by_nvml(failed: Any) -> Sight:
    code, remedy = _NVML.get(type(failed).__name__, ("", ""))
    return Sight(problem=f"NVML: {failed}", code=code, remedy=remedy) if code else Sight()


def _attempt(nvml: Any, question: Any, *arguments: Any) -> Any:
    """Its answer; None where this driver or binding has none."""
    try:
        return question(*arguments)
    except (nvml.NVMLError, AttributeError):
        return None


def _ask_cuda(driver: str) -> Sight:
    """By the driver's own library, which every GPU that computes has; no package is needed for it."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError as missing:
        return Sight(driver=driver, problem=f"the driver's library: {missing}", code=WRONG_DRIVER, remedy=_DRIVER)
    failed = int(cuda.cuInit(0))
    if failed:
        return _refused_by_cuda(failed, driver)
    number, count = ctypes.c_int(), ctypes.c_int()
    cuda.cuDriverGetVersion(ctypes.byref(number))
    cuda.cuDeviceGetCount(ctypes.byref(count))
    gpus: List[Gpu] = []
    for index in range(count.value):
        gpus.append(_gpu(cuda, index))
    if not gpus:
        return _refused_by_cuda(100, driver)
    return Sight(gpus, driver, (number.value // 1000, number.value % 1000 // 10))


def _gpu(cuda: Any, index: int) -> Gpu:
    device, name, memory = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.c_size_t()
    major, minor = ctypes.c_int(), ctypes.c_int()
    cuda.cuDeviceGet(ctypes.byref(device), index)
    cuda.cuDeviceGetName(name, len(name), device)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    for attribute, place in ((75, major), (76, minor)):
        cuda.cuDeviceGetAttribute(ctypes.byref(place), attribute, device)
    return Gpu(name.value.decode("utf-8", "replace"), f"{major.value}.{minor.value}", memory.value)


def _refused_by_cuda(number: int, driver: str) -> Sight:
    what, code, remedy = _CUDA.get(number, ("the driver can't be used", WRONG_DRIVER, f"look at dmesg; {_DRIVER}"))
    return Sight(driver=driver, problem=f"CUDA error {number}: {what}", code=code, remedy=remedy)


def _line(path: str) -> str:
    """First line of a file, without its end; empty if it can't be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.readline(4096).strip()
    except OSError:
        return ""
