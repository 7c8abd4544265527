"""Plan: what a request's form means for one version, worked out once for all requests of that form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeway.datatypes import BY_NAME
from edgeway.frames import TensorPlace, aligned, pack_tensors
from gateway.regions.placement import Placing, placing_of

if TYPE_CHECKING:
    from gateway.request import Request
    from gateway.target import Version

UNKNOWN_OUTPUT_BYTES = 64 * 1024
"""Room for outputs whose shapes do not say how large they get, before the first answer has told."""
KEPT = 256
"""Plans that a version remembers. A camera has one form, a model with an open dimension some dozen."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Where the inputs go in a slot, and which outputs come back."""

    nbytes: int
    """Of all inputs."""
    spans: tuple[tuple[int, int], ...]
    """First byte, and byte behind the last, of each input in the slot; in the request's order."""
    out_offset: int
    """First byte of the slot that outputs may use."""
    wanted: tuple[int, ...]
    """Positions of the wanted outputs among the model's; empty: all."""
    room: int
    """Bytes of the slot that the wanted outputs get ..."""
    exact: bool
    """... which is what they take; where their shapes do not say, it is a guess for the first answer."""
    counts: tuple[int, int]
    """Inputs, wanted outputs."""
    tensors: bytes
    """All that as the link's frames say it."""
    placing: Placing | None = None
    """Which of the tensors lie in regions."""


def plan_of(request: Request, version: Version) -> Plan:
    """The plan for a request that fits the version's signature."""
    spans: list[tuple[int, int]] = []
    places: list[TensorPlace] = []
    offset = total = 0
    for tensor in request.inputs:
        nbytes = tensor.data.nbytes
        index, code = version.input_index[tensor.name], BY_NAME[tensor.datatype].code
        places.append(TensorPlace(index, code, tensor.shape, offset, nbytes))
        spans.append((offset, offset + nbytes))
        offset = aligned(offset + nbytes)
        total += nbytes
    wanted = tuple([version.output_index[name] for name in request.outputs])
    sizes = [version.output_sizes[index] for index in wanted or range(len(version.output_sizes))]
    known = [size for size in sizes if size is not None]
    exact = len(known) == len(sizes)
    room = sum(known) + (0 if exact else UNKNOWN_OUTPUT_BYTES)
    counts = len(spans), len(wanted)
    placing = placing_of(request, version.input_index, version.output_index) if request.regions else None
    return Plan(total, tuple(spans), offset, wanted, room, exact, counts, pack_tensors(places, wanted), placing)
