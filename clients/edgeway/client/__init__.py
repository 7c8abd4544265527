"""Ask a gateway for inference: numpy in, numpy out, within a latency budget."""

from edgeway.client.aio import AsyncClient
from edgeway.client.errors import BadRequest, InferenceError, Late, NotFound, Overloaded, Unavailable
from edgeway.client.labels import AsyncLabels, Labels, Verdict
from edgeway.client.region import Region
from edgeway.client.result import ModelMetadata, Result, TensorMetadata
from edgeway.client.sync import Client

__all__ = [
    "AsyncClient",
    "AsyncLabels",
    "BadRequest",
    "Client",
    "InferenceError",
    "Labels",
    "Late",
    "ModelMetadata",
    "NotFound",
    "Overloaded",
    "Region",
    "Result",
    "TensorMetadata",
    "Unavailable",
    "Verdict",
]
