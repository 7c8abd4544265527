"""What the generated modules say of a service's methods; no grpc needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Method:
    """One RPC. ``path``: as it stands in an HTTP/2 request, ``/inference.GRPCInferenceService/ModelInfer``."""

    path: str
    request: Any
    """Message class."""
    response: Any
    """Message class."""
    request_streaming: bool = False
    response_streaming: bool = False
