"""Apple's Neural Engine and GPU, with ONNX Runtime's Core ML provider. Written against its documentation, never run."""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass
from typing import Any, Dict, Mapping, Sequence

from workers.backend import (
    MISSING_LIBRARY,
    NO_FILES,
    UNSUPPORTED,
    BackendUnavailable,
    Heat,
    Probe,
    Settings,
)
from workers.device_files import usable_folder
from workers.onnx_runtime import OnnxModel, OnnxRuntime
from workers.placement import MIN_SHARE, OnDevice, load_on, read_min_share

PROVIDER = "CoreMLExecutionProvider"
COMPUTE_UNITS = {
    "all": "ALL",
    "cpuAndNeuralEngine": "CPUAndNeuralEngine",
    "cpuAndGpu": "CPUAndGPU",
    "cpuOnly": "CPUOnly",
}
MODEL_FORMATS = {"mlProgram": "MLProgram", "neuralNetwork": "NeuralNetwork"}
_OPTIONS = ("computeUnits", "minShare", "modelFormat")


@dataclass(frozen=True)
class Options:
    """Of the device config, as they were read."""

    compute_units: str = "all"
    model_format: str = "mlProgram"
    """mlProgram needs macOS 12; neuralNetwork has fewer operators, and knows older systems."""
    min_share: float = MIN_SHARE


class CoreMlBackend:
    """Runs .onnx files with Core ML, which itself picks among the units that it may use."""

    name = "coreml"
    kind = "hardware"
    formats: Sequence[str] = (".onnx",)
    datatypes: Sequence[str] = ("FP32", "FP16")
    open_sizes = False
    empty_tensors = False
    can_cancel = False
    """What Core ML has of a graph is one node, and ONNX Runtime looks between nodes whether a run is still wanted."""

    def __init__(self, settings: Settings) -> None:
        """Raises BackendUnavailable: this is no macOS, the provider is missing, or an option makes no sense."""
        self._options = read_options(settings.options)
        self._runtime = _open()
        self.kind = "cpu" if self._options.compute_units == "cpuOnly" else "hardware"
        self.runtime = f"{self._runtime.version}, Core ML of macOS {platform.mac_ver()[0]}"
        self.device = f"{platform.processor() or platform.machine()} ({self._options.compute_units})"
        self._threads = settings.threads
        self._told = provider_options(self._options, settings.cache)
        self._proof = OnDevice([PROVIDER], self._options.min_share)

    @classmethod
    def probe(cls) -> Probe:
        try:
            runtime = _open()
        except BackendUnavailable as missing:
            return Probe(False, str(missing), _REMEDIES[missing.code], code=missing.code)
        return Probe(True, "Core ML is a part of macOS", devices=(platform.machine(),), runtime=runtime.version)

    def load(self, content: bytes, name: str, external: Mapping[str, bytes] = NO_FILES) -> OnnxModel:
        def options() -> Any:
            return self._runtime.options(self._threads)

        model = load_on(self._proof, self._runtime, content, options, [(PROVIDER, self._told)], external)
        model.provenance = f"{model.provenance}, compute units {self._options.compute_units}"
        return model

    def heat(self) -> Heat:
        return Heat()


_REMEDIES = {
    UNSUPPORTED: "needs macOS; elsewhere list another target",
    MISSING_LIBRARY: "pip install onnxruntime",
}


def read_options(raw: Mapping[str, Any]) -> Options:
    """Raises BackendUnavailable: an option is unknown or makes no sense."""
    unknown = sorted(set(raw) - set(_OPTIONS))
    if unknown:
        raise BackendUnavailable(f"options.{unknown[0]}: unknown; the coreml backend has {', '.join(_OPTIONS)}")
    chosen = {}
    for name, offered in (("computeUnits", COMPUTE_UNITS), ("modelFormat", MODEL_FORMATS)):
        chosen[name] = raw.get(name, next(iter(offered)))
        if chosen[name] not in tuple(offered):  # also what can't be a key
            raise BackendUnavailable(f"options.{name}: expected one of {', '.join(offered)}, got {chosen[name]!r}")
    return Options(chosen["computeUnits"], chosen["modelFormat"], read_min_share(raw.get("minShare", MIN_SHARE)))


def provider_options(options: Options, cache: str) -> Dict[str, str]:
    """What the provider is told, in its words."""
    told = {
        "ModelFormat": MODEL_FORMATS[options.model_format],
        "MLComputeUnits": COMPUTE_UNITS[options.compute_units],
        # Shapes are declared by the model; one with open sizes runs there too, more slowly.
        "RequireStaticInputShapes": "0",
        "EnableOnSubgraphs": "0",
    }
    if cache and usable_folder(cache):
        told["ModelCacheDirectory"] = cache
    return told


def _open() -> OnnxRuntime:
    """Raises BackendUnavailable: this is no macOS, or its onnxruntime has no Core ML."""
    if sys.platform != "darwin":
        raise BackendUnavailable(f"Core ML is a part of macOS; this is {sys.platform}", UNSUPPORTED)
    runtime = OnnxRuntime()
    if PROVIDER not in runtime.ort.get_available_providers():
        raise BackendUnavailable(f"{runtime.version} of this interpreter has no Core ML", MISSING_LIBRARY)
    return runtime
