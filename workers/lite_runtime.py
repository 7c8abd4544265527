"""LiteRT as backends use it: interpreters of .tflite files, one for each run at a time."""

from __future__ import annotations

import base64
import ctypes
import importlib
import importlib.metadata
import threading
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from edgeway.tensors import BY_NAME, decode_bytes, encode_bytes, to_array
from workers.backend import (
    MISSING_LIBRARY,
    BackendError,
    BackendUnavailable,
    Bound,
    Cancellation,
    DeviceFault,
    InvalidInput,
    ModelRejected,
    ModelTooLarge,
    Quantisation,
    RunFailed,
    Tensor,
    TensorSpec,
)
from workers.tflite_file import for_edge_tpu, names_files

PACKAGES = (("ai_edge_litert", "ai-edge-litert"), ("tflite_runtime", "tflite-runtime"))
"""Modules that have the interpreter, newest first, and what installs them."""
INSTALL = "pip install ai-edge-litert"

_TYPES = {
    np.dtype(np.bool_): "BOOL",
    np.dtype(np.uint8): "UINT8",
    np.dtype(np.uint16): "UINT16",
    np.dtype(np.uint32): "UINT32",
    np.dtype(np.uint64): "UINT64",
    np.dtype(np.int8): "INT8",
    np.dtype(np.int16): "INT16",
    np.dtype(np.int32): "INT32",
    np.dtype(np.int64): "INT64",
    np.dtype(np.float16): "FP16",
    np.dtype(np.float32): "FP32",
    np.dtype(np.float64): "FP64",
    np.dtype(np.bytes_): "BYTES",
}
DATATYPES = tuple(_TYPES.values())
_REMEMBERING = frozenset(
    (
        "ASSIGN_VARIABLE",
        "BIDIRECTIONAL_SEQUENCE_LSTM",
        "BIDIRECTIONAL_SEQUENCE_RNN",
        "LSTM",
        "RNN",
        "SVDF",
        "UNIDIRECTIONAL_SEQUENCE_LSTM",
        "UNIDIRECTIONAL_SEQUENCE_RNN",
    )
)
"""Operations that leave something behind for the next run."""
_ERRORS = (ValueError, RuntimeError, MemoryError)
"""What LiteRT raises; it has no classes of its own."""
_UNIMPORTABLE = (ImportError, OSError, AttributeError, RuntimeError, SystemError, TypeError, ValueError)
"""What an import raises where the package is missing, or does not fit to its numpy or protobuf."""
_SMALLEST = (
    "GAAAAFRGTDMAAA4AFAAQAAwACAAAAAQADgAAABAAAAAcAAAAUAAAAAMAAAABAAAACAAAAAQABAAEAAAAAQAAABAAAAAMABQAEAAMAAgABAAMAAAA"
    "EAAAABAAAAAQAAAAEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
)
"""A file without tensors and operations."""
_DELEGATED = "DELEGATE"
_TOO_LARGE = ("bad_alloc", "allocate memory", "failed to create XNNPACK runtime")
"""What LiteRT says where memory was refused. XNNPACK says no more: what it can't compute it has refused before."""

Fault = Callable[[Exception], BackendError]
"""What the backend makes of an error of a run."""


class LiteRuntime:
    """The library as it is installed for this interpreter."""

    def __init__(self) -> None:
        """Raises BackendUnavailable: neither package can be imported."""
        reasons = []
        for module, package in PACKAGES:
            try:
                self._library: Any = importlib.import_module(f"{module}.interpreter")
                _try_out(self._library)
            except _UNIMPORTABLE as missing:
                reasons.append(f"{package} can't be used: {text_of(missing.__cause__ or missing)}")
                continue
            self.version = f"{package} {_version(package)}"
            return
        raise BackendUnavailable("; ".join(reasons), MISSING_LIBRARY)

    def delegate(self, library: str, options: Mapping[str, str]) -> Any:
        """A delegate from a shared library.

        Raises:
            OSError: the library can't be loaded.
            ValueError: it found no device, or may not use it.
        """
        ctypes.CDLL(library)  # where this fails, LiteRT would leave a delegate that can't be deleted
        return self._library.load_delegate(library, dict(options))

    def interpreter(self, content: bytes, threads: int, delegates: Sequence[Any] = ()) -> Any:
        """Raises what LiteRT raises."""
        return self._library.Interpreter(
            model_content=content, num_threads=threads, experimental_delegates=list(delegates)
        )


