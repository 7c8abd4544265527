"""An engine from an ONNX model, by TensorRT's own parser and builder."""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, Mapping, Optional

from workers.backend import WRONG_DRIVER, BackendUnavailable, ModelRejected, TensorSpec
from workers.external import external_names
from workers.onnx_types import declared_datatypes
from workers.tensorrt.native import Native
from workers.tensorrt.options import Options, Range, open_ones, ranges_of

_TIMINGS = "timings.cache"


def build_engine(
    native: Native,
    content: bytes,
    model: str,
    options: Options,
    table: bytes,
    timings: str,
    tell: Callable[[str], None],
) -> bytes:
    """The engine of an ONNX model; takes seconds to an hour.

    Args:
        native: to build it by.
        content: of the model.
        model: its name, by which its ranges of shapes may be configured.
        options: of the worker.
        table: of calibration, as TensorRT writes it; empty: there is none.
        timings: folder of the timing cache; empty: there is none.
        tell: told what it is at.

    Raises:
        ModelRejected: TensorRT can't build it so.
        BackendUnavailable: there is no builder.
    """
    trt = native.trt
    _refuse_external(content)
    native.log.clear()
    try:
        builder = trt.Builder(native.logger)
    except TypeError as refused:  # what pybind11 makes of a factory that returns nothing
        raise BackendUnavailable(f"TensorRT's builder can't start{native.log.because()}", WRONG_DRIVER) from refused
    explicit = getattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", None)
    network = builder.create_network(0 if explicit is None else 1 << int(explicit))
    parser = trt.OnnxParser(network, native.logger)
    tell("reading the model")
    if not parser.parse(content):
        errors = "; ".join(parser.get_error(index).desc() for index in range(min(3, parser.num_errors)))
        raise ModelRejected(f"TensorRT's parser: {errors or 'no ONNX model'}")
    _refuse_others(native, network, declared_datatypes(content))
    ranges = _ranges(native, network, model, options)
    config = builder.create_builder_config()
    calibrator = _configure(native, config, options, table)
    if ranges:
        profile = builder.create_optimization_profile()
        for name, (least, best, most) in ranges.items():
            profile.set_shape(name, least, best, most)
        config.add_optimization_profile(profile)
    known = _use_timings(config, timings)
    native.log.clear()  # a cache that it does not take is no reason for what follows
    monitor = _monitor(trt, tell)
    if monitor is not None:
        config.progress_monitor = monitor
    tell("building the engine")
    plan = builder.build_serialized_network(network, config)
    del calibrator, monitor  # they had to live until now: TensorRT holds them by their addresses
    if plan is None:
        raise ModelRejected(f"TensorRT can't build an engine of it{native.log.because()}")
    _keep_timings(config, timings, known)
    return bytes(plan)


def _refuse_external(content: bytes) -> None:
    """Raises ModelRejected: it names other files, which TensorRT's parser would look for by itself."""
    try:
        named = external_names(content)
    except ValueError as broken:
        raise ModelRejected(f"not an ONNX model: {broken}") from broken
    if named:
        raise ModelRejected("external data needs ONNX Runtime with its TensorRT provider: options.through: onnxruntime")


def _refuse_others(native: Native, network: Any, declared: Mapping[str, str]) -> None:
    """Raises ModelRejected: the parser made another datatype of one, as versions before 10 do of INT64."""
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    for tensor in [*inputs, *(network.get_output(index) for index in range(network.num_outputs))]:
        made, wanted = native.datatypes.get(tensor.dtype, str(tensor.dtype)), declared.get(tensor.name, "")
        if made != wanted:
            raise ModelRejected(
                f"{tensor.name} is {wanted or 'of an unknown datatype'} in the model, and {native.version} makes "
                f"{made} of it; options.through: onnxruntime keeps it, or convert the model"
            )


def _ranges(native: Native, network: Any, model: str, options: Options) -> Dict[str, Range]:
    """Of inputs with open sizes. Raises ModelRejected: one is not known."""
    tensors = [network.get_input(index) for index in range(network.num_inputs)]
    inputs = [
        TensorSpec(tensor.name, native.datatypes.get(tensor.dtype, ""), tuple(int(size) for size in tensor.shape))
        for tensor in tensors
    ]
    return open_ones(inputs, ranges_of(model, inputs, options))


def _configure(native: Native, config: Any, options: Options, table: bytes) -> Any:
    """Raises ModelRejected: this version can't be told so."""
    trt = native.trt
    for wanted, flag in ((options.fp16, "FP16"), (options.bf16, "BF16"), (options.int8, "INT8")):
        if wanted:
            config.set_flag(_known(native, trt.BuilderFlag, flag))
    if options.workspace_mb:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mb << 20)
    if options.builder_level is not None:
        config.builder_optimization_level = options.builder_level
    if options.dla is not None:
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = options.dla
        config.set_flag(_known(native, trt.BuilderFlag, "GPU_FALLBACK"))
    if not table:
        return None
    calibrator = _calibrator(_known(native, trt, "IInt8EntropyCalibrator2"), table)
    config.int8_calibrator = calibrator
    return calibrator


def _known(native: Native, holder: Any, name: str) -> Any:
    found = getattr(holder, name, None)
    if found is None:
        raise ModelRejected(
            f"{native.version} knows no {name}: it takes the precision from the model, so convert the model and "
            "leave the option out"
        )
    return found


def _use_timings(config: Any, folder: str) -> bytes:
    """What is known of kernels on this device. TensorRT itself looks whether it is of this device."""
    known = b""
    if folder:
        try:
            with open(os.path.join(folder, _TIMINGS), "rb") as file:
                known = file.read()
        except OSError:
            known = b""
        config.set_timing_cache(config.create_timing_cache(known), ignore_mismatch=False)
    return known


def _keep_timings(config: Any, folder: str, known: bytes) -> None:
    """The next build is faster for it; that it can't be kept is no reason to have none."""
    cache = config.get_timing_cache() if folder else None
    if cache is None:
        return
    learned = bytes(cache.serialize())
    if learned == known:
        return
    path = os.path.join(folder, _TIMINGS)
    try:
        with open(f"{path}.{os.getpid()}", "wb") as file:
            file.write(learned)
        os.rename(file.name, path)
    except OSError:
        return


def _monitor(trt: Any, tell: Callable[[str], None]) -> Any:
    """Follows a build, where this version can be followed (8.6.1 and later); else None."""
    if not hasattr(trt, "IProgressMonitor"):
        return None

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # of a library without types
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: Dict[str, int] = {}

        def phase_start(self, phase: str, parent: Optional[str], steps: int) -> None:
            self._steps[phase] = steps

        def step_complete(self, phase: str, step: int) -> bool:
            tell(f"building the engine: {phase} {step + 1}/{self._steps.get(phase, step + 1)}")
            return True

        def phase_finish(self, phase: str) -> None:
            self._steps.pop(phase, None)

    return Monitor()


def _calibrator(parent: Any, table: bytes) -> Any:
    """Gives TensorRT the ranges that were measured before, and no data to measure more."""

    class Table(parent):  # type: ignore[misc]  # of a library without types
        def __init__(self) -> None:
            parent.__init__(self)

        def get_batch_size(self) -> int:
            return 1

        def get_batch(self, names: Any) -> None:
            return None

        def read_calibration_cache(self) -> bytes:
            return table

        def write_calibration_cache(self, cache: Any) -> None:
            return None

    return Table()
