"""TensorRT without ONNX Runtime: engines from files or built here, run on pinned memory with a stream per instance.

``tensorrt`` and ``cuda-python`` as they are installed for this interpreter; on a Jetson the first is JetPack's.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import queue
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from edgeway.datatypes import nbytes
from workers.backend import (
    MISSING_LIBRARY,
    WRONG_DRIVER,
    BackendUnavailable,
    Bound,
    Cancellation,
    DeviceFault,
    ModelRejected,
    ModelTooLarge,
    RunFailed,
    Tensor,
    TensorSpec,
)
from workers.external import external_names
from workers.onnx_types import declared_datatypes
from workers.tensorrt_options import Options, Range, misfit, open_ones, ranges_of

_TYPES = {
    "FLOAT": "FP32",
    "HALF": "FP16",
    "BF16": "BF16",
    "INT8": "INT8",
    "UINT8": "UINT8",
    "INT32": "INT32",
    "INT64": "INT64",
    "BOOL": "BOOL",
}
"""TensorRT's names -> the protocol's. What is missing (FP8, INT4, FP4) no client could send."""

OUT_OF_MEMORY = 2
"""CUDA's number. What it refuses so leaves the device in order."""
_TOO_OLD = (35, 3)
"""CUDA's numbers for a driver that is older than the runtime, or that can't be initialised."""
_NON_BLOCKING = 1
_TO_DEVICE, _TO_HOST = "cudaMemcpyHostToDevice", "cudaMemcpyDeviceToHost"
_LEAST_ROOM = 256
"""Bytes of a buffer: TensorRT wants an address also for a tensor without elements."""
TIMINGS = "timings.cache"


class CudaFault(DeviceFault):
    """A call of CUDA's runtime failed; ``number`` is CUDA's."""

    def __init__(self, text: str, number: int) -> None:
        super().__init__(text)
        self.number = number


