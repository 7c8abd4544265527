"""ONNX Runtime as backends use it: sessions on a given provider, their proof, and models that run where tensors lie."""

from __future__ import annotations

import ctypes
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple, Type

import numpy as np

from edgeway.datatypes import BY_NAME
from edgeway.tensors import decode_bytes, encode_bytes, to_array
from workers.backend import (
    MISSING_LIBRARY,
    NO_FILES,
    BackendError,
    BackendUnavailable,
    Bound,
    Cancellation,
    DeviceFault,
    InvalidInput,
    ModelRejected,
    ModelTooLarge,
    NotOnDevice,
    RunCancelled,
    RunFailed,
    Tensor,
    TensorSpec,
)
from workers.external import external_names

CPU = "CPUExecutionProvider"

_TYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
    "tensor(bfloat16)": "BF16",
}
DATATYPES = tuple(_TYPES.values())
"""All of the protocol: what the CPU provider takes."""
_ONNX_BFLOAT16 = 16
"""``onnx.TensorProto.BFLOAT16``: numpy has no such type, so ONNX Runtime must be told."""

_NOT_BOUND = ("BYTES", "BF16")
"""Datatypes that numpy does not hold as they travel."""

# onnxruntime's exceptions have no common base; each is named, and some only newer versions have.
_ERRORS = (
    "DeviceReset",
    "EPFail",
    "EngineError",
    "Fail",
    "InvalidArgument",
    "InvalidGraph",
    "InvalidProtobuf",
    "ModelLoadCanceled",
    "ModelLoaded",
    "ModelRequiresCompilation",
    "NoModel",
    "NoSuchFile",
    "NotFound",
    "NotImplemented",
    "RuntimeException",
)
_DEVICE_ERRORS = ("DeviceReset", "EPFail", "EngineError")
"""Those that say that the provider failed, with its device, and not the model."""


class OnnxRuntime:
    """The library as it is installed for this interpreter: flavours share one import name, so there is one of them."""

    def __init__(self) -> None:
        """Raises BackendUnavailable: it can't be imported."""
        try:
            import onnxruntime as ort  # here, so that listing backends never needs a runtime
            from onnxruntime.capi import onnxruntime_pybind11_state as state
        except ImportError as missing:
            raise BackendUnavailable(f"onnxruntime can't be imported: {missing}", MISSING_LIBRARY) from missing
        self.ort = ort
        self.state = state
        known = [getattr(state, name) for name in _ERRORS if hasattr(state, name)]
        self.errors: Tuple[Type[Exception], ...] = (*known, ValueError, RuntimeError)
        self._device_errors = tuple(getattr(state, name) for name in _DEVICE_ERRORS if hasattr(state, name))
        self.version = f"onnxruntime {ort.__version__}"
        self.knows_bf16 = hasattr(ort.OrtValue, "ortvalue_from_numpy_with_onnx_type")
        """Whether tensors of a type that numpy lacks can be given to it."""

    def options(self, threads: int) -> Any:
        """Options of a session for one frame at a time."""
        options = self.ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        # Spinning threads take the core that the gateway and the other instance need.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # The arena keeps the peak of the largest batch for ever (549 MB against 85 MB), and is no faster at batch 1.
        options.enable_cpu_mem_arena = False
        return options

    def model(
        self,
        content: bytes,
        external: Mapping[str, bytes] = NO_FILES,
        options: Any = None,
        providers: Optional[Sequence[Any]] = None,
        proof: Callable[[Any], str] = lambda session: "",
    ) -> OnnxModel:
        """A model from the bytes of a file.

        Args:
            content: of the file.
            external: its files of external data, by name.
            options: of the session, from ``options()``.
            providers: as ONNX Runtime takes them; None: the options name devices of a plug-in.
            proof: looks at the session and says where it runs; raises NotOnDevice where that is not what was asked for.

        Raises:
            ModelRejected, ModelTooLarge, NotOnDevice.
        """
        _refuse_unlisted(content, external)
        if external:
            _hand_over(options, external)
        more = {} if providers is None else {"providers": list(providers)}
        try:
            session = self.ort.InferenceSession(content, options, enable_fallback=0, **more)
        except self.errors as refused:
            raise _rejection(refused) from refused
        provenance = proof(session)
        inputs = [_spec(argument, "input") for argument in session.get_inputs()]
        outputs = [_spec(argument, "output") for argument in session.get_outputs()]
        if not self.knows_bf16 and any(spec.datatype == "BF16" for spec in (*inputs, *outputs)):
            raise ModelRejected(f"{self.version} is too old for BF16 tensors: pip install -U onnxruntime")
        return OnnxModel(self, session, inputs, outputs, _determined(session), provenance)

    def options_for_run(self) -> Any:
        return self.ort.RunOptions()

    def bind(self, session: Any, inputs: Dict[str, np.ndarray], outputs: Dict[str, np.ndarray]) -> Any:
        """ONNX Runtime's binding of arrays, which must outlive it.

        Below ``InferenceSession.io_binding``, which since 1.32 costs 30 us a run in checks for another device.
        """
        binding = self.state.SessionIOBinding(session)
        for name, array in inputs.items():
            binding.bind_ortvalue_input(name, self.ort.OrtValue.ortvalue_from_numpy(array)._ortvalue)  # noqa: SLF001
        for name, array in outputs.items():
            binding.bind_ortvalue_output(name, self.ort.OrtValue.ortvalue_from_numpy(array)._ortvalue)  # noqa: SLF001
        return binding

    def failure(self, error: Exception) -> BackendError:
        """What an error of the runtime in a run means."""
        return DeviceFault(_text(error)) if isinstance(error, self._device_errors) else RunFailed(_text(error))

    def value_of(self, tensor: Tensor) -> Any:
        """An OrtValue on the tensor's memory, for models with types that numpy lacks."""
        if tensor.datatype == "BF16":
            bits = to_array("BF16", tensor.shape, tensor.data)
            return self.ort.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, _ONNX_BFLOAT16)
        return self.ort.OrtValue.ortvalue_from_numpy(array_of(tensor))


