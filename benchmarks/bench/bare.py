"""What the gateway is compared with: bare Python gRPC servers, each a process of its own.

    python -m benchmarks.bench.bare echo|raw|wasteful|direct|collector ADDRESS [NAME=MODEL.onnx ...]

- ``echo``: a grpc.aio service of generated classes that returns the message, as any service begins.
- ``raw``: the same, but it does not look at the bytes.
- ``wasteful``: the same as ``raw``, but each request costs it what the counts must see: a copy of the message, and
  ``WASTE`` objects that are kept, Python calls, and system calls.
- ``direct``: models served by this process as well as Python can: messages are cut by hand and their headers known by
  heart, so that no tensor is copied by protobuf; ONNX Runtime in one model thread with one thread of its own; an
  allocator that keeps big blocks; tensors in registered shared memory are run where they lie.
- ``collector``: takes traces and throws them away.

Each prints one line when it listens: the port, or 0 for a Unix socket.
"""

from __future__ import annotations

import asyncio
import ctypes
import mmap
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from edgeway import wire
from edgeway.v1 import open_inference_pb2 as oip

OIP = "inference.GRPCInferenceService"
TRACES = "opentelemetry.proto.collector.trace.v1.TraceService"
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
WASTE = 100
_RAW = 7 << 3 | 2
_DTYPES: dict[str, type[np.generic]] = {"FP32": np.float32, "UINT8": np.uint8}
_NAMES = {np.dtype(kind): name for name, kind in _DTYPES.items()}
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3

Handler = Callable[[Any, Any], Any]


