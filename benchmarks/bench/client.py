"""The caller in all benchmarks: it sends bytes made beforehand and does not look at the answer's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from edgeway.v1 import open_inference_pb2 as oip

METHODS = oip.SERVICES["inference.GRPCInferenceService"]
CALL_LIMIT = 20.0


class Client:
    """One connection of the plainest stock client."""

    def __init__(self, address: str, options: Sequence[tuple[str, Any]]) -> None:
        self._channel = grpc.insecure_channel(address, [*options, ("grpc.use_local_subchannel_pool", 1)])
        self._infer: Any = self._channel.unary_unary(METHODS["ModelInfer"].path)
        self._register: Any = self._channel.unary_unary(METHODS["SystemSharedMemoryRegister"].path)

    def infer(self, message: bytes) -> bytes:
        answer: bytes = self._infer(message, timeout=CALL_LIMIT)
        return answer

    def register(self, name: str, key: str, nbytes: int) -> None:
        """Raises grpc.RpcError: the server does not take it."""
        asked = oip.SystemSharedMemoryRegisterRequest(name=name, key=key, byte_size=nbytes)
        self._register(asked.SerializeToString(), timeout=CALL_LIMIT)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()


@dataclass(frozen=True)
class Rate:
    """Of a closed loop."""

    per_second: float
    """Answers."""
    client_share: float
    """How much of a CPU the caller itself took: near 1 it is the caller that limits the rate."""


def rate(address: str, message: bytes, callers: int, seconds: float) -> Rate:
    """A closed loop of ``callers`` on one connection, after a tenth of the time to warm up."""
    return asyncio.run(_rate(address, message, callers, seconds))


async def _rate(address: str, message: bytes, callers: int, seconds: float) -> Rate:
    answered = 0
    cpu = time.process_time()
    entered = time.perf_counter()
    began = time.perf_counter() + seconds / 10
    end = began + seconds

    async def ask(infer: Any) -> None:
        nonlocal answered
        while (now := time.perf_counter()) < end:
            await infer(message, timeout=CALL_LIMIT)
            answered += now >= began

    async with grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        infer: Any = channel.unary_unary(METHODS["ModelInfer"].path)
        await asyncio.gather(*(ask(infer) for _ in range(callers)))
        now = time.perf_counter()
        return Rate(answered / (now - began), (time.process_time() - cpu) / (now - entered))
