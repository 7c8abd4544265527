"""A fake of ``tensorrt`` and of CUDA's runtime, for the logic around them: memory is the host's, engines are JSON.

Calls are named and take what the real ones take. Addresses are real, and every copy is checked against what was
allocated, so that a wrong size or a freed buffer shows.
"""

# ruff: noqa: N802, N815 - names are those of the real ones

from __future__ import annotations

import ctypes
import enum
import json
import threading
from types import SimpleNamespace

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, numpy_helper

MAGIC = b"ftrt"


class CudaError(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorIllegalAddress = 700


class FakeCuda:
    """``cuda.bindings.runtime``. ``fails``: what a call of that name answers from now on."""

    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice="to device", cudaMemcpyDeviceToHost="to host")

    def __init__(self) -> None:
        self.host: dict[int, ctypes.Array] = {}
        self.device: dict[int, ctypes.Array] = {}
        self.streams: set[int] = set()
        self.fails: dict[str, CudaError] = {}
        self.copies: list[tuple[str, int]] = []
        self._lock = threading.Lock()

    def __getattribute__(self, name: str):
        found = object.__getattribute__(self, name)
        if not name.startswith("cuda") or not callable(found):
            return found
        failed = self.fails.get(name)
        return found if failed is None else lambda *arguments: (failed, None)

    def cudaSetDevice(self, device):
        return (CudaError.cudaSuccess,)

    def cudaRuntimeGetVersion(self):
        return CudaError.cudaSuccess, 12060

    def cudaMallocHost(self, size):
        return CudaError.cudaSuccess, self._take(self.host, size)

    def cudaMalloc(self, size):
        return CudaError.cudaSuccess, self._take(self.device, size)

    def cudaFreeHost(self, address):
        del self.host[address]
        return (CudaError.cudaSuccess,)

    def cudaFree(self, address):
        del self.device[address]
        return (CudaError.cudaSuccess,)

    def cudaDeviceGetStreamPriorityRange(self):
        return CudaError.cudaSuccess, 0, -5

    def cudaStreamCreateWithPriority(self, flags, priority):
        assert (flags, priority) == (1, -5)  # no waiting for the default stream, nor for a build's
        with self._lock:
            self.streams.add(len(self.streams) + 7000)
            return CudaError.cudaSuccess, max(self.streams)

    def cudaStreamDestroy(self, stream):
        self.streams.remove(stream)
        return (CudaError.cudaSuccess,)

    def cudaStreamSynchronize(self, stream):
        assert stream in self.streams
        return (CudaError.cudaSuccess,)

    def cudaMemcpyAsync(self, to, source, size, kind, stream):
        assert stream in self.streams
        ends = (self.device, self.host) if kind == "to device" else (self.host, self.device)
        assert size <= len(ends[0][to])
        assert size <= len(ends[1][source])
        ctypes.memmove(to, source, size)
        self.copies.append((kind, size))
        return (CudaError.cudaSuccess,)

    def _take(self, where, size):
        memory = (ctypes.c_char * size)()
        with self._lock:
            where[ctypes.addressof(memory)] = memory
        return ctypes.addressof(memory)


class DataType(enum.Enum):
    FLOAT = "float32"
    HALF = "float16"
    BF16 = "uint16"
    INT8 = "int8"
    UINT8 = "uint8"
    INT32 = "int32"
    INT64 = "int64"
    BOOL = "bool"
    FP8 = "none"


