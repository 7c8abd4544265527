"""``edgeway serve`` in a process that has been changed before: python -m benchmarks.front.bootstrap CHANGE serve ...

``CHANGE`` is a Change as JSON. The product has no switches for any of this, so names inside of it are replaced; one
that is no longer there ends the process, and with it the measurement.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import sys
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import Any, NoReturn

import grpc

THREADS = 32
"""More than there are clients: each waits for its answer."""
ANSWER = bytes(400)
"""Of about the size that a real one has with its facts."""
_M_ARENA_MAX = -8


@dataclass(frozen=True)
class Change:
    """What is done to the process."""

    uvloop: str = ""
    """Folder in which it is installed; empty: the stock loop."""
    threads: bool = False
    alone: bool = False
    malloc: str = ""
    arguments: tuple[tuple[str, int], ...] = ()
    """Channel arguments; they come after the product's own, and win."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Change:
        read = json.loads(text)
        return cls(**{**read, "arguments": tuple((name, value) for name, value in read["arguments"])})


def apply(change: Change) -> None:
    """Change this process."""
    if change.malloc == "one-arena":  # while there is one thread: an arena that exists stays
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
    if change.uvloop:
        sys.path.insert(0, change.uvloop)
        import uvloop

        uvloop.install()
    from gateway import start
    from gateway.front import inference, listeners

    if change.malloc == "untuned":
        replace(start, "tune_allocator", lambda: None)
    if change.alone:
        replace(inference.InferenceService, "model_infer", answer_at_once)
    if change.threads or change.arguments:
        make: Callable[..., Any] = ThreadedServer if change.threads else grpc.aio.server

        def server(options: Sequence[tuple[str, Any]]) -> Any:
            return make(options=merged(options, change.arguments))

        replace(listeners, "aio", SimpleNamespace(server=server))


async def answer_at_once(service: object, message: bytes, context: object) -> bytes:
    """In the place of ModelInfer's handler: no look at the message, no pipeline, no worker."""
    return ANSWER


def replace(where: Any, name: str, by: Any) -> None:
    """Raises AttributeError: the product has no such name any more, and the variant would measure nothing."""
    getattr(where, name)
    setattr(where, name, by)


def merged(options: Sequence[tuple[str, Any]], more: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Channel arguments, each once; the later ones win."""
    return list({**dict(options), **dict(more)}.items())


class ThreadedServer:
    """A synchronous gRPC server in the clothes of grpc.aio's, as far as the gateway's listeners need them.

    Only unary calls are bridged; streams are UNIMPLEMENTED.
    """

    def __init__(self, options: Sequence[tuple[str, Any]]) -> None:
        self._loop = asyncio.get_running_loop()
        self._server = grpc.server(ThreadPoolExecutor(THREADS), options=options)
        self.add_insecure_port = self._server.add_insecure_port
        self.add_secure_port = self._server.add_secure_port

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        self._server.add_generic_rpc_handlers([Bridge(handler, self._loop) for handler in handlers])

    def add_registered_method_handlers(self, service: str, handlers: Any) -> None:
        """The generic ones answer for all."""

    async def start(self) -> None:
        self._server.start()

    async def stop(self, grace: float | None) -> None:
        await asyncio.to_thread(self._server.stop(grace).wait)


class Bridge(grpc.GenericRpcHandler):
    """Handlers of coroutines, for a server of threads."""

    def __init__(self, handler: grpc.GenericRpcHandler, loop: asyncio.AbstractEventLoop) -> None:
        self._handler = handler
        self._loop = loop
        self._known: dict[str, Any] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        method = handler_call_details.method
        if method not in self._known:
            self._known[method] = self._bridged(self._handler.service(handler_call_details))
        return self._known[method]

    def _bridged(self, found: Any) -> Any:
        if found is None or found.unary_unary is None:
            return None

        def call(content: Any, context: grpc.ServicerContext) -> Any:
            answer: Coroutine[Any, Any, Any] = found.unary_unary(content, BridgedContext(context))
            future = asyncio.run_coroutine_threadsafe(answer, self._loop)

            def gone() -> None:
                future.cancel()  # a caller that goes away must not hold a worker, here as there

            context.add_callback(gone)
            try:
                return future.result()
            except Aborted as aborted:
                context.set_trailing_metadata(aborted.trailing)
                context.abort(aborted.code, aborted.details)

        return grpc.unary_unary_rpc_method_handler(call, found.request_deserializer, found.response_serializer)


class Aborted(Exception):
    """The handler ended its call with a status; the thread that serves the call says so."""

    def __init__(self, code: grpc.StatusCode, details: str, trailing: Any) -> None:
        super().__init__(details)
        self.code, self.details, self.trailing = code, details, trailing


class BridgedContext:
    """What handlers ask of grpc.aio's context, from a synchronous one."""

    def __init__(self, context: grpc.ServicerContext) -> None:
        self.time_remaining = context.time_remaining
        self.invocation_metadata = context.invocation_metadata
        self.peer = context.peer

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> NoReturn:
        raise Aborted(code, details, tuple(trailing_metadata))


def main() -> None:
    apply(Change.from_json(sys.argv.pop(1)))
    from gateway.cli import main as edgeway

    edgeway()


if __name__ == "__main__":
    main()
