"""Coral Edge TPU, PCIe or USB: LiteRT with the libedgetpu delegate. One worker owns one device."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Mapping, Sequence

from workers.backend import (
    MISSING_DEVICE,
    MISSING_LIBRARY,
    NO_FILES,
    BackendError,
    BackendUnavailable,
    DeviceFault,
    Heat,
    ModelRejected,
    NotOnDevice,
    Probe,
    RunFailed,
    Settings,
)
from workers.edge_tpus import EdgeTpu, Roots, check, choose, find, missing, not_opened, own, remedy
from workers.lite_runtime import (
    INSTALL,
    LiteModel,
    LiteRuntime,
    check_file,
    on_the_cpu,
    rejection,
    run_failed,
    text_of,
)
from workers.loaded import NeverCancelled, zeros
from workers.tflite_file import EDGE_TPU, for_edge_tpu

LIBRARY = {"darwin": "libedgetpu.1.dylib", "win32": "edgetpu.dll"}.get(sys.platform, "libedgetpu.so.1")
LIBRARY_REMEDY = "install libedgetpu (libedgetpu1-std of the vendor's or your distribution's packages)"
BACK_AGAIN = 6
"""Exit code of a worker whose device was gone and is back: the delegate is of no use any more, a new process's is."""
_OPTIONS = {"device": str, "allowCpu": bool, "library": str, "sysfsRoot": str, "devRoot": str, "lockFolder": str}
_NEEDED = "unresolved custom op"


@dataclass(frozen=True)
class Options:
    """Of an ``edgetpu`` worker."""

    device: str = ""
    """``usb``, ``pci``, ``usb:N``, ``pci:N``, ``:N``; empty: the first that is free."""
    allow_cpu: bool = False
    """Whether files that were not compiled for the device are run on the CPU, which is told, or refused."""
    library: str = LIBRARY
    roots: Roots = field(default_factory=Roots)

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Options:
        """Raises BackendUnavailable: an option is unknown or of another type."""
        for key, value in given.items():
            if key not in _OPTIONS:
                raise BackendUnavailable(f"options.{key}: the edgetpu backend has {', '.join(_OPTIONS)}")
            if not isinstance(value, _OPTIONS[key]):
                raise BackendUnavailable(f"options.{key}: expected {_OPTIONS[key].__name__}, got {value!r}")
        roots = Roots(
            given.get("sysfsRoot", Roots.sysfs),
            given.get("devRoot", Roots.dev),
            locks=given.get("lockFolder", ""),
        )
        choose((), given.get("device", ""))
        return cls(given.get("device", ""), given.get("allowCpu", False), given.get("library", LIBRARY), roots)