def on_the_cpu(session: Any) -> str:
    """Proof that a session runs on the CPU provider alone. Raises NotOnDevice."""
    if session.get_providers() != [CPU]:
        raise NotOnDevice(f"loaded on {session.get_providers()} instead of the CPU")
    return f"all nodes on {CPU}"


class OnnxModel:
    """One ONNX Runtime session. Several threads may run it at once."""

    platform = "onnxruntime_onnx"

    def __init__(
        self,
        runtime: OnnxRuntime,
        session: Any,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        determined: bool,
        provenance: str,
    ) -> None:
        """``determined``: whether the model's own words let the outputs' shapes follow from those of the inputs."""
        self.inputs = inputs
        self.outputs = outputs
        self.provenance = provenance
        self._runtime = runtime
        self._session = session
        self.fixed = all(spec.shape and min(spec.shape) >= 0 for spec in outputs)
        """Whether the model says that no output's shape depends on anything; an empty shape may stand for any."""
        self._determined = determined
        self._datatypes = {spec.name: spec.datatype for spec in outputs}
        self._needs_values = any(spec.datatype == "BF16" for spec in (*inputs, *outputs))

    def run(self, inputs: Dict[str, Tensor], outputs: Sequence[str], cancellation: Cancellation) -> List[Tensor]:
        options = self._runtime.options_for_run()

        def stop() -> None:
            options.terminate = True

        cancellation.on_cancel(stop)
        try:
            if self._needs_values:
                values = {name: self._runtime.value_of(tensor) for name, tensor in inputs.items()}
                results = self._session.run_with_ort_values(list(outputs), values, options)
                return [self._tensor(name, value) for name, value in zip(outputs, results)]
            feed = {name: array_of(tensor) for name, tensor in inputs.items()}
            arrays = self._session.run(list(outputs), feed, options)
        except self._runtime.errors as failed:
            if cancellation.cancelled:
                raise RunCancelled("ended because nobody waits for it") from failed
            raise self._runtime.failure(failed) from failed
        return [tensor_of(self._datatypes[name], array) for name, array in zip(outputs, arrays)]

    def bind(self, inputs: Dict[str, Tensor], outputs: Dict[str, Tensor]) -> Optional[Bound]:
        session = self._session
        raw = getattr(session, "_sess", None)  # the runtime itself; Python around it costs more than a small run
        if raw is None or not self._determined:
            return None
        tensors = [*inputs.values(), *outputs.values()]
        if any(tensor.datatype in _NOT_BOUND or not tensor.data.nbytes for tensor in tensors):
            return None
        try:
            ours = {name: array_of(tensor) for name, tensor in inputs.items()}
            theirs = {name: array_of(tensor) for name, tensor in outputs.items()}
            binding = self._runtime.bind(raw, ours, theirs)
        except self._runtime.errors:
            return None
        return OnnxBound(self._runtime, raw, binding, (ours, theirs), self.fixed)

    def close(self) -> None:
        self._session = None

    def _tensor(self, name: str, value: Any) -> Tensor:
        if self._datatypes[name] == "BYTES" or value.element_type() != _ONNX_BFLOAT16:
            return tensor_of(self._datatypes[name], value.numpy())
        shape = tuple(value.shape())
        size = int(np.prod(shape, dtype=np.int64)) * 2
        copied = ctypes.string_at(value.data_ptr(), size) if size else b""
        return Tensor("BF16", shape, memoryview(copied))