class Native:
    """The two libraries, on one device."""

    def __init__(self, device: int) -> None:
        """Raises BackendUnavailable: one can't be imported, or the driver does not take it."""
        self.trt = trt = _import_tensorrt()
        self.cuda = _import_cuda()
        self.device = device
        self.version = f"TensorRT {trt.__version__}"
        self.log = _Log()
        self.logger = _logger(trt, self.log)
        try:
            self.call("cudaSetDevice", device)
        except CudaFault as refused:
            old = refused.number in _TOO_OLD
            why = "; the driver is older than cuda-python, which has to be of its version of CUDA" if old else ""
            raise BackendUnavailable(f"{refused}{why}", WRONG_DRIVER if old else "") from refused
        known = {getattr(trt.DataType, name, None): datatype for name, datatype in _TYPES.items()}
        self.datatypes = {theirs: ours for theirs, ours in known.items() if theirs is not None}

    def call(self, name: str, *arguments: Any) -> Any:
        """What a function of CUDA's runtime returns beside its error. Raises CudaFault."""
        error, *results = getattr(self.cuda, name)(*arguments)
        number = int(error)
        if number:
            raise CudaFault(f"{name}: CUDA error {number} ({getattr(error, 'name', error)})", number)
        return results[0] if len(results) == 1 else tuple(results)

    def libraries(self) -> Dict[str, str]:
        """What an engine depends on, by name."""
        return {"tensorrt": str(self.trt.__version__), "cuda": str(self.call("cudaRuntimeGetVersion"))}

    def load(self, content: bytes, name: str, instances: int, broke: Callable[[str], None]) -> NativeModel:
        """A model from the bytes of an engine.

        Args:
            content: of the file.
            name: for messages.
            instances: runs at a time.
            broke: told why, when a run has failed so that this process can't use the device any more.

        Raises:
            ModelRejected, ModelTooLarge.
        """
        self.log.clear()
        runtime = self.trt.Runtime(self.logger)
        engine = runtime.deserialize_cuda_engine(content)
        if engine is None:
            raise ModelRejected(
                f"{name}: {self.version} does not take this engine{self.log.because()}; an engine runs only with the "
                "version of TensorRT and on the kind of GPU that it was built with: build it here, or give the .onnx"
            )
        try:
            return NativeModel(self, runtime, engine, instances, broke)
        except CudaFault as failed:
            if failed.number == OUT_OF_MEMORY:
                raise ModelTooLarge(f"{name}: the GPU has not enough memory for the engine") from failed
            raise

    def build(
        self,
        content: bytes,
        model: str,
        options: Options,
        table: bytes,
        timings: str,
        tell: Callable[[str], None],
    ) -> bytes:
        """The engine of an ONNX model; takes seconds to an hour.

        Args:
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
        trt = self.trt
        _refuse_external(content)
        self.log.clear()
        try:
            builder = trt.Builder(self.logger)
        except TypeError as refused:  # what pybind11 makes of a factory that returns nothing
            raise BackendUnavailable(f"TensorRT's builder can't start{self.log.because()}", WRONG_DRIVER) from refused
        explicit = getattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", None)
        network = builder.create_network(0 if explicit is None else 1 << int(explicit))
        parser = trt.OnnxParser(network, self.logger)
        tell("reading the model")
        if not parser.parse(content):
            errors = "; ".join(parser.get_error(index).desc() for index in range(min(3, parser.num_errors)))
            raise ModelRejected(f"TensorRT's parser: {errors or 'no ONNX model'}")
        self._refuse_others(network, declared_datatypes(content))
        ranges = self._ranges(network, model, options)
        config = builder.create_builder_config()
        calibrator = self._configure(config, options, table)
        if ranges:
            profile = builder.create_optimization_profile()
            for name, (least, best, most) in ranges.items():
                profile.set_shape(name, least, best, most)
            config.add_optimization_profile(profile)
        known = self._use_timings(config, timings)
        self.log.clear()  # a cache that it does not take is no reason for what follows
        monitor = _monitor(trt, tell)
        if monitor is not None:
            config.progress_monitor = monitor
        tell("building the engine")
        plan = builder.build_serialized_network(network, config)
        del calibrator, monitor  # they had to live until now: TensorRT holds them by their addresses
        if plan is None:
            raise ModelRejected(f"TensorRT can't build an engine of it{self.log.because()}")
        self._keep_timings(config, timings, known)
        return bytes(plan)

    def _refuse_others(self, network: Any, declared: Mapping[str, str]) -> None:
        """Raises ModelRejected: the parser made another datatype of one, as versions before 10 do of INT64."""
        inputs = [network.get_input(index) for index in range(network.num_inputs)]
        for tensor in [*inputs, *(network.get_output(index) for index in range(network.num_outputs))]:
            made, wanted = self.datatypes.get(tensor.dtype, str(tensor.dtype)), declared.get(tensor.name, "")
            if made != wanted:
                raise ModelRejected(
                    f"{tensor.name} is {wanted or 'of an unknown datatype'} in the model, and {self.version} makes "
                    f"{made} of it; options.through: onnxruntime keeps it, or convert the model"
                )

    def _ranges(self, network: Any, model: str, options: Options) -> Dict[str, Range]:
        """Of inputs with open sizes. Raises ModelRejected: one is not known."""
        tensors = [network.get_input(index) for index in range(network.num_inputs)]
        inputs = [
            TensorSpec(tensor.name, self.datatypes.get(tensor.dtype, ""), tuple(int(size) for size in tensor.shape))
            for tensor in tensors
        ]
        return open_ones(inputs, ranges_of(model, inputs, options))

    def _configure(self, config: Any, options: Options, table: bytes) -> Any:
        """Raises ModelRejected: this version can't be told so."""
        trt = self.trt
        for wanted, flag in ((options.fp16, "FP16"), (options.bf16, "BF16"), (options.int8, "INT8")):
            if wanted:
                config.set_flag(self._known(trt.BuilderFlag, flag))
        if options.workspace_mb:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mb << 20)
        if options.builder_level is not None:
            config.builder_optimization_level = options.builder_level
        if options.dla is not None:
            config.default_device_type = trt.DeviceType.DLA
            config.DLA_core = options.dla
            config.set_flag(self._known(trt.BuilderFlag, "GPU_FALLBACK"))
        if not table:
            return None
        calibrator = _calibrator(self._known(trt, "IInt8EntropyCalibrator2"), table)
        config.int8_calibrator = calibrator
        return calibrator

    def _known(self, holder: Any, name: str) -> Any:
        found = getattr(holder, name, None)
        if found is None:
            raise ModelRejected(
                f"{self.version} knows no {name}: it takes the precision from the model, so convert the model and "
                "leave the option out"
            )
        return found

    def _use_timings(self, config: Any, folder: str) -> bytes:
        """What is known of kernels on this device. TensorRT itself looks whether it is of this device."""
        known = b""
        if folder:
            try:
                with open(os.path.join(folder, TIMINGS), "rb") as file:
                    known = file.read()
            except OSError:
                known = b""
            config.set_timing_cache(config.create_timing_cache(known), ignore_mismatch=False)
        return known

    def _keep_timings(self, config: Any, folder: str, known: bytes) -> None:
        """The next build is faster for it; that it can't be kept is no reason to have none."""
        cache = config.get_timing_cache() if folder else None
        if cache is None:
            return
        learned = bytes(cache.serialize())
        if learned == known:
            return
        path = os.path.join(folder, TIMINGS)
        try:
            with open(f"{path}.{os.getpid()}", "wb") as file:
                file.write(learned)
            os.rename(file.name, path)
        except OSError:
            return


