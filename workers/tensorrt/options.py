"""What a worker of TensorRT is told: its options, and for each model the shapes that its engine is built for."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from workers.backend import BackendUnavailable, ModelRejected, TensorSpec

Shape = Tuple[int, ...]
_LARGEST = 1 << 31


class Range(NamedTuple):
    """Shapes of one input that an engine takes, and the one that it is made fastest for."""

    least: Shape
    best: Shape
    most: Shape

    def holds(self, shape: Sequence[int]) -> bool:
        return len(shape) == len(self.least) and all(
            low <= size <= high for low, size, high in zip(self.least, shape, self.most)
        )

    def __str__(self) -> str:
        return f"{list(self.least)} to {list(self.most)}"


@dataclass(frozen=True)
class Options:
    """The backend's ``options``, checked. Names in the device config are those of ``_NAMES``."""

    device: int = 0
    fp16: bool = False
    bf16: bool = False
    int8: bool = False
    calibration_table: str = ""
    """File with the ranges of tensors, for INT8 of models that do not carry their own."""
    native_table: bool = False
    """Whether TensorRT wrote it, and not ONNX Runtime."""
    workspace_mb: int = 0
    """Memory that a layer may use while it runs; 0: as TensorRT thinks."""
    builder_level: Optional[int] = None
    """0 to 5: how long the builder looks for fast kernels; None: as TensorRT thinks."""
    dla: Optional[int] = None
    """Core of the deep learning accelerator that is to run what it can; None: none is."""
    max_batch: int = 8
    """Largest first size of inputs that leave it open and have no entry in ``profiles``."""
    profiles: Mapping[str, Range] = field(default_factory=dict)
    """By input, or by ``MODEL/INPUT``, which goes first."""
    cache_mb: int = 4096
    through: str = "auto"
    """Who builds engines of ONNX models: onnxruntime, native, or whichever is there, in this order."""

    def of_engine(self) -> Dict[str, Any]:
        """What makes one engine another."""
        kept = asdict(self)
        for name in ("profiles", "cache_mb", "calibration_table", "max_batch"):
            del kept[name]
        return kept


_FLAGS = {"fp16": "fp16", "bf16": "bf16", "int8": "int8", "nativeCalibrationTable": "native_table"}
_NUMBERS = {
    "device": ("device", 0, 255),
    "workspaceMB": ("workspace_mb", 0, 1 << 20),
    "builderLevel": ("builder_level", 0, 5),
    "dla": ("dla", 0, 7),
    "maxBatch": ("max_batch", 1, 65536),
    "cacheMB": ("cache_mb", 1, 1 << 30),
}
_NAMES = sorted([*_FLAGS, *_NUMBERS, "calibrationTable", "profiles", "through"])
_THROUGH = ("auto", "onnxruntime", "native")


def read_options(raw: Mapping[str, Any]) -> Options:
    """Raises BackendUnavailable: one is unknown, or makes no sense."""
    found: Dict[str, Any] = {}
    for name, value in raw.items():
        if name in _FLAGS:
            found[_FLAGS[name]] = _expect(isinstance(value, bool), name, "true or false", value)
        elif name in _NUMBERS:
            field_name, least, most = _NUMBERS[name]
            fits = isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
            found[field_name] = _expect(fits, name, f"a whole number from {least} to {most}", value)
        elif name == "calibrationTable":
            found["calibration_table"] = _expect(isinstance(value, str) and value, name, "the path of a file", value)
        elif name == "through":
            found["through"] = _expect(value in _THROUGH, name, " or ".join(_THROUGH), value)
        elif name == "profiles":
            _expect(isinstance(value, Mapping), name, "ranges of shapes by input", value)
            found["profiles"] = {str(key): _range(f"profiles.{key}", entry) for key, entry in value.items()}
        else:
            raise BackendUnavailable(f"options.{name}: unknown; there are {', '.join(_NAMES)}")
    options = Options(**found)
    if options.calibration_table and not options.int8:
        raise BackendUnavailable("options.calibrationTable has no effect without int8: true")
    return options


def ranges_of(model: str, inputs: Sequence[TensorSpec], options: Options) -> Dict[str, Range]:
    """For each input the shapes that the engine is to take, as configured; else a batch of 1 to ``maxBatch``.

    Raises:
        ModelRejected: a size other than the first is open, and nobody says of what range.
    """
    ranges: Dict[str, Range] = {}
    for spec in inputs:
        told = options.profiles.get(f"{model}/{spec.name}") or options.profiles.get(spec.name)
        if told is not None and -1 in spec.shape:
            _check(told, spec)
            ranges[spec.name] = told
        elif -1 in spec.shape[1:]:
            raise ModelRejected(
                f"input {spec.name} is {list(spec.shape)}: an engine needs to know the range of its open sizes; set "
                f"options.profiles.{spec.name}: {{min: [...], opt: [...], max: [...]}}"
            )
        else:
            first = spec.shape[:1] == (-1,)
            most = ((options.max_batch, *spec.shape[1:])) if first else spec.shape
            least = (1, *spec.shape[1:]) if first else spec.shape
            ranges[spec.name] = Range(least, least, most)
    return ranges


