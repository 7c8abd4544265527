"""NVIDIA GPUs with TensorRT: ONNX models by ONNX Runtime's provider, engines by TensorRT's own runtime."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import io
import os
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from workers.backend import (
    MISSING_DEVICE,
    MISSING_LIBRARY,
    NO_FILES,
    WRONG_DRIVER,
    BackendUnavailable,
    Bound,
    Cancellation,
    DeviceFault,
    Heat,
    Model,
    ModelRejected,
    ModelTooLarge,
    NotOnDevice,
    Probe,
    RunFailed,
    Settings,
    Tensor,
    TensorSpec,
)
from workers.engines import Build, EngineCache, Origin, model_digest
from workers.loaded import NeverCancelled, zeros
from workers.nvidia import Gpu, Roots, Sight, look
from workers.onnx_runtime import CPU, OnnxModel, OnnxRuntime
from workers.placement import OnDevice
from workers.tensorrt_native import OUT_OF_MEMORY, CudaFault, Native
from workers.tensorrt_options import Options, Range, misfit, open_ones, provider_options, ranges_of, read_options

PROVIDER = "TensorrtExecutionProvider"
CUDA = "CUDAExecutionProvider"
PLAN = "engine.plan"
_TABLE = "calibration.table"
_ONNX = b"\x08"
"""First byte of an ONNX model: the tag of its first field. No engine begins so."""
_MB = 1 << 20
_NOT_STARTED = ("EP Error", "install TensorRT", "RegisterTensorRTPlugins")
"""In ONNX Runtime's text where the provider's own libraries are missing."""
ALL = 1.0
"""Share of the nodes that must be on the GPU."""
_FAULTS = ("CUDA failure", "CUDA error", "CUDNN failure", "CUBLAS failure", "NvInfer")
"""By which ONNX Runtime's text says that it was the device, or its driver, that failed."""
_REMEDY = (
    "for ONNX models: pip install onnxruntime-gpu, with TensorRT, CUDA and cuDNN of the versions that it names; for "
    "engines: pip install tensorrt cuda-python; on a Jetson TensorRT is JetPack's: python3 -m venv "
    "--system-site-packages, pip install cuda-python there, and name its interpreter in workers[].python"
)


class _Library(NamedTuple):
    """A library that builds or runs engines, or why it can't."""

    there: Any
    missing: Optional[BackendUnavailable]


