"""Qualcomm's Hexagon NPU, with ONNX Runtime's QNN plug-in; on x86 Qualcomm's emulator of it, and labelled so."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from workers.backend import (
    MISSING_DEVICE,
    MISSING_LIBRARY,
    NO_FILES,
    UNSUPPORTED,
    BackendError,
    BackendUnavailable,
    Heat,
    ModelRejected,
    Probe,
    Settings,
)
from workers.device_files import device_files, obstacle
from workers.engines import EngineCache, Origin, model_digest
from workers.onnx_runtime import CPU, OnnxModel, OnnxRuntime
from workers.placement import MIN_SHARE, OnDevice, load_on, read_min_share
from workers.plugin_ep import devices_of, folder_of, require_library

PROVIDER = "QNNExecutionProvider"
_PACKAGE = "onnxruntime_qnn"
_PLUGIN = "libonnxruntime_providers_qnn.so"
_HTP = "libQnnHtp.so"
_ENTRY = "QnnInterface_getProviders"
_EMULATED = ("x86_64", "AMD64")
_REAL = ("aarch64", "arm64")
_DSP_FILES = ("fastrpc-cdsp*", "adsprpc-smd*")
"""Device files of the compute DSP: the kernel's own driver, and Qualcomm's."""

_EMULATED_SOC = 43
"""Snapdragon 8 Gen 2. Without a name the emulator takes the smallest chip, whose 4 MB of fast memory are too few for
one frame of 640x480 ("Failed to finalize QNN graph. Error: QNN_COMMON_ERROR_MEM_ALLOC")."""

_PERFORMANCE = (
    "burst",
    "balanced",
    "default",
    "high_performance",
    "high_power_saver",
    "low_balanced",
    "extreme_power_saver",
    "low_power_saver",
    "power_saver",
    "sustained_high_performance",
)
_OPTIONS = (
    *("backendPath", "cacheMB", "devRoot", "dimensions", "minShare", "performanceMode", "socModel", "sysfsRoot"),
    "vtcmMB",
)
_CONTEXT = "context.onnx"
_SAID = "provenance.txt"
_MB = 1 << 20
_INSTALL = (
    "make runtimes, and name its interpreter in the device config: {backend: qnn, python: .runtimes/qnn/bin/python}"
)


@dataclass(frozen=True)
class Options:
    """Of the device config, as they were read."""

    provider: Mapping[str, str]
    """For the provider, in its words."""
    dimensions: Mapping[str, int]
    """Sizes for open dimensions, by their names in the model."""
    backend_path: str = ""
    """Library of the device; empty: the one beside the plug-in."""
    min_share: float = MIN_SHARE
    cache_bytes: int = 1024 * _MB
    dev_root: str = "/dev"
    sysfs_root: str = "/sys"


class QnnBackend:
    """Runs .onnx files of fixed shapes on the HTP; what was compiled once is kept."""

    name = "qnn"
    kind = "emulator" if platform.machine() in _EMULATED else "hardware"
    formats: Sequence[str] = (".onnx",)
    datatypes: Sequence[str] = ("BOOL", "UINT32", "INT32", "INT64", "FP16", "FP32")
    """Narrower integers are computed in, but can't be passed on as they are."""
    open_sizes = False
    empty_tensors = False
    can_cancel = False
    """The whole graph is one node, and ONNX Runtime looks between nodes whether a run is still wanted: a run of 21 s
    that was to end after 0.3 went on to its end.
    """

    def __init__(self, settings: Settings) -> None:
        """Raises BackendUnavailable: the plug-in, its library or the device is missing, or an option makes no sense."""
        self._options = read_options(settings.options)
        self._threads = settings.threads
        self._runtime, self._backend_path, self._devices = _open(self._options)
        self.runtime = f"{self._runtime.version}, onnxruntime-qnn {_version()}"
        self.device = f"HTP emulator on {platform.machine()}" if self.kind == "emulator" else "Hexagon HTP"
        self._proof = OnDevice([PROVIDER], self._options.min_share)
        self._cache = open_cache(settings.cache, self._options.cache_bytes)

    @classmethod
    def probe(cls) -> Probe:
        try:
            runtime, backend_path, devices = _open(Options({}, {}))
        except BackendUnavailable as missing:
            return Probe(False, str(missing), _remedy(missing.code), code=missing.code)
        version = f"{runtime.version}, onnxruntime-qnn {_version()}"
        vendors = tuple(f"{device.ep_vendor} HTP" for device in devices[:1])
        if cls.kind == "emulator":
            return Probe(True, "Qualcomm's emulator of the HTP, which is no NPU", devices=vendors, runtime=version)
        return Probe(True, f"the DSP and {os.path.basename(backend_path)} are there", devices=vendors, runtime=version)

    def load(self, content: bytes, name: str, external: Mapping[str, bytes] = NO_FILES) -> OnnxModel:
        if self._cache is None:
            return self._compile(content, external)
        origin = self._origin(content, external)
        folder = self._cache.find(origin)
        if folder is not None:
            try:
                return self._reload(folder)
            except (BackendError, OSError) as refused:  # whatever is wrong with it, the model itself is still there
                print(f"{name}: what was compiled of it before is of no use: {refused}", file=sys.stderr, flush=True)
                return self._compile(content, external)
        try:
            build = self._cache.begin(origin)
        except OSError as failed:
            print(f"{name}: what is compiled of it can't be kept: {failed}", file=sys.stderr, flush=True)
            return self._compile(content, external)
        try:
            model = self._compile(content, external, os.path.join(build.folder, _CONTEXT))
        except BaseException:
            build.discard()
            raise
        try:
            _write(os.path.join(build.folder, _SAID), model.provenance)
            build.commit()
        except OSError as failed:
            build.discard()
            print(f"{name}: compiled, but not kept: {failed}", file=sys.stderr, flush=True)
        return model

    def heat(self) -> Heat:
        return Heat()

    def _compile(self, content: bytes, external: Mapping[str, bytes], keep: str = "") -> OnnxModel:
        """``keep``: file for what was compiled."""

        def options() -> Any:
            made = self._fixed(self._session_options())
            if keep and not os.path.exists(keep):
                made.add_session_config_entry("ep.context_enable", "1")
                made.add_session_config_entry("ep.context_file_path", keep)
                made.add_session_config_entry("ep.context_embed_mode", "1")
            return made

        def on_the_cpu() -> OnnxModel:
            # The plug-in takes bytes for truth values: a Cast of UINT8 gives 1.0 for all that is not 0 (2.7.0).
            return self._runtime.model(content, external, self._fixed(self._runtime.options(self._threads)), [CPU])

        try:
            return load_on(self._proof, self._runtime, content, options, external=external, reference=on_the_cpu)
        except ModelRejected as refused:
            still_open = self._open_sizes(content, external)
            if still_open:
                raise ModelRejected(f"{still_open}; {refused}") from refused
            raise

    def _reload(self, folder: str) -> OnnxModel:
        """The share was proved when it was compiled: what is left is one node for each part of the graph."""
        with open(os.path.join(folder, _CONTEXT), "rb") as file:
            content = file.read()
        with open(os.path.join(folder, _SAID), encoding="utf-8") as file:
            said = file.read()
        model = load_on(OnDevice([PROVIDER], 0.0), self._runtime, content, self._session_options)
        model.provenance = f"{said}, compiled before"
        return model

    def _session_options(self) -> Any:
        options = self._runtime.options(self._threads)
        told = {"backend_path": self._backend_path, **self._options.provider}
        options.add_provider_for_devices(self._devices, told)
        return options

    def _fixed(self, options: Any) -> Any:
        """With the sizes that were given for open dimensions."""
        for name, size in self._options.dimensions.items():
            options.add_free_dimension_override_by_name(name, size)
        return options

    def _origin(self, content: bytes, external: Mapping[str, bytes]) -> Origin:
        library = os.stat(self._backend_path)
        return Origin(
            model=model_digest(content, external),
            device=self.device,
            capability=" ".join((self._options.provider.get("soc_model", ""), *_soc(self._options.sysfs_root))),
            memory=0,
            driver="",
            libraries={
                "onnxruntime": self._runtime.version,
                "onnxruntime-qnn": _version(),
                # The package's version says nothing of a library of the vendor's that was put in its place.
                self._backend_path: f"{library.st_size} {library.st_mtime_ns}",
            },
            options={
                **self._options.provider,
                "dimensions": dict(self._options.dimensions),
                "minShare": self._options.min_share,
            },
        )

    def _open_sizes(self, content: bytes, external: Mapping[str, bytes]) -> str:
        """What to do about open sizes, if the model has any; the HTP takes none."""
        options = self._runtime.options(1)
        options.graph_optimization_level = self._runtime.ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._fixed(options)
        found: Dict[str, List[str]] = {}

        def look(session: Any) -> str:
            for argument in session.get_inputs():
                names = [size for size in argument.shape or () if not isinstance(size, int)]
                if names:
                    found[argument.name] = [str(name) if name else "(nameless)" for name in names]
            return ""

        try:
            self._runtime.model(content, external, options, [CPU], look).close()
        except BackendError:
            return ""
        if not found:
            return ""
        listed = ", ".join(f"{argument} ({', '.join(names)})" for argument, names in found.items())
        example = next(iter(found.values()))[0]
        return (
            f"the HTP needs fixed shapes, and these inputs have open sizes: {listed}; fix them in the worker's "
            f"options, as in dimensions: {{{example}: 1}}, or in the file"
        )


