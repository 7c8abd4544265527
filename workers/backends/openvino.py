"""Intel's CPUs, GPUs and NPUs, with ONNX Runtime's OpenVINO provider (onnxruntime-openvino, in an environment of its
own).
"""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from workers.backend import (
    MISSING_LIBRARY,
    NO_FILES,
    UNSUPPORTED,
    WRONG_DRIVER,
    BackendUnavailable,
    Heat,
    ModelRejected,
    NotOnDevice,
    Probe,
    Settings,
)
from workers.device_files import INTEL, Obstacle, device_files, obstacle, of_vendor, usable_folder
from workers.onnx_runtime import OnnxModel, OnnxRuntime
from workers.placement import MIN_SHARE, OnDevice, load_on, read_min_share

PROVIDER = "OpenVINOExecutionProvider"
CPU, GPU, NPU = DEVICES = ("CPU", "GPU", "NPU")
_BEST_FIRST = (NPU, GPU)
_PRECISIONS = {CPU: ("f32",), GPU: ("f32", "f16"), NPU: ("f16",)}
"""What each computes in, the default first. On the GPU the provider's own default is f16."""

_IN_ITS_WORDS = {"f32": "FP32", "f16": "FP16"}
_OPTIONS = ("device", "devRoot", "minShare", "numThreads", "precision", "sysfsRoot")
_INSTALL = (
    "make runtimes, and name its interpreter in the device config: {backend: openvino, "
    "python: .runtimes/openvino/bin/python}"
)


@dataclass(frozen=True)
class Options:
    """Of the device config, as they were read."""

    device: str = ""
    """CPU, GPU or NPU; empty: the best that exists."""
    precision: str = ""
    """f32 or f16; empty: the device's default."""
    threads: int = 0
    """0: the worker's."""
    min_share: float = MIN_SHARE
    dev_root: str = "/dev"
    sysfs_root: str = "/sys"


def files_of(device: str, dev_root: str = "/dev", sysfs_root: str = "/sys") -> List[str]:
    """Device files of Intel's GPUs or NPUs; which are which is told by sysfs, as others have such files too."""
    if device == GPU:
        found = device_files(dev_root, "dri/renderD*")
        return of_vendor(found, os.path.join(sysfs_root, "class", "drm"), INTEL)
    return of_vendor(device_files(dev_root, "accel/accel*"), os.path.join(sysfs_root, "class", "accel"), INTEL)


def best_device(dev_root: str = "/dev", sysfs_root: str = "/sys") -> str:
    """The best that exists, if this process may use it."""
    for device in _BEST_FIRST:
        if obstacle(files_of(device, dev_root, sysfs_root), device, "") is None:
            return device
    return CPU


