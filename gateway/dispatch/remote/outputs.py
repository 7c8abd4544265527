"""Outputs of a remote answer, into memory that clients share."""

from __future__ import annotations

import os
from collections.abc import Sequence

from edgeway.frames import TensorPlace
from gateway.regions.placement import Placement
from gateway.regions.region import RegionSpan
from gateway.remote.messages import BadAnswer


def written(placement: Placement, view: memoryview, places: Sequence[TensorPlace]) -> bool:
    """Write outputs into the client's memory, where the request wants them there; False: another attempt has.

    Raises:
        BadAnswer: an output does not fit.
    """
    spans: list[tuple[TensorPlace, RegionSpan]] = []
    for place in places:
        span = placement.span(place.index)
        if span is not None:
            if place.nbytes > span.nbytes:
                raise BadAnswer(f"output {place.index} has {place.nbytes} bytes, its region {span.nbytes}")
            spans.append((place, span))
    if not spans:
        return True
    if not placement.take():
        return False
    for place, span in spans:
        os.pwrite(span.region.fd, view[place.offset : place.offset + place.nbytes], span.offset)
    return True