class EdgeTpuBackend:
    """Runs .tflite files that were compiled for the Edge TPU. A run can't be ended."""

    name = "edgetpu"
    kind = "hardware"
    formats: Sequence[str] = (".tflite",)
    datatypes: Sequence[str] = ("INT8", "UINT8")
    open_sizes = False
    empty_tensors = False
    can_cancel = False

    def __init__(self, settings: Settings) -> None:
        """Raises BackendUnavailable: library or device are missing, in use, or not for this user."""
        self._options = Options.read(settings.options)
        self._settings = settings
        self._runtime = LiteRuntime()
        owned = own(self._options.device, self._options.roots)
        self._owned, self._device = owned, owned.device
        try:
            check(self._device, self._options.roots)
            self._delegate = self._load_delegate()  # kept: as long as there is one, the device is ours
        except BackendUnavailable:
            owned.release()
            raise
        self._gone = False
        self.runtime = f"{self._runtime.version}, {os.path.basename(self._options.library)}"
        self.device = str(self._device)

    @classmethod
    def probe(cls) -> Probe:
        return look(Options())

    def load(self, content: bytes, name: str, external: Mapping[str, bytes] = NO_FILES) -> LiteModel:
        del external  # a .tflite file names none, which check_file makes sure of
        check_file(content, name, edge_tpu=True)
        if for_edge_tpu(content):
            model = LiteModel(self._make(content, name), self._settings.instances, _on_the_device, self._fault)
            return self._proved(model, name)
        if not self._options.allow_cpu:
            raise NotOnDevice(
                f"{name}: this .tflite is not compiled for the Edge TPU: all of it would run on the CPU; compile it "
                "with edgetpu_compiler, list it for a litert worker, or set options.allowCpu"
            )
        threads, instances = self._settings.threads, self._settings.instances
        model = LiteModel(lambda: self._runtime.interpreter(content, threads), instances, on_the_cpu, run_failed)
        model.kind = "cpu"
        model.provenance += ": not compiled for the Edge TPU"
        return model

    def heat(self) -> Heat:
        """Ends the process when the device was gone and is back."""
        if not self._device.present:
            self._gone = True
            return Heat(lost=f"{self._device} is gone from the bus")
        if self._gone:
            print(f"edgetpu: {self._device} is back", file=sys.stderr, flush=True)
            os._exit(BACK_AGAIN)
        return Heat()

    def _proved(self, model: LiteModel, name: str) -> LiteModel:
        """The model, when a run on zeros went well: only that reaches the device. Raises what ``load`` raises."""
        feed = {spec.name: zeros(spec) for spec in model.inputs}
        try:
            model.run(feed, [spec.name for spec in model.outputs], NeverCancelled())
            model.start_over()
        except DeviceFault as gone:
            model.close()
            raise BackendUnavailable(str(gone), MISSING_DEVICE) from gone
        except RunFailed as failed:
            model.close()
            raise ModelRejected(f"{name}: a run on zeros failed on {self._device}: {failed}") from failed
        return model

    def _make(self, content: bytes, name: str) -> Callable[[], Any]:
        def make() -> Any:
            try:
                interpreter = self._runtime.interpreter(content, self._settings.threads, [self._load_delegate()])
                interpreter.allocate_tensors()
            except (ValueError, RuntimeError) as refused:
                text = text_of(refused)
                if _NEEDED in text and EDGE_TPU.decode() in text:
                    raise NotOnDevice(f"{name}: libedgetpu took over none of the operations: {text}") from refused
                raise rejection(refused) from refused
            return interpreter

        return make

    def _load_delegate(self) -> Any:
        """Raises BackendUnavailable."""
        options: Dict[str, str] = {"device": self._device.which}
        try:
            return self._runtime.delegate(self._options.library, options)
        except OSError as absent:
            raise BackendUnavailable(f"{self._options.library} can't be loaded: {absent}", MISSING_LIBRARY) from absent
        except ValueError as refused:
            raise not_opened(self._device, text_of(refused), self._options.roots) from refused

    def _fault(self, failed: Exception) -> BackendError:
        """The device's where it is gone, else the model's."""
        if not self._device.present:
            self._gone = True
            return DeviceFault(f"{self._device} is gone from the bus: {text_of(failed)}")
        return run_failed(failed)


def look(options: Options) -> Probe:
    """What is here, without opening a device: that would take it from its owner."""
    devices = choose(find(options.roots), options.device)
    names = [str(device) for device in devices]
    try:
        if not devices:
            raise missing(options.device, options.roots)
        _first_usable(devices, options.roots)
    except BackendUnavailable as unavailable:
        return Probe(False, str(unavailable), remedy(unavailable.code), names, code=unavailable.code)
    try:
        runtime = LiteRuntime()
    except BackendUnavailable as unavailable:
        return Probe(False, str(unavailable), INSTALL, names, code=MISSING_LIBRARY)
    try:
        _dlopen(options.library)
    except OSError as absent:
        reason = f"{options.library} can't be loaded: {absent}"
        return Probe(False, reason, LIBRARY_REMEDY, names, runtime.version, MISSING_LIBRARY)
    return Probe(True, f"{names[0]} is there, and so is {options.library}", "", names, runtime.version)


def _first_usable(devices: Sequence[EdgeTpu], roots: Roots) -> None:
    """Raises BackendUnavailable: none is; what stands against the first one."""
    refused: List[BackendUnavailable] = []
    for device in devices:
        try:
            check(device, roots)
        except BackendUnavailable as reason:
            refused.append(reason)
        else:
            return
    raise refused[0]


def _dlopen(library: str) -> None:
    """Raises OSError."""
    import ctypes

    ctypes.CDLL(library)


def _on_the_device(operations: Sequence[str]) -> str:
    """The compiler puts what it takes over into an operation or a few, which LiteRT loads only with a delegate."""
    parts = operations.count("DELEGATE")
    nodes = len(operations) - parts
    compiled = operations.count(EDGE_TPU.decode())
    beside = sorted({name for name in operations if name not in ("DELEGATE", EDGE_TPU.decode())})
    on_cpu = f", {nodes - compiled} on the CPU ({', '.join(beside[:6])})" if beside else ""
    return f"{compiled} of {nodes} nodes on the Edge TPU{on_cpu}"
