"""Places: a hundred of them in a ring, each held by a version; its share is how many it holds."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

PLACES = 100
"""One for each percent, so that shares are exact."""
STRIDE = 61
"""Places from one decision to the next. Coprime to 100, so that a hundred in a row meet every place once; near the
golden ratio, so that a version with neighbouring places meets requests at even distances."""


def place_of(key: str) -> int:
    """The place of a route key: the same in every process, and after every restart."""
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") % PLACES


def in_turn(places: Sequence[str]) -> tuple[str, ...]:
    """The holders in the order in which decisions take the places."""
    return tuple(places[turn * STRIDE % PLACES] for turn in range(len(places)))


def reassign(places: Sequence[str], shares: Sequence[tuple[str, int]]) -> tuple[str, ...]:
    """Places held as ``shares`` say, with as few as possible changing hands.

    A version that has too many gives up as many as are too many, one that has too few takes as many as are missing, and
    no other place is touched: that is half of the sum of the differences, and fewer cannot do. What a version takes is
    as near as can be to what it holds.

    Args:
        places: who holds each so far; empty: nobody does.
        shares: (version, percent), summing to 100, or empty.

    Returns:
        the holder of each place, empty without shares. Asked again with the same shares, it is the same.

    Raises:
        ValueError: the shares do not sum to 100, or there are not a hundred places.
    """
    wanted = {version: percent for version, percent in shares if percent > 0}
    if not wanted:
        return ()
    if sum(wanted.values()) != PLACES:
        raise ValueError(f"the shares must sum to 100, got {dict(shares)}")
    if places and len(places) != PLACES:
        raise ValueError(f"there must be 100 places, got {len(places)}")
    if len(wanted) == 1:  # as most are; each place taken one by one is 3 ms in which the gateway does nothing else
        return tuple(wanted) * PLACES
    held = list(places) or [_NOBODY] * PLACES
    counts = Counter(held)
    spare = Counter({holder: count - wanted.get(holder, 0) for holder, count in counts.items()})
    for version, percent in wanted.items():
        missing = percent - counts[version]
        if missing <= 0:
            continue
        away = [PLACES] * PLACES
        """Of each place: how far the nearest one is that this version holds."""
        for own in (place for place in _RING if held[place] == version):
            away = _nearer(away, own)
        for _ in range(missing):
            taken = min((place for place in _RING if spare[held[place]] > 0), key=away.__getitem__)
            spare[held[taken]] -= 1
            held[taken] = version
            away = _nearer(away, taken)
    return tuple(held)


_RING = range(PLACES)
_NOBODY = ""
"""No version is called so."""


def _nearer(away: Sequence[int], own: int) -> list[int]:
    """The distances when ``own`` is held too; whichever way round is shorter counts."""
    half = PLACES // 2
    return [min(known, half - abs(abs(place - own) - half)) for place, known in enumerate(away)]