class Severity(enum.Enum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2


class ILogger:
    Severity = Severity


class IProgressMonitor:
    pass


class IInt8EntropyCalibrator2:
    pass


class FakeTensorrt:
    """The module ``tensorrt``, of some version, on a fake of CUDA."""

    ILogger = ILogger
    DataType = DataType
    TensorFormat = enum.Enum("TensorFormat", "LINEAR CHW4")
    TensorIOMode = enum.Enum("TensorIOMode", "INPUT OUTPUT")
    TensorLocation = enum.Enum("TensorLocation", "DEVICE HOST")
    DeviceType = enum.Enum("DeviceType", "GPU DLA")
    MemoryPoolType = enum.Enum("MemoryPoolType", "WORKSPACE")
    NetworkDefinitionCreationFlag = enum.IntEnum("NetworkDefinitionCreationFlag", {"EXPLICIT_BATCH": 0})
    BuilderFlag = enum.Enum("BuilderFlag", "FP16 BF16 INT8 GPU_FALLBACK")
    IProgressMonitor = IProgressMonitor
    IInt8EntropyCalibrator2 = IInt8EntropyCalibrator2

    def __init__(self, cuda: FakeCuda, version: str = "10.3.0") -> None:
        self.__version__ = version
        self.cuda = cuda
        self.builds: list[SimpleNamespace] = []
        """The configuration of each build."""
        self.entered: threading.Barrier | None = None
        """Where runs meet, in tests of several at a time."""

    def Runtime(self, logger):
        return SimpleNamespace(deserialize_cuda_engine=lambda content: self._deserialize(content, logger))

    def _deserialize(self, content, logger):
        if not content.startswith(MAGIC):
            logger.log(Severity.ERROR, "IRuntime::deserializeCudaEngine: magicTagRead == kMAGIC_TAG failed")
            return None
        told = json.loads(content[len(MAGIC) :])
        if told["version"] != self.__version__:
            logger.log(Severity.ERROR, f"The engine plan file is not compatible: built by {told['version']}")
            return None
        return FakeEngine(self, told)

    def Builder(self, logger):
        return FakeBuilder(self)

    def OnnxParser(self, network, logger):
        return FakeParser(network)


def tensor(name, kind="FLOAT", shape=(2,), mode="INPUT", **more):
    return {"name": name, "kind": kind, "shape": list(shape), "mode": mode, "format": "LINEAR", **more}


def plan(*tensors, version="10.3.0", factor=2):
    """An engine whose outputs are its first input, times so much."""
    return MAGIC + json.dumps({"version": version, "tensors": tensors, "factor": factor}).encode()


class FakeEngine:
    num_layers = 3

    def __init__(self, trt: FakeTensorrt, told: dict) -> None:
        self.trt, self.told = trt, told
        self.tensors = {each["name"]: each for each in told["tensors"]}
        self.num_io_tensors = len(self.tensors)

    def get_tensor_name(self, index):
        return list(self.tensors)[index]

    def get_tensor_dtype(self, name):
        return DataType[self.tensors[name]["kind"]]

    def get_tensor_format(self, name):
        return self.trt.TensorFormat[self.tensors[name]["format"]]

    def get_tensor_mode(self, name):
        return self.trt.TensorIOMode[self.tensors[name]["mode"]]

    def get_tensor_location(self, name):
        return self.trt.TensorLocation[self.tensors[name].get("location", "DEVICE")]

    def get_tensor_shape(self, name):
        return tuple(self.tensors[name]["shape"])

    def get_tensor_profile_shape(self, name, profile):
        assert profile == 0
        return [tuple(shape) for shape in self.tensors[name]["profile"]]

    def create_execution_context(self):
        return None if self.told.get("huge") else FakeContext(self)


class FakeContext:
    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}

    def set_input_shape(self, name, shape):
        told = self.engine.get_tensor_shape(name)
        if len(told) != len(shape) or any(size not in (-1, given) for size, given in zip(told, shape, strict=True)):
            return False
        self.shapes[name] = tuple(shape)
        return True

    def infer_shapes(self):
        inputs = [each["name"] for each in self.engine.tensors.values() if each["mode"] == "INPUT"]
        return [name for name in inputs if name not in self.shapes]

    def get_tensor_shape(self, name):
        first = next(iter(self.shapes.values()), ())
        told = self.engine.tensors[name]
        if told.get("undetermined") or not self.shapes:
            return tuple(told["shape"])
        return tuple(first)

    def set_tensor_address(self, name, address):
        assert address
        self.addresses[name] = address

    def execute_async_v3(self, stream):
        trt, cuda = self.engine.trt, self.engine.trt.cuda
        assert stream in cuda.streams
        if trt.entered is not None:
            trt.entered.wait(5)
        first = next(each for each in self.engine.tensors.values() if each["mode"] == "INPUT")
        source = _array(cuda, self.addresses[first["name"]], first["kind"], self.shapes[first["name"]])
        for each in self.engine.tensors.values():
            if each["mode"] == "OUTPUT":
                into = _array(cuda, self.addresses[each["name"]], each["kind"], self.get_tensor_shape(each["name"]))
                into[...] = source if each["kind"] in ("BOOL", "BF16") else source * self.engine.told["factor"]
        return not self.engine.told.get("refuses")