def open_ones(inputs: Sequence[TensorSpec], ranges: Mapping[str, Range]) -> Dict[str, Range]:
    """The ranges of inputs that leave a size open: only they are told to a builder."""
    return {spec.name: ranges[spec.name] for spec in inputs if -1 in spec.shape}


def misfit(shapes: Mapping[str, Sequence[int]], ranges: Mapping[str, Range]) -> str:
    """Which of a run's inputs the engine was not built for; empty: none."""
    for name, shape in shapes.items():
        if name in ranges and not ranges[name].holds(shape):
            return f"input {name} is {list(shape)}, and the engine is built for {ranges[name]}"
    return ""


def provider_options(
    options: Options, ranges: Mapping[str, Range], folder: str, timings: str, table: str
) -> Dict[str, str]:
    """As ONNX Runtime's TensorRT provider takes them.

    Args:
        options: of the worker.
        ranges: of inputs with open sizes.
        folder: where engines are read and written; empty: they are not kept.
        timings: folder of the timing cache; empty: there is none.
        table: name of the calibration table, in ``folder``; empty: there is none.

    Raises:
        ModelRejected: an input's name can't be told.
    """
    told = {
        "device_id": str(options.device),
        "trt_fp16_enable": _yes(options.fp16),
        "trt_int8_enable": _yes(options.int8),
        "trt_engine_cache_enable": _yes(bool(folder)),
        "trt_timing_cache_enable": _yes(bool(timings)),
    }
    if options.bf16:
        told["trt_bf16_enable"] = "True"
    if folder:
        told["trt_engine_cache_path"] = folder
    if timings:
        told["trt_timing_cache_path"] = timings
    if table:
        told["trt_int8_calibration_table_name"] = table
        told["trt_int8_use_native_calibration_table"] = _yes(options.native_table)
    if options.workspace_mb:
        told["trt_max_workspace_size"] = str(options.workspace_mb << 20)
    if options.builder_level is not None:
        told["trt_builder_optimization_level"] = str(options.builder_level)
    if options.dla is not None:
        told["trt_dla_enable"], told["trt_dla_core"] = "True", str(options.dla)
    if ranges:
        for name in ranges:
            if "," in name:
                raise ModelRejected(f"input {name}: ONNX Runtime can't be told the shapes of a name with a comma")
        for which, at in (("min", 0), ("opt", 1), ("max", 2)):
            shapes = (f"{name}:{'x'.join(map(str, every[at]))}" for name, every in ranges.items())
            told[f"trt_profile_{which}_shapes"] = ",".join(shapes)
    return told


def _range(where: str, raw: Any) -> Range:
    """Raises BackendUnavailable."""
    if not isinstance(raw, Mapping) or not {"min", "max"} <= raw.keys() <= {"min", "opt", "max"}:
        raise BackendUnavailable(f"options.{where}: expected {{min: [...], opt: [...], max: [...]}}, got {raw!r}")
    shapes: List[Shape] = []
    for which in ("min", "max", "opt"):
        shape = raw.get(which, raw["max"])
        sizes = isinstance(shape, (list, tuple)) and all(
            isinstance(size, int) and not isinstance(size, bool) and 0 < size < _LARGEST for size in shape
        )
        _expect(sizes, f"{where}.{which}", "whole numbers above 0", shape)
        shapes.append(tuple(shape))
    least, most, best = shapes
    found = Range(least, best, most)
    if not (found.holds(found.best) and found.holds(found.most)):
        raise BackendUnavailable(f"options.{where}: min, opt and max must have as many sizes, none smaller than before")
    return found


def _check(told: Range, spec: TensorSpec) -> None:
    """Raises ModelRejected: the range is not one of that input."""
    fits = len(told.least) == len(spec.shape) and all(
        size in (-1, low) and size in (-1, high) for size, low, high in zip(spec.shape, told.least, told.most)
    )
    if not fits:
        raise ModelRejected(f"options.profiles.{spec.name}: {told} is no range of {list(spec.shape)}")


def _expect(fits: Any, name: str, what: str, value: Any) -> Any:
    if not fits:
        raise BackendUnavailable(f"options.{name}: expected {what}, got {value!r}")
    return value


def _yes(value: bool) -> str:
    """ONNX Runtime takes nothing but these two words for a flag of this provider."""
    return "True" if value else "False"
