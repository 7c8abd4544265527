"""ONNX models by ONNX Runtime's TensorRT provider, which builds and runs their engines itself."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

from workers.backend import (
    MISSING_LIBRARY,
    WRONG_DRIVER,
    BackendUnavailable,
    Bound,
    Cancellation,
    DeviceFault,
    ModelRejected,
    NotOnDevice,
    RunFailed,
    Tensor,
    TensorSpec,
)
from workers.nvidia import Sight
from workers.onnx_runtime import CPU, OnnxModel, OnnxRuntime
from workers.placement import OnDevice
from workers.tensorrt.options import Range, misfit

PROVIDER = "TensorrtExecutionProvider"
CUDA = "CUDAExecutionProvider"
_NOT_STARTED = ("EP Error", "install TensorRT", "RegisterTensorRTPlugins")
"""In ONNX Runtime's text where the provider's own libraries are missing."""
_ALL = 1.0
"""Share of the nodes that must be on the GPU."""
_FAULTS = ("CUDA failure", "CUDA error", "CUDNN failure", "CUBLAS failure", "NvInfer")
"""By which ONNX Runtime's text says that it was the device, or its driver, that failed."""


class Provider:
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
        proof = OnDevice((PROVIDER, *self._next), _ALL)
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


class ProviderModel:
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