class TensorrtBackend:
    """Runs .onnx files, and .plan and .engine files that were built on this device, on one NVIDIA GPU."""

    name = "tensorrt"
    kind = "hardware"
    datatypes: Sequence[str] = ("BOOL", "INT32", "INT64", "FP16", "FP32")
    """TensorRT by itself knows INT64 from version 10 on."""
    open_sizes = False
    """Those for which nobody gives a range, but for the first one."""
    empty_tensors = False
    can_cancel = False
    """A GPU that has begun a run ends it. A run that does not come back costs the process."""
    load_seconds = 3600.0
    """Engines of large models take an embedded GPU tens of minutes."""

    def __init__(self, settings: Settings, roots: Roots = Roots()) -> None:  # noqa: B008 - it is frozen
        """Raises BackendUnavailable: device, driver or libraries are missing, or an option makes no sense."""
        self._options = read_options(settings.options)
        self._table = _read_table(self._options.calibration_table)
        self._settings = settings
        sight = _seen(look(roots))
        if self._options.device >= len(sight.gpus):
            there = f"no GPU has the number {self._options.device}, the driver lists {len(sight.gpus)}"
            raise BackendUnavailable(f"options.device: {there}", MISSING_DEVICE)
        self._gpu: Gpu = sight.gpus[self._options.device]
        self._driver = f"{sight.driver} CUDA {sight.cuda[0]}.{sight.cuda[1]}"
        onnx, native = self._libraries(sight)
        if onnx.there is None and native.there is None:
            raise _neither(onnx.missing, native.missing)
        self._onnx: Optional[_Onnx] = onnx.there
        self._native: Optional[Native] = native.there
        self._why_no_native = str(native.missing or "")
        if self._onnx is None and self._native is not None:
            known = self._native.datatypes.values()
            self.datatypes = [datatype for datatype in type(self).datatypes if datatype in known]
        self.formats: Sequence[str] = (".plan", ".engine", ".onnx") if self._native else (".onnx",)
        self.runtime = ", ".join(each.version for each in (self._onnx, self._native) if each is not None)
        self.device = self._gpu.name
        self._cache = _cache(settings, self._options)
        self._broken = ""

    @classmethod
    def probe(cls, roots: Roots = Roots()) -> Probe:  # noqa: B008 - it is frozen
        sight = look(roots)
        if sight.problem:
            return Probe(False, sight.problem, sight.remedy, code=sight.code)
        devices = tuple(f"{gpu.name} ({gpu.memory // _MB} MB, compute {gpu.capability})" for gpu in sight.gpus)
        onnx = _attempt(lambda: _Onnx(sight))
        native = _attempt(lambda: Native(0))
        found = [each.there.version for each in (onnx, native) if each.there is not None]
        if not found:
            why = _neither(onnx.missing, native.missing)
            return Probe(False, str(why), _REMEDY, devices, code=why.code)
        return Probe(True, f"{devices[0]} with {found[0]}", devices=devices, runtime=", ".join(found))

    def load(self, content: bytes, name: str, external: Mapping[str, bytes] = NO_FILES) -> Model:
        if not content:
            raise ModelRejected(f"{name}: the file is empty")
        try:
            if content.startswith(_ONNX):
                return self._load_onnx(content, name, external)
            if self._native is None:
                raise ModelRejected(
                    f"{name}: no ONNX model, and an engine needs TensorRT itself: {self._why_no_native}"
                )
            model: Model = self._proved(self._native.load(content, name, self._settings.instances, self._broke))
            return model
        except DeviceFault as failed:
            if isinstance(failed, CudaFault) and failed.number == OUT_OF_MEMORY:
                raise ModelTooLarge(f"{name}: the GPU has not enough memory for it") from failed
            self._broken = str(failed)
            raise BackendUnavailable(f"{name}: {failed}") from failed
        except OSError as failed:
            raise BackendUnavailable(f"{name}: the folder of engines: {failed}") from failed

    def heat(self) -> Heat:
        """Of temperature the gateway knows, from the driver. Raises DeviceFault: the process is of no use any more."""
        if self._broken:  # CUDA answers every further call with the same; only a new process helps
            raise DeviceFault(self._broken)
        return Heat()

    def _broke(self, why: str) -> None:
        self._broken = why

    def _libraries(self, sight: Sight) -> Tuple[_Library, _Library]:
        through = self._options.through
        unwanted = _Library(None, BackendUnavailable("options.through says to build without it"))
        onnx = unwanted if through == "native" else _attempt(lambda: _Onnx(sight))
        native = _attempt(lambda: Native(self._options.device))
        if through == "onnxruntime" and onnx.there is None:
            raise onnx.missing or BackendUnavailable("onnxruntime")
        return onnx, native

    def _load_onnx(self, content: bytes, name: str, external: Mapping[str, bytes]) -> Model:
        """From the cache, or built, which takes its time."""
        if self._onnx is None:
            assert self._native is not None
            return self._build_plan(self._native, content, name)
        onnx = self._onnx
        inputs = onnx.inputs(content, external)
        ranges = ranges_of(model_name(name), inputs, self._options)
        shapes = open_ones(inputs, ranges)
        origin = self._origin(model_digest(content, external), _plain(shapes), onnx.libraries)
        with self._place(origin) as place:
            if self._table and not place.folder:  # ONNX Runtime looks for it nowhere else
                raise ModelRejected("options.calibrationTable needs a folder for engines, and this worker has none")
            if self._table:
                place.put(_TABLE, self._table)
            table = _TABLE if self._table else ""
            told = provider_options(self._options, shapes, place.folder, place.timings, table)
            loaded = onnx.load(content, external, self._settings.threads, told)
            model = TensorrtModel(loaded, shapes, self._broke)
            self._proved(model, ranges)
            place.whole()
        return model

    def _build_plan(self, native: Native, content: bytes, name: str) -> Model:
        """Without ONNX Runtime's provider: TensorRT's own parser and builder."""
        about = model_name(name)
        asked = {"model": about, "maxBatch": self._options.max_batch, "profiles": _plain(self._options.profiles)}
        tell = self._settings.progress.teller()
        with self._place(self._origin(model_digest(content, {}), asked, native.libraries())) as place:
            plan = place.get(PLAN)
            if plan is None:
                plan = native.build(content, about, self._options, self._table, place.timings, tell)
                place.put(PLAN, plan)
            model: Model = self._proved(native.load(plan, name, self._settings.instances, self._broke))
            place.whole()
        return model

    def _origin(self, model: str, shapes: Mapping[str, Any], libraries: Mapping[str, str]) -> Origin:
        table = hashlib.sha256(self._table).hexdigest() if self._table else ""
        told = {**self._options.of_engine(), "shapes": dict(shapes), "table": table}
        gpu = self._gpu
        return Origin(model, gpu.name, gpu.capability, gpu.memory, self._driver, dict(libraries), told)

    def _place(self, origin: Origin) -> _Place:
        tell = self._settings.progress.teller()
        return _Place(self._cache, origin, tell)

    def _proved(self, model: Any, ranges: Optional[Mapping[str, Range]] = None) -> Any:
        """The model, after a run on zeros: what can't run here is found now. Raises ModelRejected, DeviceFault."""
        known = model.ranges if ranges is None else ranges
        feed = {spec.name: _probe_tensor(spec, known.get(spec.name)) for spec in model.inputs}
        try:
            model.run(feed, [spec.name for spec in model.outputs], NeverCancelled())
        except RunFailed as failed:
            if model.values_matter:  # zeros as indices, or as shapes, prove nothing
                return model
            model.close()
            raise ModelRejected(f"it does not run: {failed}") from failed
        except DeviceFault:
            model.close()
            raise
        return model


