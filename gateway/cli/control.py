"""How verbs reach the control socket."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click
import grpc
from google.protobuf.message import Message

from edgeway.places import control_address
from edgeway.v1 import control_pb2 as control
from gateway.cli.errors import fail
from gateway.config import address_problem

METHODS = control.SERVICES["edgeway.v1.Control"]
_TIMEOUT = 30.0
"""Seconds; the gateway answers from memory, only a stuck disk takes long."""

F = TypeVar("F", bound=Callable[..., Any])


def control_option(command: F) -> F:
    """Add ``--control``; the command gets a Control."""
    return click.option(
        "--control",
        "gateway",
        metavar="ADDR",
        callback=_connect,
        help="Control socket of the gateway.  [default: $EDGEWAY_CONTROL, else unix:$RUNTIME/control.sock]",
    )(command)


class Control:
    """Calls of edgeway.v1.Control that end the command with one line when they fail."""

    def __init__(self, address: str) -> None:
        self._address = address
        form = address if address.startswith("unix:") else f"dns:///{address}"
        self._channel = grpc.insecure_channel(form, [("grpc.max_receive_message_length", -1)])

    def call(self, rpc: str, request: Message, limit: float = _TIMEOUT) -> Any:
        """The response, within ``limit`` seconds."""
        try:
            return self.ask(rpc, request, limit)
        except grpc.RpcError as failed:
            fail(self.problem(failed))

    def ask(self, rpc: str, request: Message, limit: float = _TIMEOUT) -> Any:
        """The response. Raises grpc.RpcError, which is for the verb to explain."""
        method = METHODS[rpc]
        call: Any = self._channel.unary_unary(method.path)
        return method.response.FromString(call(request.SerializeToString(), timeout=limit))

    def events(self, after: int) -> Iterator[Any]:
        """Kept events after that number, then live ones."""
        method = METHODS["WatchEvents"]
        try:
            stream: Any = self._channel.unary_stream(method.path)
            for event in stream(method.request(after=after).SerializeToString()):
                yield method.response.FromString(event)
        except grpc.RpcError as failed:
            fail(self.problem(failed))

    def problem(self, failed: Any) -> str:
        if failed.code() is grpc.StatusCode.UNAVAILABLE:
            return f"no gateway answers at {self._address}; start one with `edgeway serve`, or name it with --control"
        return str(failed.details() or failed.code().name)


def _connect(context: click.Context, parameter: click.Parameter, value: str | None) -> Control:
    del context, parameter
    address = value or control_address()
    if problem := address_problem(address):
        raise click.UsageError(f"--control {address}: {problem}")
    return Control(address)