def check_file(content: bytes, name: str, edge_tpu: bool = False) -> None:
    """Refuse what an interpreter should not see. ``edge_tpu``: whether there is one.

    Raises:
        ModelRejected
    """
    if not content:
        raise ModelRejected(f"{name}: the file is empty")
    if names_files(content):
        raise ModelRejected(f"{name} has weights in other files, which is not supported: convert it into one file")
    if for_edge_tpu(content) and not edge_tpu:
        raise ModelRejected(f"{name} is compiled for the Edge TPU: it needs an edgetpu worker, or the file before")


class LiteModel:
    """One .tflite file. Interpreters are not thread-safe: each run takes one that is free, or makes one."""

    platform = "tensorflowlite"

    def __init__(
        self, make: Callable[[], Any], instances: int, provenance: Callable[[Sequence[str]], str], fault: Fault
    ) -> None:
        """``make``: an interpreter of the file; ``provenance``: of the names of its operations, what to say of them;
        ``fault``: what an error of a run means.

        Raises:
            ModelRejected, ModelTooLarge.
        """
        self.kind = ""
        self._make = make
        self._fault = fault
        self._kept = instances
        self._lock = threading.Lock()
        self._free: List[_Interpreter] = []
        first = self._interpreter()
        operations = _operations(first.lite)
        self.provenance = provenance(operations)
        self._remembers = not _REMEMBERING.isdisjoint(operations)
        self._alone = threading.Lock() if self._remembers else None
        """Runs of a model that remembers go through one interpreter, one after the other."""
        self.inputs = first.inputs
        self.outputs = first.outputs
        self._fixed = all(spec.shape and min(spec.shape) >= 0 for spec in self.outputs)
        self._free.append(first)

    def run(self, inputs: Dict[str, Tensor], outputs: Sequence[str], cancellation: Cancellation) -> List[Tensor]:
        """A run can't be ended: LiteRT has no way."""
        del cancellation
        arrays = {name: array_of(tensor) for name, tensor in inputs.items()}
        with self._taken(arrays) as interpreter:
            interpreter.run(arrays)
            return [interpreter.output(name) for name in outputs]

    def bind(self, inputs: Dict[str, Tensor], outputs: Dict[str, Tensor]) -> Optional[Bound]:
        tensors = [*inputs.values(), *outputs.values()]
        if any(tensor.datatype == "BYTES" or not tensor.data.nbytes for tensor in tensors):
            return None
        if self._remembers and not self._fixed:
            return None  # what a run left can't be taken back where its outputs did not fit
        ours = {name: array_of(tensor) for name, tensor in inputs.items()}
        return LiteBound(self, ours, {name: array_of(tensor) for name, tensor in outputs.items()})

    def start_over(self) -> None:
        """Variables are an interpreter's own, and only those of some kinds can be reset: it is made anew."""
        if self._remembers:
            self._free = [self._interpreter()]

    def close(self) -> None:
        self._free.clear()

    @contextmanager
    def _taken(self, arrays: Mapping[str, np.ndarray]) -> Iterator[_Interpreter]:
        """An interpreter for inputs of these shapes. Raises BackendError."""
        if self._alone is not None:
            self._alone.acquire()
        try:
            try:
                interpreter = self._ready(arrays)
            except BackendUnavailable as gone:  # what was there when the model was loaded
                raise DeviceFault(str(gone)) from gone
            except _ERRORS as failed:
                raise self._fault(failed) from failed
            try:
                yield interpreter
            except _ERRORS as failed:
                raise self._fault(failed) from failed
            finally:
                with self._lock:
                    if len(self._free) < self._kept:
                        self._free.append(interpreter)
        finally:
            if self._alone is not None:
                self._alone.release()

    def _ready(self, arrays: Mapping[str, np.ndarray]) -> _Interpreter:
        with self._lock:
            interpreter = self._free.pop() if self._free else None
        if interpreter is not None:
            try:
                interpreter.shape(arrays)
            except RuntimeError:
                # Some operations can't be prepared for a second shape (SLICE of text): but perhaps for a first one.
                interpreter = None
            else:
                return interpreter
        interpreter = self._interpreter()
        interpreter.shape(arrays)
        return interpreter

    def _interpreter(self) -> _Interpreter:
        """Raises ModelRejected, ModelTooLarge."""
        try:
            return _Interpreter(self._make())
        except _ERRORS as refused:
            raise rejection(refused) from refused


