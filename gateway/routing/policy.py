"""The policy that ranks: which targets, in which order, and why the better ones were passed over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from msgspec import Struct

RESERVED_SHARE = 0.1
"""Of the whole budget: kept for the next attempt beyond its p95 ..."""
LEAST_RESERVED = 0.004
MOST_RESERVED_SHARE = 0.2
"""... but 4 ms, as far as that is no more than a fifth. A p95 of 2 ms says nothing of a core that is busy for some
milliseconds just when the next target should begin: on two busy cores, that is the usual measure of such a delay."""


class Candidate(NamedTuple):
    """One target as it looks to one request: all that ranking may know. Times in seconds."""

    name: str
    usable: bool
    """Loaded, and its worker is there."""
    shut: str
    """Why others come first, whatever its times: ``hot slow failed lost busy``, ``memory``, ``barred``; empty: they
    don't."""
    run: float | None
    """p95 of its run, with the spread of the runs that wait before it; None: never measured."""
    fastest: float | None
    """What it can do at its best: a budget below that is hopeless, whatever the present estimate is worth. Only
    looked at where the estimate may be of another time.
    """
    wait: float
    """Until a run that came now would begin."""
    unproven: bool = False
    """Its estimate or its ejection is of a time that may be over: it wants one request as a probe."""


class Ranking(Struct, frozen=True, gc=False):
    """Positions of the usable targets, best first. ``skipped``: name of each target passed over -> the word for why."""

    order: tuple[int, ...]
    skipped: dict[str, str]
    feasible: bool
    """Whether one of them should answer in time."""
    soonest: float | None
    """Seconds from now at which the soonest usable target should have answered; None where nobody knows."""
    probe: int | None = None
    """A better target that gets this request too, beside the one that serves it."""


@dataclass(frozen=True, slots=True)
class PreferredInTime:
    """Targets that should answer in time, in the manifest's order; then the rest, soonest first.

    A target that is shut comes behind those that are not, but stays in the list: the last usable one is never out.
    """

    margin: float = 0.001
    """Seconds of the budget kept back for encoding the reply."""

    def rank(self, candidates: Sequence[Candidate], remaining: float, degrade: str) -> Ranking:
        """Order the targets of one version.

        Args:
            candidates: in the manifest's order.
            remaining: seconds of the request's budget.
            degrade: ``never``: only the first target may serve; ``allow``: any.
        """
        spendable = remaining - self.margin
        skipped: dict[str, str] = {}
        keyed: list[tuple[bool, bool, float, int]] = []
        soonest: float | None = None
        feasible = False
        probe: int | None = None
        for position, each in enumerate(candidates if degrade == "allow" else candidates[:1]):
            name, usable, shut, run, fastest, wait, unproven = each  # a third quicker than seven attributes
            if not usable:
                skipped[name] = shut or "lost"
                continue
            expected = wait + (run or 0.0)
            late = expected > spendable
            if run is not None and (soonest is None or expected < soonest):
                soonest = expected
            if shut:
                skipped[name] = shut
            elif late:
                skipped[name] = "busy" if wait > min(spendable, 0.5 * expected) else "slow"
            if not late:
                feasible = True
            if unproven:
                # Where only an old estimate says no, somebody has to find out: else all would be refused for ever.
                feasible |= late and wait + (fastest or 0.0) <= spendable
                if probe is None and wait <= spendable:
                    probe = position
            keyed.append((late, bool(shut), expected if late else float(position), position))
        if len(keyed) > 1:
            keyed.sort()
        order = tuple([key[3] for key in keyed])  # a generator would take twice as long
        if order:
            skipped.pop(candidates[order[0]].name, None)
            if probe is not None and probe >= order[0]:
                probe = None  # it serves by itself, or would only be worse
        return Ranking(order, skipped, feasible, soonest, probe)


def attempt_time(
    remaining: float,
    total: float,
    own: float | None,
    following_wait: float,
    following_run: float | None,
    margin: float,
) -> float:
    """Seconds that an attempt may take so that the next target can still answer.

    ``remaining - reserve``, the reserve being the next target's wait and p95, the margin, and a share of the budget for
    the delays of a loaded machine. Where the next target can't be in time after this one, half of what is left, or
    half as much again as this target's p95: one that is cut short in its usual time would never answer at all.

    Args:
        remaining: seconds of the budget, > 0.
        total: seconds that the budget had at first.
        own: p95 of this target's runs; None: unknown.
        following_wait: seconds until the next target could begin.
        following_run: p95 of its runs; None: unknown.
        margin: seconds kept back for the reply.
    """
    if own is None or following_run is None:
        return remaining / 2
    limit = remaining - slack(total) - (following_wait + following_run + margin)
    if limit >= own:
        return limit
    patience = max(remaining / 2, 1.5 * own if own <= remaining - margin else 0.0)
    return min(max(limit, patience), remaining)


def slack(total: float) -> float:
    """Seconds of a budget of ``total`` seconds that are kept for the delays of a loaded machine."""
    return max(RESERVED_SHARE * total, min(LEAST_RESERVED, MOST_RESERVED_SHARE * total))


def may_hedge(hedged: int, walking: int, share: float, floor: int) -> bool:
    """Whether one more request may be started twice while its first target is believed healthy.

    Args:
        hedged: requests that are.
        walking: requests in dispatch.
        share: 0 to 1, of ``walking``.
        floor: allowed whatever the share says.

    Source: the retry budget of Envoy's circuit breakers (share of the active requests, with a floor).
    """
    return hedged < max(floor, share * walking)
