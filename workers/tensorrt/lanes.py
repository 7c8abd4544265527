"""What runs of an engine need on the device: a stream each, and pinned memory beside the device's own."""

from __future__ import annotations

import ctypes
from typing import Any, Dict, List, Mapping, Sequence, Tuple

from edgeway.datatypes import nbytes
from workers.backend import RunFailed, Tensor, TensorSpec
from workers.tensorrt.native import OUT_OF_MEMORY, CudaFault, Native

_NON_BLOCKING = 1
_TO_DEVICE, _TO_HOST = "cudaMemcpyHostToDevice", "cudaMemcpyDeviceToHost"
_LEAST_ROOM = 256
"""Bytes of a buffer: TensorRT wants an address also for a tensor without elements."""


class Lane:
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
            self._native.give_back("cudaStreamDestroy", stream)

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
            native.give_back("cudaFreeHost", self.host)
            raise

    def fill(self, data: memoryview) -> None:
        """Copy a tensor to the host's side."""
        memoryview((ctypes.c_char * data.nbytes).from_address(self.host)).cast("B")[:] = data

    def close(self) -> None:
        self._native.give_back("cudaFreeHost", self.host)
        self._native.give_back("cudaFree", self.device)
