"""Which sensors tell about which worker: by the backend that drives its device, or by the config."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from gateway.config import HeatSettings, WorkerConfig
from gateway.device.apex import ApexTpus
from gateway.device.cpu import CountersOfX86, CpuLoad, FrequencyCaps
from gateway.device.jetson import JetsonGpu
from gateway.device.nvml import NvmlGpu
from gateway.device.raspberry import ThrottledBits
from gateway.device.sensors import Reader
from gateway.device.zones import CoolingDevices, ThermalZones

_REAL = "/sys"
_CPU_ZONES = ("x86_pkg_temp", "cpu", "soc", "k10temp", "bigcore", "littlecore", "center-thermal")
"""How zones of CPUs begin: cpu-thermal, CPU-therm, cpu0-0-top-thermal, cpu_thermal, soc-thermal, ..."""
_GPU_ZONES = ("gpu", "tj")
_NPU_ZONES = ("cdsp", "nsp", "npu")
_CPU_COOLING = ("processor", "cpufreq", "cpu", "idle", "powerclamp")
_GPU_COOLING = ("devfreq", "gpu")


def readers_of(worker: WorkerConfig, heat: HeatSettings, proc_root: Path = Path("/proc")) -> list[Reader]:
    """Readers of the worker's device. Empty: no sensor tells about it, only its own reports and service times do.

    ``options.sysfsRoot`` of a simulated worker is where its accelerator writes its sensors; it has no others. An index
    in ``options.device`` chooses among several GPUs or Edge TPUs.
    """
    root = Path(heat.sysfs_root)
    match worker.backend:
        case "remote":
            return []
        case "simulated":
            own = worker.options.get("sysfsRoot")
            if not isinstance(own, str) and heat.sysfs_root == _REAL:
                return [_configured(root, worker.zones)] if worker.zones else []
            return _simulated(Path(own) if isinstance(own, str) else root, worker.zones)
        case "tensorrt":
            return _nvidia(root, worker)
        case "edgetpu":
            return _with_zones(root, worker, [ApexTpus(root, _index(worker))])
        case "qnn":
            return [_configured(root, worker.zones) if worker.zones else ThermalZones(root, _begins(_NPU_ZONES))]
        case _:
            return _cpu(root, worker, proc_root)


def _cpu(root: Path, worker: WorkerConfig, proc_root: Path) -> list[Reader]:
    zones = _configured(root, worker.zones) if worker.zones else ThermalZones(root, _begins(_CPU_ZONES))
    readers: list[Reader] = [zones, CoolingDevices(root, _CPU_COOLING), FrequencyCaps(root), CountersOfX86(root)]
    bits = ThrottledBits(root)
    if bits.present:
        readers.append(bits)
    return [*readers, CpuLoad(proc_root)]


def _nvidia(root: Path, worker: WorkerConfig) -> list[Reader]:
    """A Jetson's GPU has thermal zones and devfreq, any other has NVML."""
    gpu = JetsonGpu(root)
    if gpu.present:
        zones = _configured(root, worker.zones) if worker.zones else ThermalZones(root, _begins(_GPU_ZONES))
        return [zones, CoolingDevices(root, _GPU_COOLING), gpu]
    return _with_zones(root, worker, [NvmlGpu(_index(worker) or 0)])


def _simulated(root: Path, zones: Sequence[str]) -> list[Reader]:
    readers: list[Reader] = [
        _configured(root, zones) if zones else ThermalZones(root, lambda kind: True),
        CoolingDevices(root),
    ]
    for extra in (ApexTpus(root), JetsonGpu(root)):
        if extra.present:
            readers.append(extra)
    return readers


def _with_zones(root: Path, worker: WorkerConfig, readers: list[Reader]) -> list[Reader]:
    return [*readers, _configured(root, worker.zones)] if worker.zones else readers


def _configured(root: Path, zones: Sequence[str]) -> ThermalZones:
    return ThermalZones(root, lambda kind: kind in zones, expected=zones)


def _begins(words: Sequence[str]) -> Callable[[str], bool]:
    return lambda kind: kind.lower().startswith(tuple(words))


def _index(worker: WorkerConfig) -> int | None:
    """``options.device`` where it is an index, also as text (pci:1)."""
    given = worker.options.get("device")
    if isinstance(given, int):
        return given
    digits = str(given or "").rpartition(":")[2]
    return int(digits) if digits.isdecimal() else None