def read_options(raw: Mapping[str, Any]) -> Options:
    """Raises BackendUnavailable: an option is unknown or makes no sense."""
    unknown = sorted(set(raw) - set(_OPTIONS))
    if unknown:
        raise BackendUnavailable(f"options.{unknown[0]}: unknown; the qnn backend has {', '.join(_OPTIONS)}")
    provider: Dict[str, str] = {}
    soc = _whole(raw, "socModel", _EMULATED_SOC if QnnBackend.kind == "emulator" else 0)
    if soc:
        provider["soc_model"] = str(soc)
    if "vtcmMB" in raw:
        provider["vtcm_mb"] = str(_whole(raw, "vtcmMB", 0))
    mode = raw.get("performanceMode", "default" if QnnBackend.kind == "emulator" else "sustained_high_performance")
    if mode not in _PERFORMANCE:
        raise BackendUnavailable(f"options.performanceMode: expected one of {', '.join(_PERFORMANCE)}, got {mode!r}")
    provider["htp_performance_mode"] = mode
    dimensions = raw.get("dimensions", {})
    if not isinstance(dimensions, Mapping) or not all(_is_whole(size, 1) for size in dimensions.values()):
        raise BackendUnavailable(f"options.dimensions: expected names and sizes from 1 on, got {dimensions!r}")
    return Options(
        provider,
        {str(name): size for name, size in dimensions.items()},
        _text(raw, "backendPath", ""),
        read_min_share(raw.get("minShare", MIN_SHARE)),
        _whole(raw, "cacheMB", 1024) * _MB,
        _text(raw, "devRoot", "/dev"),
        _text(raw, "sysfsRoot", "/sys"),
    )


