"""NVIDIA GPUs with TensorRT: ONNX models by ONNX Runtime's provider, engines by TensorRT's own runtime."""

from __future__ import annotations

import hashlib
from typing import Any, Callable, Dict, Mapping, NamedTuple, Optional, Sequence, Tuple

from workers.backend import (
    MISSING_DEVICE,
    MISSING_LIBRARY,
    NO_FILES,
    WRONG_DRIVER,
    BackendUnavailable,
    DeviceFault,
    Heat,
    Model,
    ModelRejected,
    ModelTooLarge,
    Probe,
    RunFailed,
    Settings,
    Tensor,
    TensorSpec,
)
from workers.engines import Origin, model_digest
from workers.loaded import NeverCancelled, zeros
from workers.nvidia import Gpu, Roots, Sight, look
from workers.tensorrt.building import build_engine
from workers.tensorrt.native import OUT_OF_MEMORY, CudaFault, Native
from workers.tensorrt.options import Range, open_ones, provider_options, ranges_of, read_options
from workers.tensorrt.place import PLAN, TABLE, Place, open_cache
from workers.tensorrt.running import load_engine
from workers.tensorrt.through_onnx import Provider, ProviderModel

_ONNX = b"\x08"
"""First byte of an ONNX model: the tag of its first field. No engine begins so."""
_MB = 1 << 20
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
        self._onnx: Optional[Provider] = onnx.there
        self._native: Optional[Native] = native.there
        self._why_no_native = str(native.missing or "")
        if self._onnx is None and self._native is not None:
            known = self._native.datatypes.values()
            self.datatypes = [datatype for datatype in type(self).datatypes if datatype in known]
        self.formats: Sequence[str] = (".plan", ".engine", ".onnx") if self._native else (".onnx",)
        self.runtime = ", ".join(each.version for each in (self._onnx, self._native) if each is not None)
        self.device = self._gpu.name
        self._cache = open_cache(settings, self._options)
        self._broken = ""

    @classmethod
    def probe(cls, roots: Roots = Roots()) -> Probe:  # noqa: B008 - it is frozen
        sight = look(roots)
        if sight.problem:
            return Probe(False, sight.problem, sight.remedy, code=sight.code)
        devices = tuple(f"{gpu.name} ({gpu.memory // _MB} MB, compute {gpu.capability})" for gpu in sight.gpus)
        onnx = _attempt(lambda: Provider(sight))
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
            model: Model = self._proved(load_engine(self._native, content, name, self._settings.instances, self._broke))
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
        onnx = unwanted if through == "native" else _attempt(lambda: Provider(sight))
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
                place.put(TABLE, self._table)
            table = TABLE if self._table else ""
            told = provider_options(self._options, shapes, place.folder, place.timings, table)
            loaded = onnx.load(content, external, self._settings.threads, told)
            model = ProviderModel(loaded, shapes, self._broke)
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
                plan = build_engine(native, content, about, self._options, self._table, place.timings, tell)
                place.put(PLAN, plan)
            model: Model = self._proved(load_engine(native, plan, name, self._settings.instances, self._broke))
            place.whole()
        return model

    def _origin(self, model: str, shapes: Mapping[str, Any], libraries: Mapping[str, str]) -> Origin:
        table = hashlib.sha256(self._table).hexdigest() if self._table else ""
        told = {**self._options.of_engine(), "shapes": dict(shapes), "table": table}
        gpu = self._gpu
        return Origin(model, gpu.name, gpu.capability, gpu.memory, self._driver, dict(libraries), told)

    def _place(self, origin: Origin) -> Place:
        tell = self._settings.progress.teller()
        return Place(self._cache, origin, tell)

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
