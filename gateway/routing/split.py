"""The split: which version serves a request that pins none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from gateway.routing.places import PLACES, in_turn, place_of, reassign

_LAST = PLACES - 1


@dataclass(slots=True)
class Split:
    """Weighted round robin over versions, exact in every hundred decisions in a row; or by hash of a key.

    A hundred places are each held by a version. Decisions take them in turn, so any hundred in a row meet each place
    once; a key always has the same place, and takes no turn. ``shares``: (version, percent), summing to 100; empty
    where nothing is ready.
    """

    shares: Sequence[tuple[str, int]]
    places: tuple[str, ...] = ()
    """Who holds each. Given: those so far, of which as few as possible change hands."""
    sticky: bool = True
    """Whether keys count; else requests with a key take turns like others."""
    turn: int = field(default=0, repr=False)
    """Of the next decision, 0 to 99."""
    _turns: tuple[str, ...] = field(init=False, repr=False)
    _sole: str | None = field(init=False, repr=False)
    """The version that has all: asked for more often than anything else."""

    def __post_init__(self) -> None:
        self.places = reassign(self.places, self.shares)
        self._turns = in_turn(self.places)
        self._sole = self.places[0] if len(set(self.places)) == 1 else None

    @classmethod
    def continuing(
        cls, before: Split | None, shares: Sequence[tuple[str, int]], places: Sequence[str] = (), sticky: bool = True
    ) -> Split:
        """The split from now on, going on where the one before it is.

        While the shares stay, so does the order of decisions. A hundred in a row across a change hold of each version
        no less than the smaller and no more than the larger of its two shares, as its places only grow or only shrink.

        Args:
            before: the one in force; None: there is none yet.
            shares: as for the class.
            places: those that were stored, where they are: while a version is only away for a while (it loads again
                after a restart), its keys are guests of others and come back to it. Empty: those before.
            sticky: as for the class.
        """
        if before is None:
            return cls(shares, tuple(places), sticky)
        return cls(shares, tuple(places) or before.places, sticky, before.turn)

    def choose(self, key: str | None = None) -> str | None:
        """The version for the next request; the same one for the same key as long as its place stays."""
        if self._sole is not None or not self._turns:
            return self._sole
        if key is not None and self.sticky:
            return self.places[place_of(key)]
        turn = self.turn
        self.turn = turn + 1 if turn < _LAST else 0
        return self._turns[turn]


def shares_of(ready: Sequence[tuple[str, int | None]]) -> list[tuple[str, int]]:
    """Shares that sum to 100, from the ready versions, oldest first, each with its declared percent or None.

    The newest version without a percent takes all that is left; a sole version serves all. Where every version has a
    percent and they sum to less, the newest with any takes the rest too.
    """
    if not ready:
        return []
    if len(ready) == 1:
        return [(ready[0][0], 100)]
    declared = [(version, percent) for version, percent in ready if percent]
    rest = 100 - sum(percent for _, percent in declared)
    heirs = [version for version, percent in ready if percent is None] or [version for version, _ in declared]
    heir = heirs[-1] if heirs else ready[-1][0]
    shares = dict(declared)
    if rest > 0:
        shares[heir] = shares.get(heir, 0) + rest
    return list(shares.items())