class TensorrtModel:
    """A session on ONNX Runtime's TensorRT provider. Its engine takes some range of shapes, and no other."""

    platform = "onnxruntime_onnx"
    values_matter = True

    def __init__(self, model: OnnxModel, ranges: Mapping[str, Range], broke: Callable[[str], None]) -> None:
        self._model = model
        self.ranges = ranges
        """Of inputs with open sizes."""
        self._broke = broke
        self.inputs: Sequence[TensorSpec] = model.inputs
        self.outputs: Sequence[TensorSpec] = model.outputs
        self.provenance = model.provenance

    def run(self, inputs: Dict[str, Tensor], outputs: Sequence[str], cancellation: Cancellation) -> List[Tensor]:
        wrong = misfit({name: tensor.shape for name, tensor in inputs.items()}, self.ranges)
        if wrong:  # the provider would build another engine now, for minutes
            raise RunFailed(wrong)
        try:
            return self._model.run(inputs, outputs, cancellation)
        except RunFailed as failed:
            if not any(sign in str(failed) for sign in _FAULTS):
                raise
            self._broke(str(failed))
            raise DeviceFault(str(failed)) from failed

    def bind(self, inputs: Dict[str, Tensor], outputs: Dict[str, Tensor]) -> Optional[Bound]:
        """ONNX Runtime copies a bound input to the GPU as it is bound, so later ones would not be seen."""
        del inputs, outputs
        return None

    def close(self) -> None:
        self._model.close()


