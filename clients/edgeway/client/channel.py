"""How a client reaches its gateway, and when it asks again."""

from __future__ import annotations

import json
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

_SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [{"service": "inference.GRPCInferenceService"}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.02s",
                "maxBackoff": "0.2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
    # Without it a gateway that fails for everybody would get five times the load.
    "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.2},
}

OPTIONS: Sequence[tuple[str, Any]] = (
    ("grpc.max_receive_message_length", _MAX_MESSAGE),
    ("grpc.max_send_message_length", _MAX_MESSAGE),
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    ("grpc.enable_retries", 1),
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