class OpenVinoBackend:
    """Runs .onnx files on one device of OpenVINO's."""

    name = "openvino"
    kind = "cpu" if best_device() == CPU else "hardware"
    formats: Sequence[str] = (".onnx",)
    datatypes: Sequence[str] = (
        *("BOOL", "UINT8", "UINT16", "UINT32", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32"),
    )
    open_sizes = True
    empty_tensors = True
    can_cancel = False
    """The whole graph is one node, and ONNX Runtime looks between nodes whether a run is still wanted."""

    def __init__(self, settings: Settings) -> None:
        """Raises BackendUnavailable: the provider or the device is missing, or an option makes no sense."""
        self._options = read_options(settings.options)
        self._runtime, self._device = _open(self._options)
        self.kind = "cpu" if self._device == CPU else "hardware"
        self.runtime = f"onnxruntime-openvino {self._runtime.ort.__version__}"
        self.device = f"{platform.machine()} CPU" if self._device == CPU else f"Intel {self._device}"
        self._threads = settings.threads
        self._told = provider_options(self._options, self._device, settings)
        self._proof = OnDevice([PROVIDER], self._options.min_share)

    @classmethod
    def probe(cls) -> Probe:
        if not sys.platform.startswith("linux") or platform.machine() not in ("x86_64", "AMD64"):
            reason = f"there is no onnxruntime-openvino for {sys.platform} on {platform.machine()}"
            return Probe(False, reason, "needs Linux on x86_64", code=UNSUPPORTED)
        try:
            runtime, device = _open(Options())
        except BackendUnavailable as missing:
            return Probe(False, str(missing), _remedy(missing.code), code=missing.code)
        version = f"onnxruntime-openvino {runtime.ort.__version__}"
        return Probe(True, _why(device), devices=_listed(runtime), runtime=version)

    def load(self, content: bytes, name: str, external: Mapping[str, bytes] = NO_FILES) -> OnnxModel:
        def options() -> Any:
            made = self._runtime.options(self._threads)
            # OpenVINO optimises by itself; of what ONNX Runtime makes first, it may leave a node to the CPU.
            made.graph_optimization_level = self._runtime.ort.GraphOptimizationLevel.ORT_DISABLE_ALL
            return made

        try:
            model = load_on(self._proof, self._runtime, content, options, [(PROVIDER, self._told)], external)
        except NotOnDevice:
            raise
        except ModelRejected as refused:
            raise ModelRejected(_readable(str(refused))) from refused
        model.provenance = f"{model.provenance}, device {self._device}"
        return model

    def heat(self) -> Heat:
        return Heat()


def read_options(raw: Mapping[str, Any]) -> Options:
    """Raises BackendUnavailable: an option is unknown or makes no sense."""
    unknown = sorted(set(raw) - set(_OPTIONS))
    if unknown:
        raise BackendUnavailable(f"options.{unknown[0]}: unknown; the openvino backend has {', '.join(_OPTIONS)}")
    device, precision, threads = raw.get("device", ""), raw.get("precision", ""), raw.get("numThreads", 0)
    if device and device not in DEVICES:
        raise BackendUnavailable(f"options.device: expected CPU, GPU or NPU, got {device!r}")
    if precision and precision not in tuple(_IN_ITS_WORDS):
        raise BackendUnavailable(f"options.precision: expected f32 or f16, got {precision!r}")
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 0:
        raise BackendUnavailable(f"options.numThreads: expected a whole number, got {threads!r}")
    roots = {name: raw.get(name, default) for name, default in (("devRoot", "/dev"), ("sysfsRoot", "/sys"))}
    for name, root in roots.items():
        if not isinstance(root, str):
            raise BackendUnavailable(f"options.{name}: expected a folder, got {root!r}")
    share = read_min_share(raw.get("minShare", MIN_SHARE))
    return Options(device, precision, threads, share, roots["devRoot"], roots["sysfsRoot"])


def provider_options(options: Options, device: str, settings: Settings) -> Dict[str, str]:
    """What the provider is told, in its words.

    Raises:
        BackendUnavailable: the device does not compute in the wanted precision.
    """
    offered = _PRECISIONS[device]
    precision = options.precision or offered[0]
    if precision not in offered:
        raise BackendUnavailable(f"options.precision: the {device} computes in {' or '.join(offered)}, got {precision}")
    told = {"device_type": device, "precision": _IN_ITS_WORDS[precision]}
    if device == CPU:
        told["num_of_threads"] = str(options.threads or settings.threads)
        told["num_streams"] = str(settings.instances)
    if settings.cache and usable_folder(settings.cache):
        told["cache_dir"] = settings.cache  # OpenVINO names what it keeps by model, device, version and options
    return told


def _open(options: Options) -> Tuple[OnnxRuntime, str]:
    """The runtime, and the device that is to be used.

    Raises:
        BackendUnavailable: one of them is missing.
    """
    runtime = OnnxRuntime()
    if PROVIDER not in runtime.ort.get_available_providers():
        raise BackendUnavailable(
            f"{runtime.version} of this interpreter has no OpenVINO: onnxruntime-openvino is not installed for it",
            MISSING_LIBRARY,
        )
    device = options.device or best_device(options.dev_root, options.sysfs_root)
    if device != CPU:
        hindered = _hindered(device, options)
        if hindered is not None:
            raise BackendUnavailable(hindered.reason, hindered.code)
    listed = _listed(runtime)
    if not any(entry.partition(".")[0] == device for entry in listed):
        raise BackendUnavailable(
            f"the {device} is there, and OpenVINO can't use it: it lists {', '.join(listed) or 'nothing'}", WRONG_DRIVER
        )
    return runtime, device


def _hindered(device: str, options: Options) -> Optional[Obstacle]:
    return obstacle(files_of(device, options.dev_root, options.sysfs_root), f"{device} of Intel's", "")


def _listed(runtime: OnnxRuntime) -> Tuple[str, ...]:
    """Devices that OpenVINO itself finds; without a word of its own only the CPU counts."""
    ask = getattr(runtime.state, "get_available_openvino_device_ids", None)
    return tuple(ask()) if ask is not None else (CPU,)


def _why(device: str) -> str:
    if device == CPU:
        return (
            "onnxruntime-openvino is installed; there is no GPU or NPU of Intel's that it could use, so it is the CPU"
        )
    return f"there is an Intel {device}, and OpenVINO finds it"


def _readable(text: str) -> str:
    """OpenVINO's own words, without the C++ that they passed through."""
    return " ".join(text.rpartition("[OpenVINO-EP] ")[2].split())


def _remedy(code: str) -> str:
    if code == MISSING_LIBRARY:
        return _INSTALL
    return (
        "install Intel's user mode driver (intel-opencl-icd for the GPU, intel-level-zero-npu for the NPU), and let "
        "the gateway's user into the group render"
    )