class _Onnx:
    """ONNX Runtime with the TensorRT provider, whose libraries were all found."""

    def __init__(self, sight: Sight) -> None:
        """Raises BackendUnavailable: the provider, or a library that it needs, is missing, or the driver is too old."""
        self._runtime = runtime = OnnxRuntime()
        providers = runtime.ort.get_available_providers()
        if PROVIDER not in providers:
            raise BackendUnavailable(f"{runtime.version} comes without the TensorRT provider", MISSING_LIBRARY)
        self.cuda = _built_for()
        _not_newer(self.cuda, sight)
        _preload(runtime.ort)
        folder = os.path.join(os.path.dirname(str(runtime.ort.__file__)), "capi")
        _open_libraries(folder)
        self._next = [CUDA] if CUDA in providers else []
        self.version = f"{runtime.version} with TensorRT"
        self.libraries = {
            # Now, and never again: a library that a first load brings along would make it another engine at the next.
            "onnxruntime": str(runtime.ort.__version__),
            "cuda": self.cuda,
            "tensorrt": _version_of("libnvinfer.so", "getInferLibVersion"),
            "cudnn": _version_of("libcudnn.so", "cudnnGetVersion"),
        }
        """What an engine depends on, by name."""

    def inputs(self, content: bytes, external: Mapping[str, bytes]) -> Sequence[TensorSpec]:
        """What the model takes. Raises ModelRejected."""
        options = self._runtime.options(1)
        options.graph_optimization_level = self._runtime.ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        model = self._runtime.model(content, external, options, [CPU])
        model.close()
        return model.inputs

    def load(self, content: bytes, external: Mapping[str, bytes], threads: int, told: Mapping[str, str]) -> OnnxModel:
        """Raises ModelRejected, ModelTooLarge, NotOnDevice, BackendUnavailable."""
        following = [(name, {"device_id": told["device_id"]}) for name in self._next]
        providers = [(PROVIDER, dict(told)), *following]
        proof = OnDevice((PROVIDER, *self._next), ALL)
        options = self._runtime.options
        try:
            return self._runtime.model(content, external, proof.prepare(options(threads)), providers, proof)
        except NotOnDevice:
            raise
        except ModelRejected as refused:
            if any(sign in str(refused) for sign in _NOT_STARTED):
                raise BackendUnavailable(f"the TensorRT provider can't start: {refused}", MISSING_LIBRARY) from refused
            if "fallback to CPU" not in str(refused) and "fallback to the CPU" not in str(refused):
                raise
            # Once more without that rule, to say which operators it was; engines that were built are read again.
            again = proof.prepare(options(threads), fallback=True)
            self._runtime.model(content, external, again, providers, proof).close()
            raise NotOnDevice(f"a part of it would run on the CPU: {refused}") from refused


class _Place:
    """Where the engine of one load is, or is to be built: in the cache, in a build of it, or nowhere."""

    def __init__(self, cache: Optional[EngineCache], origin: Origin, tell: Callable[[str], None]) -> None:
        self._build: Optional[Build] = None
        self.folder = self.timings = ""
        """Empty: there is no cache."""
        if cache is None:
            return tell("building the engine")
        facts = {name: value for name, value in vars(origin).items() if name not in ("model", "options")}
        self.timings = cache.shared("timings", facts)
        found = cache.find(origin)
        tell("reading the engine" if found else "building the engine")
        if found is None:
            self._build = cache.begin(origin)
        self.folder = found or self._build.folder  # type: ignore[union-attr]  # one of the two is there
        return None

    def __enter__(self) -> _Place:
        return self

    def __exit__(self, *failure: Any) -> None:
        if self._build is not None:
            self._build.discard()
            self._build = None

    def get(self, name: str) -> Optional[bytes]:
        """A file of a whole entry; None: there is none."""
        if not self.folder or self._build is not None:
            return None
        with open(os.path.join(self.folder, name), "rb") as file:
            return file.read()

    def put(self, name: str, content: bytes) -> None:
        """A file of the build, if there is one."""
        if self._build is not None:
            with open(os.path.join(self._build.folder, name), "wb") as file:
                file.write(content)

    def whole(self) -> None:
        """The engine has been built, and has run."""
        if self._build is not None:
            with contextlib.suppress(OSError):  # a full disk costs the next start its time, and this one nothing
                self._build.commit()
                self._build = None