def keep_big_blocks() -> None:
    """As the gateway does it for itself: glibc would fault every big buffer in again."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(_M_TRIM_THRESHOLD, 256 << 20)
        libc.mallopt(_M_TOP_PAD, 16 << 20)


@dataclass(frozen=True)
class Form:
    """A request without its tensor: which model, and where its one input comes from."""

    model: str
    datatype: np.dtype[Any]
    shape: tuple[int, ...]
    region: str
    offset: int
    nbytes: int


class Direct:
    """The models, and the regions that callers have registered."""

    def __init__(self, models: Mapping[str, str]) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._sessions = {
            name: ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            for name, path in models.items()
        }
        self._inputs = {name: session.get_inputs()[0].name for name, session in self._sessions.items()}
        self._outputs = {name: [o.name for o in session.get_outputs()] for name, session in self._sessions.items()}
        self._forms: dict[bytes, Form] = {}
        self._heads: dict[tuple[str, tuple[tuple[int, ...], ...]], bytes] = {}
        self._regions: dict[str, mmap.mmap] = {}
        self._thread = ThreadPoolExecutor(1)

    def handlers(self) -> dict[str, Any]:
        return {
            "ServerLive": grpc.unary_unary_rpc_method_handler(_live),
            "SystemSharedMemoryRegister": grpc.unary_unary_rpc_method_handler(self.register),
            "ModelInfer": grpc.unary_unary_rpc_method_handler(self.infer),
        }

    async def infer(self, message: bytes, context: object) -> bytes:
        del context
        header, raw = split(message)
        form = self._forms.get(header)
        if form is None:
            form = self._forms[header] = form_of(header)
        data: Any = raw
        if form.region:
            data = memoryview(self._regions[form.region])[form.offset : form.offset + form.nbytes]
        tensor = np.frombuffer(data, form.datatype).reshape(form.shape)
        outputs = await asyncio.get_running_loop().run_in_executor(self._thread, self._run, form.model, tensor)
        return self._answer(form.model, outputs)

    async def register(self, message: bytes, context: object) -> bytes:
        del context
        asked = oip.SystemSharedMemoryRegisterRequest.FromString(message)
        fd = os.open(f"/dev/shm/{asked.key.lstrip('/')}", os.O_RDWR)
        try:
            self._regions[asked.name] = mmap.mmap(fd, asked.offset + asked.byte_size)
        finally:
            os.close(fd)
        return b""

    def _run(self, model: str, tensor: np.ndarray) -> Sequence[np.ndarray]:
        outputs: Sequence[np.ndarray] = self._sessions[model].run(None, {self._inputs[model]: tensor})
        return outputs

    def _answer(self, model: str, outputs: Sequence[np.ndarray]) -> bytes:
        key = (model, tuple(output.shape for output in outputs))
        head = self._heads.get(key)
        if head is None:
            response = oip.ModelInferResponse(model_name=model)
            for name, output in zip(self._outputs[model], outputs, strict=True):
                response.outputs.add(name=name, datatype=_NAMES[output.dtype], shape=output.shape)
            head = self._heads[key] = response.SerializeToString()
        parts: list[Any] = [head]
        for output in outputs:
            parts += (b"\x32" + wire.varint(output.nbytes), output.data.cast("B"))
        return b"".join(parts)


def split(message: bytes) -> tuple[bytes, memoryview]:
    """(the message without its raw tensor, a view of the tensor; empty if there is none)."""
    at, end = 0, len(message)
    raw = memoryview(b"")
    header = []
    while at < end:
        began = at
        tag, at = wire.read_varint(message, at, end)
        if tag & 7 != 2:
            raise ValueError(f"unexpected wire type {tag & 7}")
        size, at = wire.read_varint(message, at, end)
        at += size
        if tag == _RAW:
            raw = memoryview(message)[at - size : at]
        else:
            header.append(message[began:at])
    return b"".join(header), raw


def form_of(header: bytes) -> Form:
    request = oip.ModelInferRequest.FromString(header)
    tensor = request.inputs[0]
    given = tensor.parameters
    return Form(
        request.model_name,
        np.dtype(_DTYPES[tensor.datatype]),
        tuple(tensor.shape),
        given["shared_memory_region"].string_param if "shared_memory_region" in given else "",
        given["shared_memory_offset"].int64_param if "shared_memory_offset" in given else 0,
        given["shared_memory_byte_size"].int64_param if "shared_memory_byte_size" in given else 0,
    )


async def _live(message: bytes, context: object) -> bytes:
    del message, context
    return oip.ServerLiveResponse(live=True).SerializeToString()


async def _same(message: Any, context: object) -> Any:
    """What came in: a message of a generated class, or bytes."""
    del context
    return message


class Waste:
    """Does what a good server does not."""

    def __init__(self) -> None:
        self._kept: list[object] = []

    async def infer(self, message: bytes, context: object) -> bytes:
        del context
        self._kept += [object() for _ in range(WASTE)]
        for _ in range(WASTE):
            os.getppid()
        return b"".join((message[:1], memoryview(message)[1:]))


async def _nothing(message: bytes, context: object) -> bytes:
    del message, context
    return b""


def handlers_of(kind: str, models: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    """(service, methods).

    Raises:
        ValueError: no such kind.
    """
    if kind == "echo":
        message = oip.ModelInferRequest
        method = grpc.unary_unary_rpc_method_handler(_same, message.FromString, message.SerializeToString)
        return OIP, {"ModelInfer": method}
    if kind == "raw":
        return OIP, {"ModelInfer": grpc.unary_unary_rpc_method_handler(_same)}
    if kind == "wasteful":
        return OIP, {"ModelInfer": grpc.unary_unary_rpc_method_handler(Waste().infer)}
    if kind == "direct":
        return OIP, Direct(models).handlers()
    if kind == "collector":
        return TRACES, {"Export": grpc.unary_unary_rpc_method_handler(_nothing)}
    raise ValueError(f"expected echo, raw, wasteful, direct or collector, got {kind!r}")


async def serve(kind: str, address: str, models: Mapping[str, str]) -> None:
    server = grpc.aio.server(options=OPTIONS)
    service, methods = handlers_of(kind, models)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
    port = server.add_insecure_port(address)
    await server.start()
    print(0 if address.startswith("unix:") else port, flush=True)
    await server.wait_for_termination()


def main() -> None:
    kind, address, *given = sys.argv[1:]
    if "MALLOC_MMAP_THRESHOLD_" not in os.environ:  # the counts set their own
        keep_big_blocks()
    models = dict(each.split("=", 1) for each in given)
    missing = [path for path in models.values() if not Path(path).exists()]
    if missing:
        raise SystemExit(f"no such model: {missing[0]}")
    asyncio.run(serve(kind, address, models))


if __name__ == "__main__":
    main()
