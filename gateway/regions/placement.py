"""Placement: which tensors of one request lie in regions, and who may write its outputs there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from edgeway.frames import Places, RegionPlace, Reply, pack_region_places
from gateway.errors import Shed
from gateway.regions.region import Region, RegionSpan
from gateway.request import OutputTensor, Request


class Placing:
    """Where the tensors of a request lie in regions: the same for all that say so in the same bytes."""

    __slots__ = ("inputs", "outputs", "packed", "regions")

    def __init__(self, inputs: Sequence[tuple[int, RegionSpan]], outputs: Mapping[int, RegionSpan]) -> None:
        """By position among the model's inputs and outputs."""
        self.inputs = inputs
        self.outputs = outputs
        self.packed = pack_region_places(
            Places(
                [_place(index, span) for index, span in inputs],
                [_place(index, span) for index, span in outputs.items()],
            )
        )
        """As the link's frames say it."""
        self.regions = [span.region for _, span in inputs] + [span.region for span in outputs.values()]
        """All that are used, some perhaps twice."""


class Placement:
    """Of one request, for all its attempts.

    All of them share one right to write the outputs, the token: whichever attempt's worker takes it first writes, and
    has won. The gateway takes it when the request is over, so that no late loser writes into memory that the client
    uses for something else by then. It is an eventfd, so that a worker that hangs can't hold that up.
    """

    __slots__ = ("_placing", "packed", "token")

    def __init__(self, placing: Placing) -> None:
        """Raises Shed: there is no descriptor left."""
        self._placing = placing
        self.packed = placing.packed
        self.token: int | None = _token() if placing.outputs else None

    def regions(self) -> list[Region]:
        """All that are used, some perhaps twice."""
        return self._placing.regions

    def span(self, index: int) -> RegionSpan | None:
        """Where an output is wanted in a region."""
        return self._placing.outputs.get(index)

    def take(self) -> bool:
        """Take the right to write the outputs, for a target without a process; False: another has it."""
        if self.token is None:
            return False
        try:
            return bool(os.read(self.token, 8))
        except BlockingIOError:
            return False

    def holds(self, index: int, nbytes: int) -> bool:
        """Whether an output of this size has its place in a region."""
        span = self._placing.outputs.get(index)
        return span is not None and nbytes <= span.nbytes

    def delivered(self, outputs: Sequence[OutputTensor], reply: Reply) -> list[OutputTensor]:
        """The outputs of an answer, those in regions by reference."""
        placed = self._placing.outputs
        if not placed:
            return list(outputs)
        told = []
        for output, place in zip(outputs, reply.outputs, strict=True):
            span = placed.get(place.index)
            if span is not None:
                output = replace(output, data=RegionSpan(span.region, span.offset, place.nbytes))
            told.append(output)
        return told

    def renew(self) -> None:
        """Another attempt begins when all before it are over: one of them may have died with the token."""
        if self.token is not None:
            self.close()
            self.token = _token()

    def close(self) -> None:
        """From now on nobody begins to write outputs."""
        if self.token is not None:
            token, self.token = self.token, None
            with contextlib.suppress(BlockingIOError):  # a worker has it: the one that answered
                os.read(token, 8)
            os.close(token)


def placing_of(request: Request, input_index: Mapping[str, int], output_index: Mapping[str, int]) -> Placing | None:
    """None for a request that has nothing to do with regions."""
    inputs = [(input_index[each.name], each.data) for each in request.inputs if isinstance(each.data, RegionSpan)]
    if not inputs and not request.into:
        return None
    return Placing(inputs, {output_index[name]: span for name, span in request.into.items()})


def _place(index: int, span: RegionSpan) -> RegionPlace:
    return RegionPlace(index, span.region.number, span.offset, span.nbytes)


def _token() -> int:
    """Raises Shed: there is no descriptor left."""
    try:
        return os.eventfd(1, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    except OSError as failed:
        raise Shed(f"no descriptor is left for the outputs: {failed.strerror}") from failed
