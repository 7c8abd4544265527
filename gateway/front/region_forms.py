"""Tensors in regions, as a request names them: the parameters ``shared_memory_*`` of inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from edgeway import parameters as names
from gateway.errors import InvalidRequest, NotOffered
from gateway.regions.region import MAX_INT


class RegionForm(NamedTuple):
    """A place in a region that nobody has looked for yet."""

    region: str
    offset: int
    """Bytes from the beginning of the region."""
    nbytes: int


def region_form(which: str, given: Mapping[str, Any]) -> RegionForm | None:
    """Where a tensor lies; None: in the message.

    Args:
        which: the tensor, for messages.
        given: its parameters as plain values.

    Raises:
        InvalidRequest: they contradict the protocol.
        NotOffered: one that we don't know.
    """
    about = {key: value for key, value in given.items() if key.startswith(names.SHARED_MEMORY)}
    if not about:
        return None
    region, nbytes = about.pop(names.REGION, None), about.pop(names.REGION_BYTES, None)
    offset = about.pop(names.REGION_OFFSET, 0)
    if about:
        raise NotOffered(f"{which}: parameter {min(about)} is not offered")
    if not isinstance(region, str) or not region:
        raise InvalidRequest(f"{which}: expected {names.REGION} to name a region, got {region!r:.80}")
    if not _is_size(nbytes):
        raise InvalidRequest(f"{which}: expected {names.REGION_BYTES} as int64 >= 0, got {nbytes!r:.80}")
    if not _is_size(offset):
        raise InvalidRequest(f"{which}: expected {names.REGION_OFFSET} as int64 >= 0, got {offset!r:.80}")
    return RegionForm(region, offset, nbytes)


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_INT
