"""Samples: what one request says of the version that it was routed to, device events told apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

from msgspec import Struct

from gateway.errors import Code
from gateway.request import Outcome

DEVICE = frozenset({"hot", "lost", "memory"})
"""Reasons for which another target than the first one serves, that are the device's."""

Ending = Literal["ok", "failed", "other"]


class Sample(Struct, frozen=True, gc=False):
    """What one request, or one of its attempts, says of a version. Times are seconds."""

    version: str
    at: float
    """Monotonic, when it ended."""
    outcome: Ending = "other"
    """``failed``: it counts against the model. ``other``: it says nothing of errors (a refusal, a lost worker, an
    attempt that another one made up for)."""
    worker: str = ""
    run: float | None = None
    """By the worker's clock; None: there is no run that is worth comparing."""
    felt: float | None = None
    """From the start of the attempt to its end, so with the wait for an instance."""
    expired: bool = False
    """It was given up when its time was over, so all that is known is that it took no less than ``felt``."""
    clean: bool = True
    """No device event had to do with it: its worker was neither hot, throttled nor lost, and it was not there because
    another one was."""


def samples_of(outcome: Outcome, troubled: Callable[[str], bool]) -> Iterator[Sample]:
    """The request itself, and its attempts that ended otherwise.

    A run that answered several requests together says nothing of how long one takes, and how many share one depends on
    the version's share: it is left out.

    Args:
        outcome: of a request that was routed to a version.
        troubled: whether a device event holds for the worker of that name now: hot, throttled, lost, starting.
    """
    version, ended, served = outcome.version, outcome.finished, outcome.served
    for attempt in outcome.attempts:
        if attempt is served or not attempt.ended:
            continue
        if attempt.reason == "lost":
            yield Sample(version, attempt.ended, worker=attempt.target, clean=False)
        elif attempt.reason == "slow":
            felt, clean = attempt.ended - attempt.started, not troubled(attempt.target)
            yield Sample(version, attempt.ended, worker=attempt.target, felt=felt, expired=True, clean=clean)
    if outcome.code is Code.OK and served is not None:
        run = served.run_ended - served.run_started if served.shared == 1 else None
        clean = outcome.reason not in DEVICE and not troubled(served.target)
        yield Sample(version, served.ended, "ok", served.target, run, served.ended - served.started, clean=clean)
    else:
        yield Sample(version, ended, "failed" if outcome.counts_against_model else "other")