def _array(cuda, address, kind, shape):
    datatype = np.dtype(DataType[kind].value)
    count = int(np.prod(shape, dtype=np.int64))
    assert count * datatype.itemsize <= len(cuda.device[address])
    return np.frombuffer(cuda.device[address], datatype, count).reshape(shape)


class FakeBuilder:
    def __init__(self, trt: FakeTensorrt) -> None:
        self.trt = trt

    def create_network(self, flags):
        return SimpleNamespace(inputs=[], told=None, get_input=None)

    def create_optimization_profile(self):
        ranges = {}
        return SimpleNamespace(ranges=ranges, set_shape=lambda name, *shapes: ranges.update({name: shapes}))

    def create_builder_config(self):
        config = SimpleNamespace(flags=set(), pools={}, profiles={}, timings=None)
        config.set_flag = config.flags.add
        config.set_memory_pool_limit = lambda pool, size: config.pools.update({pool: size})
        config.add_optimization_profile = lambda profile: config.profiles.update(profile.ranges)
        config.create_timing_cache = lambda known: SimpleNamespace(serialize=lambda: known + b"+", known=known)
        config.set_timing_cache = lambda cache, ignore_mismatch: setattr(config, "timings", cache)
        config.get_timing_cache = lambda: config.timings
        return config

    def build_serialized_network(self, network, config):
        self.trt.builds.append(config)
        monitor = getattr(config, "progress_monitor", None)
        if monitor is not None:
            monitor.phase_start("Tactics", None, 4)
            assert monitor.step_complete("Tactics", 2)
            if getattr(self.trt, "during_build", None):
                self.trt.during_build()
            monitor.phase_finish("Tactics")
        tensors = []
        for each in network.inputs:
            profile = config.profiles.get(each.name)
            more = {"profile": profile} if profile else {}
            tensors.append(tensor(each.name, each.dtype.name, each.shape, **more))
        outputs = [tensor(name, kind, shape, "OUTPUT") for name, kind, shape in network.outputs]
        return memoryview(plan(*tensors, *outputs, version=self.trt.__version__, factor=network.factor))


class FakeParser:
    """Takes one multiplication by a constant."""

    def __init__(self, network) -> None:
        self.network = network
        self.num_errors = 0

    def parse(self, content):
        try:
            graph = onnx.load_from_string(content).graph
        except DecodeError:
            return False
        if [node.op_type for node in graph.node] != ["Mul"]:
            self.num_errors = 1
            return False
        self.network.factor = float(numpy_helper.to_array(graph.initializer[0]).reshape(-1)[0])
        self.network.inputs = [SimpleNamespace(name=n, dtype=DataType[k], shape=s) for n, k, s in _sides(graph.input)]
        self.network.outputs = _sides(graph.output)
        self.network.num_inputs = len(self.network.inputs)
        self.network.get_input = lambda index: self.network.inputs[index]
        self.network.num_outputs = len(self.network.outputs)
        self.network.get_output = lambda index: SimpleNamespace(
            name=self.network.outputs[index][0], dtype=DataType[self.network.outputs[index][1]]
        )
        return True

    def get_error(self, index):
        return SimpleNamespace(desc=lambda: "No importer registered for op")


def _sides(values):
    kinds = {TensorProto.FLOAT: "FLOAT", TensorProto.FLOAT16: "HALF", TensorProto.INT64: "INT32"}  # as before 10
    return [
        (
            value.name,
            kinds[value.type.tensor_type.elem_type],
            tuple(-1 if size.dim_param else size.dim_value for size in value.type.tensor_type.shape.dim),
        )
        for value in values
    ]