class NativeModel:
    """One engine. As many runs at a time as it has lanes; more wait."""

    platform = "tensorrt_plan"
    values_matter = False

    def __init__(self, native: Native, runtime: Any, engine: Any, instances: int, broke: Callable[[str], None]) -> None:
        """Raises ModelRejected, CudaFault."""
        self._native = native
        self._runtime, self._engine = runtime, engine
        self._broke = broke
        self.inputs: List[TensorSpec] = []
        self.outputs: List[TensorSpec] = []
        self.ranges: Dict[str, Range] = {}
        """Of inputs with open sizes."""
        for index in range(engine.num_io_tensors):
            self._take(engine.get_tensor_name(index))
        layers = getattr(engine, "num_layers", 0)
        self.provenance = f"all {layers or ''} layers in one engine of {native.version}".replace("  ", " ")
        self._all: List[_Lane] = []
        self._free: queue.SimpleQueue[_Lane] = queue.SimpleQueue()
        try:
            for _ in range(instances):
                lane = _Lane(native, engine)
                self._all.append(lane)
                self._free.put(lane)
            self._refuse_undetermined(self._all[0])
        except BaseException:
            self.close()
            raise

    def run(self, inputs: Dict[str, Tensor], outputs: Sequence[str], cancellation: Cancellation) -> List[Tensor]:
        del cancellation  # a run that the GPU has begun can't be stopped
        wrong = misfit({name: tensor.shape for name, tensor in inputs.items()}, self.ranges)
        if wrong:
            raise RunFailed(wrong)
        lane = self._free.get()
        try:
            return lane.run(inputs, self.outputs, outputs)
        except CudaFault as failed:
            if failed.number != OUT_OF_MEMORY:
                self._broke(str(failed))
            raise
        finally:
            self._free.put(lane)

    def bind(self, inputs: Dict[str, Tensor], outputs: Dict[str, Tensor]) -> Optional[Bound]:
        """The slots' memory is not pinned, and the copy from it is the only one that this would save."""
        del inputs, outputs
        return None

    def close(self) -> None:
        for lane in self._all:
            lane.close()
        self._all = []
        self._engine = self._runtime = None

    def _take(self, name: str) -> None:
        """Learn of one input or output. Raises ModelRejected: no client could send or get it."""
        trt, engine = self._native.trt, self._engine
        datatype = self._native.datatypes.get(engine.get_tensor_dtype(name))
        if datatype is None:
            raise ModelRejected(f"{name} is {engine.get_tensor_dtype(name)}, which the protocol can't carry")
        if engine.get_tensor_format(name) != trt.TensorFormat.LINEAR:
            raise ModelRejected(f"{name} is laid out as {engine.get_tensor_format(name)}; only LINEAR can be served")
        shape = tuple(int(size) for size in engine.get_tensor_shape(name))
        spec = TensorSpec(name, datatype, shape)
        if engine.get_tensor_mode(name) != trt.TensorIOMode.INPUT:
            self.outputs.append(spec)
            return
        self.inputs.append(spec)
        if -1 in shape:
            least, best, most = engine.get_tensor_profile_shape(name, 0)
            self.ranges[name] = Range(tuple(least), tuple(best), tuple(most))

    def _refuse_undetermined(self, lane: _Lane) -> None:
        """Raises ModelRejected: the shape of an output depends on more than those of the inputs."""
        shapes = {spec.name: self.ranges[spec.name].best for spec in self.inputs if spec.name in self.ranges}
        for name in lane.undetermined(shapes, self.outputs):
            raise ModelRejected(f"the shape of output {name} depends on values; only ONNX Runtime serves such a model")


