"""How a client reaches its gateway, and when it asks again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tenacity import retry_if_exception_type, stop_before_delay, wait_random_exponential

from edgeway.client.errors import Unavailable
from edgeway.v1 import open_inference_pb2 as oip

METHODS = oip.SERVICES["inference.GRPCInferenceService"]
GRACE = 0.005
"""Seconds past the budget after which the caller gives up by itself: a gateway that lives has answered by then, and its
refusal says why."""
_MAX_MESSAGE = 1 << 30

OPTIONS: Sequence[tuple[str, Any]] = (
    ("grpc.max_receive_message_length", _MAX_MESSAGE),
    ("grpc.max_send_message_length", _MAX_MESSAGE),
    # grpc's own retries know no budget, hold up the gateway's refusal and its reasons until the deadline, and leave out
    # messages beyond 256 KiB, such as frames. ``again`` does it.
    ("grpc.enable_retries", 0),
    # A gateway is back some 200 ms after a restart; grpc's own first pause is a second.
    ("grpc.initial_reconnect_backoff_ms", 20),
    ("grpc.min_reconnect_backoff_ms", 20),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.use_local_subchannel_pool", 1),
)


def target(address: str) -> str:
    """grpc's form of ``unix:/path`` or ``host:port``."""
    return address if "://" in address or address.startswith("unix:") else f"dns:///{address}"


def again(deadline: float) -> dict[str, Any]:
    """Tenacity's arguments for what follows a first failure: UNAVAILABLE only, and only inside the deadline.

    A request has no effect on the device, so it may be asked twice.
    """
    return {
        "retry": retry_if_exception_type(Unavailable),
        "stop": stop_before_delay(deadline),
        "wait": wait_random_exponential(multiplier=0.005, min=0.002, max=0.1),
        "reraise": True,
    }