def open_cache(folder: str, limit: int) -> Optional[EngineCache]:
    """None: there is none, or its folder can't be used; all models are compiled at each load then."""
    if not folder:
        return None
    try:
        return EngineCache(folder, limit)
    except OSError as failed:
        print(f"qnn: nothing that is compiled can be kept: {failed}", file=sys.stderr, flush=True)
        return None


def _open(options: Options) -> Tuple[OnnxRuntime, str, List[Any]]:
    """The runtime with the plug-in, the device's library, and the devices.

    Raises:
        BackendUnavailable
    """
    machine = platform.machine()
    if not sys.platform.startswith("linux") or machine not in _EMULATED + _REAL:
        raise BackendUnavailable(f"there is no QNN for {sys.platform} on {machine}", UNSUPPORTED)
    folder = folder_of(_PACKAGE)
    if not folder:
        raise BackendUnavailable("onnxruntime-qnn is not installed for this interpreter", MISSING_LIBRARY)
    if machine in _REAL:
        hindered = obstacle(device_files(options.dev_root, *_DSP_FILES), "compute DSP of Qualcomm's", "")
        if hindered is not None:
            raise BackendUnavailable(hindered.reason, hindered.code)
        os.environ.setdefault("ADSP_LIBRARY_PATH", folder)  # where the DSP finds its half of the library
    backend_path = options.backend_path or os.path.join(folder, _HTP)
    if os.path.basename(backend_path) != _HTP:  # the same plug-in drives the GPU, and one that computes nothing
        raise BackendUnavailable(f"options.backendPath: expected a path to a {_HTP}, got {backend_path!r}")
    require_library(backend_path, _ENTRY)
    runtime = OnnxRuntime()
    devices = devices_of(runtime, PROVIDER, os.path.join(folder, _PLUGIN))
    if not devices:
        raise BackendUnavailable("the QNN plug-in is there, and finds no device", MISSING_DEVICE)
    kinds = runtime.ort.OrtHardwareDeviceType
    npus = [device for device in devices if device.device.type == kinds.NPU]
    return runtime, backend_path, (npus or devices)[:1]


def _soc(sysfs_root: str) -> List[str]:
    """What Qualcomm's kernels say of the chip, as far as they do: what is compiled for one is not for another."""
    said = []
    for name in ("machine", "soc_id", "revision"):
        try:
            with open(os.path.join(sysfs_root, "devices", "soc0", name), encoding="utf-8", errors="replace") as file:
                said.append(file.read().strip())
        except OSError:
            continue
    return said


def _remedy(code: str) -> str:
    if code == MISSING_LIBRARY:
        return _INSTALL
    if code == UNSUPPORTED:
        return "needs Linux on aarch64 with a Hexagon NPU, or on x86_64 for the emulator"
    return "needs a Qualcomm chip with its fastrpc driver, and a user who may open /dev/fastrpc-cdsp"


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("onnxruntime-qnn")
    except PackageNotFoundError:
        return "of unknown version"


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _whole(raw: Mapping[str, Any], name: str, default: int) -> int:
    value = raw.get(name, default)
    if not _is_whole(value, 0):
        raise BackendUnavailable(f"options.{name}: expected a whole number, got {value!r}")
    return int(value)


def _text(raw: Mapping[str, Any], name: str, default: str) -> str:
    value = raw.get(name, default)
    if not isinstance(value, str):
        raise BackendUnavailable(f"options.{name}: expected a text, got {value!r}")
    return value


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
