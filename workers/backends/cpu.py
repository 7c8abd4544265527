"""The CPU, with ONNX Runtime: always there, the last entry of every ranking."""

from __future__ import annotations

import platform
from typing import Mapping, Sequence

from workers.backend import MISSING_LIBRARY, NO_FILES, BackendUnavailable, Heat, Probe, Settings
from workers.onnx_runtime import CPU, DATATYPES, OnnxModel, OnnxRuntime, on_the_cpu


class CpuBackend:
    """Runs .onnx files with ONNX Runtime's CPU provider, one session per file, shared by all instances."""

    name = "cpu"
    kind = "cpu"
    formats: Sequence[str] = (".onnx",)
    datatypes: Sequence[str] = DATATYPES
    open_sizes = True
    empty_tensors = True
    can_cancel = True

    def __init__(self, settings: Settings) -> None:
        """Raises BackendUnavailable: onnxruntime is missing, or an option is unknown."""
        if settings.options:
            raise BackendUnavailable(f"the cpu backend has no options, got {', '.join(sorted(settings.options))}")
        self._runtime = OnnxRuntime()
        self._threads = settings.threads
        self.datatypes = [datatype for datatype in DATATYPES if datatype != "BF16" or self._runtime.knows_bf16]
        self.runtime = self._runtime.version
        self.device = platform.processor() or platform.machine()

    @classmethod
    def probe(cls) -> Probe:
        try:
            runtime = OnnxRuntime()
        except BackendUnavailable as missing:
            return Probe(False, str(missing), "pip install onnxruntime", code=MISSING_LIBRARY)
        return Probe(True, "onnxruntime is installed", devices=(platform.machine(),), runtime=runtime.version)

    def load(self, content: bytes, name: str, external: Mapping[str, bytes] = NO_FILES) -> OnnxModel:
        options = self._runtime.options(self._threads)
        return self._runtime.model(content, external, options, [CPU], on_the_cpu)

    def heat(self) -> Heat:
        return Heat()
