"""A run under way, and when it is hung."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from msgspec import Struct

from edgeway.frames import Reply, TensorPlace
from gateway.dispatch.memory import Slot
from gateway.regions.placement import Placement

LOAD_LIMIT = 300.0
"""Seconds that a load may take where neither the device config nor the backend says."""
WHILE_LOADING = 10.0
"""Times its limit that a run may go without an answer beside a load: that may hold it up, but not for an hour."""


class Pending(Struct, eq=False):
    """One run under way. The slot is held until ``release``, or until the worker is done with a run that was abandoned.

    ``reply`` resolves once. When the run's time is up it resolves with None, and another future is put in its place for
    a late answer.
    """

    number: int
    reply: asyncio.Future[Reply | None]
    slot: Slot
    since: float
    """When the run was sent."""
    hang_limit: float
    """Seconds without an answer after which the run is hung."""
    placement: Placement | None = None
    """Where tensors of it lie in regions."""
    on_end: Callable[[Reply | None], None] | None = None
    """Called once, with the worker's answer or, when the link ended before it, None: whether or not somebody waits, and
    before whoever waits for ``reply`` goes on.
    """
    expired: bool = False
    """Its time was up before the answer came."""
    ended: bool = False
    """Answered, or the link is gone."""
    given_up: bool = False
    """Nobody waits for it any more."""
    cancelled: float | None = None
    """Since when the worker knows so."""
    held: bool = True
    """The slot is this run's."""
    ran: bool = False
    """An answer said that the run had begun."""

    @property
    def begun(self) -> bool:
        """Whether the worker has begun the run, as far as it has said; also known of a worker that is dead."""
        return self.ran or (self.held and self.slot.begun)

    def delivers(self, place: TensorPlace) -> bool:
        """Whether this output lies in a region, where it fits."""
        return self.placement is not None and self.placement.holds(place.index, place.nbytes)


def hung_for(runs: Iterable[Pending], answered_at: float, now: float, patience: float = 1.0) -> float | None:
    """Seconds for which a run has had no answer, if that is longer than its limit; None while there is progress.

    A run that was cancelled is answered at once by a worker that is alive, unless the chip can't stop. Any other may be
    queued behind others: while those come to an end (at ``answered_at`` the last), the worker is not hung.
    ``patience``: times its limit that each may take.
    """
    for run in runs:
        silent = now - (max(run.since, answered_at) if run.cancelled is None else run.cancelled)
        if silent > run.hang_limit * patience:
            return silent
    return None