class LiteBound:
    """A model with its arrays. Each tensor is copied once, which is the least that LiteRT's Python allows."""

    def __init__(self, model: LiteModel, inputs: Dict[str, np.ndarray], outputs: Dict[str, np.ndarray]) -> None:
        self._model = model
        self._inputs = inputs
        self._outputs = outputs

    def run(self, cancellation: Cancellation) -> bool:
        del cancellation
        with self._model._taken(self._inputs) as interpreter:  # noqa: SLF001 - a part of it
            interpreter.run(self._inputs)
            return all(interpreter.copy(name, array) for name, array in self._outputs.items())


class _Interpreter:
    """One interpreter, and the shapes that it is prepared for."""

    def __init__(self, lite: Any) -> None:
        """Raises what LiteRT raises, and ModelRejected."""
        self.lite = lite
        lite.allocate_tensors()
        taken, given = lite.get_input_details(), lite.get_output_details()
        named = _names(lite, taken, given)
        self.inputs = [_spec(named[0][at], detail, "input") for at, detail in enumerate(taken)]
        self.outputs = [_spec(named[1][at], detail, "output") for at, detail in enumerate(given)]
        self._open = any(-1 in spec.shape for spec in self.inputs)
        self._places = {spec.name: int(detail["index"]) for spec, detail in zip(self.inputs, taken)}
        self._results = {spec.name: (int(detail["index"]), spec.datatype) for spec, detail in zip(self.outputs, given)}
        self._shapes = {spec.name: tuple(detail["shape"].tolist()) for spec, detail in zip(self.inputs, taken)}

    def shape(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Prepare it for inputs of these shapes. Raises what LiteRT raises; it is of no use then."""
        if not self._open:
            return
        changed = False
        for name, array in arrays.items():
            if self._shapes[name] != array.shape:
                self.lite.resize_tensor_input(self._places[name], array.shape, strict=True)
                self._shapes[name] = array.shape
                changed = True
        if changed:
            self.lite.allocate_tensors()

    def run(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Raises what LiteRT raises."""
        for name, array in arrays.items():
            self.lite.set_tensor(self._places[name], array)
        self.lite.invoke()

    def output(self, name: str) -> Tensor:
        """A result, in memory of its own."""
        place, datatype = self._results[name]
        try:
            array = self.lite.get_tensor(place)
        except ValueError:  # before 2.2: of a tensor without elements
            details = {int(detail["index"]): detail for detail in self.lite.get_output_details()}
            shape = tuple(int(size) for size in details[place]["shape"])
            if 0 not in shape:
                raise
            return Tensor(datatype, shape, memoryview(b""))
        if datatype == "BYTES":
            return Tensor(datatype, array.shape, memoryview(encode_bytes(array.reshape(-1).tolist())))
        if array.size and array.flags.c_contiguous:
            return Tensor(datatype, array.shape, array.reshape(-1).view(np.uint8).data)
        return Tensor(datatype, array.shape, memoryview(array.tobytes()))

    def copy(self, name: str, to: np.ndarray) -> bool:
        """Copy a result; False: it has another shape."""
        # Nobody may hold such a view when the interpreter is used again: it would refuse.
        result = self.lite.tensor(self._results[name][0])()
        if result.shape != to.shape:
            return False
        np.copyto(to, result)
        return True


def array_of(tensor: Tensor) -> np.ndarray:
    """The tensor as LiteRT takes it.

    Raises:
        InvalidInput: BYTES elements that do not add up.
    """
    if BY_NAME[tensor.datatype].numpy is not None:
        return to_array(tensor.datatype, tensor.shape, tensor.data)
    try:
        elements = decode_bytes(tensor.data, int(np.prod(tensor.shape, dtype=np.int64)))
    except ValueError as broken:
        raise InvalidInput(f"BYTES tensor of shape {list(tensor.shape)}: {broken}") from broken
    if not tensor.shape:
        # Of a single object LiteRT would take the address for the text.
        return np.array(elements[0], dtype=f"S{max(1, len(elements[0]))}")
    texts = np.empty(len(elements), dtype=object)
    texts[:] = elements
    return texts.reshape(tensor.shape)


def on_the_cpu(operations: Sequence[str]) -> str:
    """What to say of a model that nobody but the CPU runs."""
    parts = operations.count(_DELEGATED)
    nodes = len(operations) - parts
    with_xnnpack = f" (XNNPACK: {parts} part{'s' if parts != 1 else ''})" if parts else ""
    return f"{nodes} of {nodes} nodes on the CPU{with_xnnpack}"


def run_failed(failed: Exception) -> BackendError:
    """An error of a run on the CPU is the model's."""
    return RunFailed(text_of(failed))


def rejection(refused: Exception) -> BackendError:
    """Why a file was not loaded."""
    text = text_of(refused)
    if isinstance(refused, MemoryError) or any(word in text for word in _TOO_LARGE):
        return ModelTooLarge(text)
    return ModelRejected(text)


def text_of(error: BaseException) -> str:
    """LiteRT's message on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _try_out(library: Any) -> None:
    """A build for numpy 1 can be imported beside numpy 2, but makes no interpreter. Raises one of _UNIMPORTABLE."""
    library.Interpreter(model_content=base64.b64decode(_SMALLEST))


def _operations(lite: Any) -> List[str]:
    """Of the main graph: those of the file, and one ``DELEGATE`` for each part that a delegate took over."""
    try:
        return [str(detail["op_name"]) for detail in lite._get_ops_details()]  # noqa: SLF001 - there is no other way
    except (AttributeError, KeyError):
        return []


def _names(lite: Any, taken: Sequence[Any], given: Sequence[Any]) -> Tuple[List[str], List[str]]:
    """Of inputs and outputs: by the signature where there is one, else the tensors' own, else their numbers."""
    signatures = list(lite._get_full_signature_list().values()) if lite.get_signature_list() else []  # noqa: SLF001
    found: List[List[str]] = []
    for side, details in (("inputs", taken), ("outputs", given)):
        known = {index: name for name, index in signatures[0][side].items()} if len(signatures) == 1 else {}
        names = [known.get(detail["index"], detail["name"]) for detail in details]
        if len(set(names)) < len(names) or "" in names:
            names = [f"{side[:-1]}_{at}" for at in range(len(details))]
        found.append(names)
    return found[0], found[1]


def _spec(name: str, detail: Mapping[str, Any], side: str) -> TensorSpec:
    """Raises ModelRejected: the protocol can't carry such a tensor."""
    datatype = _TYPES.get(np.dtype(detail["dtype"]))
    if datatype is None:
        raise ModelRejected(f"{side} {name} is {np.dtype(detail['dtype'])}, which the protocol can't carry")
    shape = tuple(int(size) for size in detail["shape_signature"])
    parameters = detail["quantization_parameters"]
    scale = tuple(float(value) for value in parameters["scales"])
    if not scale:
        return TensorSpec(name, datatype, shape)
    zero_point = tuple(int(value) for value in parameters["zero_points"])
    return TensorSpec(name, datatype, shape, Quantisation(scale, zero_point, int(parameters["quantized_dimension"])))


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "(version unknown)"