class _Lane:
    """What one run at a time needs: a context, a stream, and room for every tensor on both sides."""

    def __init__(self, native: Native, engine: Any) -> None:
        """Raises CudaFault, ModelRejected."""
        self._native = native
        self._engine = engine
        self._rooms: Dict[str, _Room] = {}
        native.call("cudaSetDevice", native.device)
        # Kernels that a build times beside us wait in streams of the usual priority.
        _, urgent = native.call("cudaDeviceGetStreamPriorityRange")
        self._stream = native.call("cudaStreamCreateWithPriority", _NON_BLOCKING, urgent)
        self._context = engine.create_execution_context()
        if self._context is None:
            self.close()
            raise CudaFault(f"no context for the engine{native.log.because()}", OUT_OF_MEMORY)
        host = native.trt.TensorLocation.HOST
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        self._on_host = {name for name in names if engine.get_tensor_location(name) == host}
        """Shapes, which TensorRT reads by itself."""

    def run(self, inputs: Dict[str, Tensor], specs: Sequence[TensorSpec], wanted: Sequence[str]) -> List[Tensor]:
        """Raises RunFailed, CudaFault."""
        native, context = self._native, self._context
        native.call("cudaSetDevice", native.device)  # each thread has a current device of its own
        for name, tensor in inputs.items():
            self._feed(name, tensor)
        missing = context.infer_shapes()
        if missing:
            raise RunFailed(f"the engine can't tell its shapes without {', '.join(map(str, missing))}")
        places: Dict[str, Tuple[str, Tuple[int, ...], int]] = {}
        for spec in specs:
            shape = tuple(int(size) for size in context.get_tensor_shape(spec.name))
            size = nbytes(spec.datatype, shape)
            places[spec.name] = spec.datatype, shape, size
            room = self._room(spec.name, size)
            context.set_tensor_address(spec.name, room.host if spec.name in self._on_host else room.device)
        native.log.clear()
        begun = context.execute_async_v3(int(self._stream))
        if begun:
            for name in wanted:
                if name not in self._on_host and places[name][2]:
                    self._copy(self._rooms[name].host, self._rooms[name].device, places[name][2], _TO_HOST)
        native.call("cudaStreamSynchronize", self._stream)  # also where it was refused: the device may be why
        if not begun:
            raise RunFailed(f"TensorRT refused the run{native.log.because()}")
        return [self._result(name, *places[name]) for name in wanted]

    def undetermined(self, shapes: Mapping[str, Tuple[int, ...]], specs: Sequence[TensorSpec]) -> List[str]:
        """Outputs whose shapes these shapes of inputs do not tell; none where inputs hold shapes themselves."""
        if self._on_host:
            return []
        for name, shape in shapes.items():
            self._context.set_input_shape(name, shape)
        return [spec.name for spec in specs if -1 in tuple(self._context.get_tensor_shape(spec.name))]

    def close(self) -> None:
        for room in self._rooms.values():
            room.close()
        self._rooms.clear()
        self._context = self._engine = None
        if self._stream is not None:
            stream, self._stream = self._stream, None
            _quietly(self._native, "cudaStreamDestroy", stream)

    def _feed(self, name: str, tensor: Tensor) -> None:
        size = tensor.data.nbytes
        room = self._room(name, size)
        if size:
            room.fill(tensor.data)
        if not self._context.set_input_shape(name, tuple(tensor.shape)):
            raise RunFailed(
                f"the engine does not take input {name} as {list(tensor.shape)}{self._native.log.because()}"
            )
        if name in self._on_host:
            self._context.set_tensor_address(name, room.host)
            return
        if size:
            self._copy(room.device, room.host, size, _TO_DEVICE)
        self._context.set_tensor_address(name, room.device)

    def _copy(self, to: int, source: int, size: int, way: str) -> None:
        kind = getattr(self._native.cuda.cudaMemcpyKind, way)
        self._native.call("cudaMemcpyAsync", to, source, size, kind, self._stream)

    def _room(self, name: str, size: int) -> _Room:
        """Kept from run to run; grows."""
        room = self._rooms.get(name)
        if room is None or room.size < size:
            if room is not None:
                room.close()
            room = self._rooms[name] = _Room(self._native, max(size, _LEAST_ROOM))
        return room

    def _result(self, name: str, datatype: str, shape: Tuple[int, ...], size: int) -> Tensor:
        return Tensor(datatype, shape, memoryview(ctypes.string_at(self._rooms[name].host, size) if size else b""))