def model_name(told: str) -> str:
    """Without its version, which stands behind it."""
    return told.rpartition(" ")[0] or told


def _plain(ranges: Mapping[str, Range]) -> Dict[str, Any]:
    """As JSON has it."""
    return {name: [list(shape) for shape in each] for name, each in ranges.items()}


def _seen(sight: Sight) -> Sight:
    """Raises BackendUnavailable: nothing was."""
    if sight.problem:
        raise BackendUnavailable(f"{sight.problem}; {sight.remedy}", sight.code)
    return sight


def _attempt(make: Callable[[], Any]) -> _Library:
    try:
        return _Library(make(), None)
    except BackendUnavailable as missing:
        return _Library(None, missing)


def _neither(onnx: Optional[BackendUnavailable], native: Optional[BackendUnavailable]) -> BackendUnavailable:
    codes = [missing.code for missing in (onnx, native) if missing is not None]
    code = WRONG_DRIVER if WRONG_DRIVER in codes else MISSING_LIBRARY
    return BackendUnavailable(f"for ONNX models: {onnx}; for engines: {native}", code)


def _cache(settings: Settings, options: Options) -> Optional[EngineCache]:
    """Raises BackendUnavailable: its folder can't be made."""
    if not settings.cache:
        return None
    try:
        return EngineCache(os.path.join(settings.cache, "engines"), options.cache_mb * _MB)
    except OSError as failed:
        raise BackendUnavailable(f"the folder of engines: {failed}") from failed


def _read_table(path: str) -> bytes:
    if not path:
        return b""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as failed:
        raise BackendUnavailable(f"options.calibrationTable: {failed}") from failed


def _probe_tensor(spec: TensorSpec, of: Optional[Range]) -> Tensor:
    return zeros(spec if of is None else TensorSpec(spec.name, spec.datatype, of.best))


def _built_for() -> str:
    """Version of CUDA that this ONNX Runtime was built for; empty: it does not say."""
    try:
        from onnxruntime.capi import build_and_package_info as info
    except ImportError:
        return ""
    return str(getattr(info, "cuda_version", "") or "")


def _not_newer(cuda: str, sight: Sight) -> None:
    """Raises BackendUnavailable: the driver is older than what the library was built for."""
    major = cuda.partition(".")[0]
    if major.isdigit() and sight.cuda[0] and int(major) > sight.cuda[0]:
        have = f"{sight.cuda[0]}.{sight.cuda[1]}"
        raise BackendUnavailable(f"onnxruntime wants CUDA {cuda}, and the driver goes up to {have}", WRONG_DRIVER)


def _preload(ort: Any) -> None:
    """Find CUDA and cuDNN in the packages of pip, where they are; it prints what it does not find."""
    preload = getattr(ort, "preload_dlls", None)
    if preload is not None:
        with contextlib.redirect_stdout(io.StringIO()):
            preload()


def _open_libraries(folder: str) -> None:
    """Raises BackendUnavailable: with the name of the library that is missing. ONNX Runtime itself would only print
    something, and run on the CPU; the TensorRT provider can't do without the CUDA provider's library.
    """
    try:
        ctypes.CDLL(os.path.join(folder, "libonnxruntime_providers_shared.so"), ctypes.RTLD_GLOBAL)
        for provider in ("cuda", "tensorrt"):
            ctypes.CDLL(os.path.join(folder, f"libonnxruntime_providers_{provider}.so"))
    except OSError as missing:
        raise BackendUnavailable(f"the TensorRT provider: {missing}", MISSING_LIBRARY) from missing


def _version_of(library: str, function: str) -> str:
    """Of a library that is loaded already: whichever file of that name the process has mapped."""
    with contextlib.suppress(OSError, AttributeError):
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
            paths = {line.split(None, 5)[5].strip() for line in file if f"/{library}" in line}
        for path in sorted(paths):
            ask = getattr(ctypes.CDLL(path), function)
            ask.restype = ctypes.c_size_t
            return str(ask())
    return ""
