"""Names of request and response parameters, used by gateway and clients."""

from __future__ import annotations

TIMEOUT = "timeout"
"""Request, int64 microseconds: the latency budget."""
PRIORITY = "priority"
"""Request, 1 (highest) to 9; 0 is the default, 5."""
ROUTE_KEY = "edgeway_route_key"
"""Request, text: the same key meets the same version."""
STREAM_KEY = "edgeway_stream_key"
"""Request, text: a newer frame of the same key supersedes the one still waiting."""
DEGRADE = "edgeway_degrade"
"""Request: ``allow`` or ``never``."""
HOPS = "edgeway_hops"
"""Request, 0 or 1: gateways that have sent it on to another one. What has come through one is sent on by none."""

SHARED_MEMORY = "shared_memory_"
"""How parameters of tensors begin that say where in a region they lie."""
REGION = "shared_memory_region"
"""Of a tensor, text: the region's name."""
REGION_BYTES = "shared_memory_byte_size"
"""Of a tensor, int64: size of the input, or room for the output."""
REGION_OFFSET = "shared_memory_offset"
"""Of a tensor, int64: bytes from the beginning of the region; 0 if it is missing."""

VERSION = "edgeway_version"
TARGET = "edgeway_target"
"""Response: name of the worker that served."""
ACCELERATOR = "edgeway_accelerator"
"""Response: backend kind of that worker."""
KIND = "edgeway_kind"
"""Response: hardware, emulator, cpu, simulated or remote."""
DEGRADED = "edgeway_degraded"
"""Response, bool: another than the first target served."""
REASON = "edgeway_reason"
"""Response: why the first target did not serve; empty if it did."""
QUEUE_US = "edgeway_queue_us"
COMPUTE_US = "edgeway_compute_us"
TOTAL_US = "edgeway_total_us"
BUDGET_LEFT_US = "edgeway_budget_left_us"
"""Response, int64 microseconds; negative where the answer is late."""
MIN_BUDGET_US = "edgeway_min_budget_us"
"""On a refusal: the smallest budget that could have been met."""


def metadata_key(parameter: str) -> str:
    """The parameter's name as gRPC metadata."""
    return parameter.replace("_", "-")
