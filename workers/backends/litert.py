"""The CPU, with LiteRT: .tflite files as they are."""

from __future__ import annotations

import platform
from typing import Mapping, Sequence

from workers.backend import MISSING_LIBRARY, NO_FILES, BackendUnavailable, Heat, Probe, Settings
from workers.lite_runtime import DATATYPES, INSTALL, LiteModel, LiteRuntime, check_file, on_the_cpu, run_failed


class LiteRtBackend:
    """Runs .tflite files with LiteRT and XNNPACK, one interpreter per instance. A run can't be ended."""

    name = "litert"
    kind = "cpu"
    formats: Sequence[str] = (".tflite",)
    datatypes: Sequence[str] = DATATYPES
    open_sizes = True
    empty_tensors = True
    can_cancel = False

    def __init__(self, settings: Settings) -> None:
        """Raises BackendUnavailable: the library is missing, or an option is unknown."""
        if settings.options:
            raise BackendUnavailable(f"the litert backend has no options, got {', '.join(sorted(settings.options))}")
        self._runtime = LiteRuntime()
        self._settings = settings
        self.runtime = self._runtime.version
        self.device = platform.processor() or platform.machine()

    @classmethod
    def probe(cls) -> Probe:
        try:
            runtime = LiteRuntime()
        except BackendUnavailable as missing:
            return Probe(False, str(missing), INSTALL, code=MISSING_LIBRARY)
        return Probe(True, "LiteRT is installed", devices=(platform.machine(),), runtime=runtime.version)

    def load(self, content: bytes, name: str, external: Mapping[str, bytes] = NO_FILES) -> LiteModel:
        del external  # a .tflite file names none, which check_file makes sure of
        check_file(content, name)
        threads, instances = self._settings.threads, self._settings.instances
        return LiteModel(lambda: self._runtime.interpreter(content, threads), instances, on_the_cpu, run_failed)

    def heat(self) -> Heat:
        return Heat()