class OnnxBound:
    """A session bound to the memory of one slot. No tensor is copied, and nothing is made but the call itself: 2 us
    instead of 4 of 64 bytes, 25 instead of 53 of 1 MB.
    """

    def __init__(self, runtime: OnnxRuntime, session: Any, binding: Any, arrays: Any, fixed: bool) -> None:
        """``session`` and ``binding`` as ONNX Runtime's own; ``arrays``: what the binding is of, kept alive;
        ``fixed``: whether the outputs always fit.
        """
        self._runtime = runtime
        self._fixed = fixed
        self._session = session
        self._binding = binding
        self._arrays = arrays
        self._options = runtime.options_for_run()
        self._stopped = False

    def run(self, cancellation: Cancellation) -> bool:
        if self._stopped:  # it would end every later run
            self._options, self._stopped = self._runtime.options_for_run(), False
        cancellation.on_cancel(self._stop)
        try:
            self._session.run_with_iobinding(self._binding, self._options)
        except self._runtime.errors as failed:
            if cancellation.cancelled:
                raise RunCancelled("ended because nobody waits for it") from failed
            if self._fixed:
                raise self._runtime.failure(failed) from failed
            return False  # perhaps it was the outputs' shape; if not, it fails again without us
        return True

    def _stop(self) -> None:
        self._stopped = True
        self._options.terminate = True


def array_of(tensor: Tensor) -> np.ndarray:
    """The tensor as numpy: a view of its slot, but for BYTES, which ONNX Runtime takes as objects of text.

    Raises:
        InvalidInput: BYTES elements that do not add up or are no UTF-8.
    """
    if BY_NAME[tensor.datatype].numpy is not None:
        return to_array(tensor.datatype, tensor.shape, tensor.data)
    try:
        elements = decode_bytes(tensor.data, int(np.prod(tensor.shape, dtype=np.int64)))
        texts = np.empty(len(elements), dtype=object)
        texts[:] = [element.decode("utf-8") for element in elements]
    except ValueError as broken:
        raise InvalidInput(f"BYTES tensor of shape {list(tensor.shape)}: {broken}") from broken
    return texts.reshape(tensor.shape)


def tensor_of(datatype: str, array: Any) -> Tensor:
    """A result as it travels. ONNX Runtime's own copy is handed on, not copied again.

    Raises:
        RunFailed: not a dense tensor.
    """
    if not isinstance(array, np.ndarray):
        raise RunFailed(f"an output is {type(array).__name__}, not a tensor")
    if datatype == "BYTES":
        return Tensor(datatype, array.shape, memoryview(encode_bytes(array.reshape(-1).tolist())))
    if array.size and array.flags.c_contiguous:
        return Tensor(datatype, array.shape, array.data.cast("B"))
    return Tensor(datatype, array.shape, np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _refuse_unlisted(content: bytes, external: Mapping[str, bytes]) -> None:
    """Raises ModelRejected: the model names external data that nobody has verified."""
    try:
        unlisted = external_names(content) - external.keys()
    except ValueError as broken:
        raise ModelRejected(f"not an ONNX model: {broken}") from broken
    if unlisted:
        names = ", ".join(sorted(name[:100] for name in unlisted))
        raise ModelRejected(f"external data that the manifest does not list under externalData: {names}")


def _hand_over(options: Any, external: Mapping[str, bytes]) -> None:
    """Give the runtime the bytes themselves, so that it opens no file. Raises ModelRejected: it is too old for that."""
    give = getattr(options, "add_external_initializers_from_files_in_memory", None)
    if give is None:
        raise ModelRejected("models with external data need a newer onnxruntime: pip install -U onnxruntime")
    give(list(external), list(external.values()), [len(content) for content in external.values()])


def _spec(argument: Any, side: str) -> TensorSpec:
    datatype = _TYPES.get(argument.type)
    if datatype is None:
        raise ModelRejected(f"{side} {argument.name} is {argument.type}, which the protocol can't carry")
    shape = argument.shape if argument.shape is not None else []
    return TensorSpec(argument.name, datatype, tuple(d if isinstance(d, int) and d >= 0 else -1 for d in shape))


def _determined(session: Any) -> bool:
    """Whether every open size of an output is called as an open size of an input is."""
    known = {size for argument in session.get_inputs() for size in argument.shape or () if isinstance(size, str)}
    sizes = [size for argument in session.get_outputs() for size in argument.shape or ()]
    return all(size in known if isinstance(size, str) else isinstance(size, int) for size in sizes)


def _rejection(refused: Exception) -> Exception:
    text = _text(refused)
    if "Failed to allocate memory" in text or "bad_alloc" in text:
        return ModelTooLarge(text)
    return ModelRejected(text)


def _text(error: BaseException) -> str:
    """ONNX Runtime's message without the prefix that repeats its class."""
    return str(error).replace("[ONNXRuntimeError] : ", "").strip() or type(error).__name__
