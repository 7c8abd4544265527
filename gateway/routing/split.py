"""The split: which version serves a request that pins none."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

_STRIDE = 61
"""Coprime to 100, so that a hundred decisions in a row meet every residue once: shares are exact, yet interleaved."""


@dataclass(slots=True)
class Split:
    """Weighted round robin over versions, exact in every hundred decisions in a row; or by hash of a key.

    ``shares``: (version, percent), summing to 100; empty where nothing is ready.
    """

    shares: Sequence[tuple[str, int]]
    _decisions: int = field(default=0, repr=False)

    def choose(self, key: str | None = None) -> str | None:
        """The version for the next request; the same one for the same key as long as the shares stay."""
        if len(self.shares) == 1:
            return self.shares[0][0]
        if key is not None:
            place = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little") % 100
        else:
            place = self._decisions * _STRIDE % 100
            self._decisions += 1
        for version, percent in self.shares:
            if place < percent:
                return version
            place -= percent
        return None


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