class _Room:
    """The same number of bytes on both sides; the host's are pinned, so that the device copies by itself."""

    def __init__(self, native: Native, size: int) -> None:
        self._native = native
        self.size = size
        self.host = int(native.call("cudaMallocHost", size))
        try:
            self.device = int(native.call("cudaMalloc", size))
        except CudaFault:
            _quietly(native, "cudaFreeHost", self.host)
            raise

    def fill(self, data: memoryview) -> None:
        """Copy a tensor to the host's side."""
        memoryview((ctypes.c_char * data.nbytes).from_address(self.host)).cast("B")[:] = data

    def close(self) -> None:
        _quietly(self._native, "cudaFreeHost", self.host)
        _quietly(self._native, "cudaFree", self.device)


class _Log:
    """The last errors of TensorRT, which it tells to its logger alone."""

    def __init__(self) -> None:
        self._errors: List[str] = []

    def clear(self) -> None:
        self._errors = []

    def add(self, text: str) -> None:
        self._errors = [*self._errors[-2:], " ".join(text.split())[:300]]

    def because(self) -> str:
        """``: why``, or nothing if it has said nothing."""
        return ": " + "; ".join(self._errors) if self._errors else ""


def _quietly(native: Native, name: str, *arguments: Any) -> None:
    """To give back what may be gone already, with the device."""
    try:
        native.call(name, *arguments)
    except CudaFault:
        return


def _refuse_external(content: bytes) -> None:
    """Raises ModelRejected: it names other files, which TensorRT's parser would look for by itself."""
    try:
        named = external_names(content)
    except ValueError as broken:
        raise ModelRejected(f"not an ONNX model: {broken}") from broken
    if named:
        raise ModelRejected("external data needs ONNX Runtime with its TensorRT provider: options.through: onnxruntime")


def _import_tensorrt() -> Any:
    try:
        return importlib.import_module("tensorrt")
    except (ImportError, OSError) as missing:  # OSError: a library that it loads by itself
        raise BackendUnavailable(f"tensorrt can't be imported: {missing}", MISSING_LIBRARY) from missing


def _import_cuda() -> Any:
    """CUDA's runtime of cuda-python, under its present name or the one it had until 12.6."""
    why: List[str] = []
    for name in ("cuda.bindings.runtime", "cuda.cudart"):
        try:
            return importlib.import_module(name)
        except (ImportError, OSError) as missing:
            why.append(str(missing))
    raise BackendUnavailable(f"cuda-python can't be imported: {why[0]}", MISSING_LIBRARY)


def _logger(trt: Any, log: _Log) -> Any:
    """A logger that keeps errors. Made here: its class exists once the library is imported."""
    worst = (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR)

    class Logger(trt.ILogger):  # type: ignore[misc]  # of a library without types
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in worst:
                log.add(message)

    return Logger()


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
