"""Significance that may be looked at after every observation: the more often, the earlier it is seen, and no less true.

A test of fixed size is wrong ever more often, the more often one looks. An e-process is not: a number that under the
null hypothesis exceeds 1 / alpha *at any time ever* with probability at most alpha.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, inf, lgamma, log, pi

ALPHA = 0.01
"""Probability that a rule ever speaks against a version that keeps it. A device may judge a hundred versions in its
life, and a roll-back that nobody can explain costs more than a few more requests."""


def below(share: float, hits: int, total: int, alpha: float = ALPHA) -> bool:
    """Whether the true share of hits is less than ``share``, as the upper bound of what was seen is.

    Asked again after every observation, it is ever wrong with probability at most ``alpha``. Asked of a window that
    slides, it is wrong as seldom per window full.

    Source: Robbins, "Statistical methods related to the law of the iterated logarithm", Ann. Math. Stat. 41 (1970); the
    beta-binomial mixture in Howard, Ramdas, McAuliffe, Sekhon, Ann. Stat. 49 (2021), prop. 7.
    """
    return total > 0 and hits < share * total and _against(share, hits, total - hits) >= -log(alpha)


def above(share: float, hits: int, total: int, alpha: float = ALPHA) -> bool:
    """Whether the true share of hits is more than ``share``."""
    return below(1.0 - share, total - hits, total, alpha)


def bounds(hits: int, total: int, alpha: float = ALPHA) -> tuple[float, float]:
    """Lower and upper end, 0 to 1, of the share of hits: both hold at all times, but for probability ``alpha``."""
    if not total:
        return 0.0, 1.0
    return 1.0 - _upper(total - hits, total, alpha), _upper(hits, total, alpha)


@dataclass(slots=True)
class Comparison:
    """Two streams of hits and misses, in any order and proportion: is one's share of hits other than the other's?

    E is the probability of all that was seen if each stream has a share of its own (each mixed over all shares with
    Jeffreys' prior), over its probability if both have the same one, whichever fits best. The mixture is fixed before
    the first observation and the best fit is no worse than the true share, so E is an e-process. Constant time and
    memory per observation.

    Source: Wasserman, Ramdas, Balakrishnan, "Universal inference", PNAS 117 (2020), section 8; the mixture is that of
    Krichevsky and Trofimov, IEEE Trans. Inf. Theory 27 (1981). (The safe tests of Turner, Ly and Gruenwald take the
    streams in blocks of fixed proportions, which a split that changes does not give.)
    """

    hits: int = 0
    total: int = 0
    other_hits: int = 0
    other_total: int = 0
    _most: float = 0.0
    """Largest logarithm of E so far, or 0."""

    def add(self, hit: bool) -> None:
        """One observation of the first stream."""
        self.total += 1
        self.hits += hit
        self._weigh()

    def add_other(self, hit: bool) -> None:
        """One observation of the second stream."""
        self.other_total += 1
        self.other_hits += hit
        self._weigh()

    def _weigh(self) -> None:
        hits, total = self.hits + self.other_hits, self.total + self.other_total
        if not 0 < hits < total:
            return  # one share explains it all
        same = hits * log(hits / total) + (total - hits) * log(1.0 - hits / total)
        apart = _mixed(self.hits, self.total - self.hits)
        apart += _mixed(self.other_hits, self.other_total - self.other_hits)
        self._most = max(self._most, apart - same)

    @property
    def p(self) -> float:
        """The p value, valid whenever it is looked at: 1 over the largest E so far."""
        return exp(-self._most)

    @property
    def rate(self) -> float | None:
        """Share of hits in the first stream, 0 to 1; None: nothing was seen."""
        return self.hits / self.total if self.total else None

    @property
    def other_rate(self) -> float | None:
        return self.other_hits / self.other_total if self.other_total else None

    def more(self, alpha: float = ALPHA) -> bool:
        """Whether the first stream has more hits than the second, beyond chance."""
        return self.p <= alpha and self.hits * self.other_total > self.other_hits * self.total

    def fewer(self, alpha: float = ALPHA) -> bool:
        """Whether it has fewer."""
        return self.p <= alpha and self.hits * self.other_total < self.other_hits * self.total


def _mixed(hits: int, misses: int) -> float:
    """Logarithm of the probability of one such sequence, the share being mixed with Beta(1/2, 1/2)."""
    return lgamma(hits + 0.5) + lgamma(misses + 0.5) - lgamma(hits + misses + 1.0) - _LOG_PI


_LOG_PI = log(pi)


def _against(share: float, hits: int, misses: int) -> float:
    """Logarithm of the e-value against the share."""
    known = (hits * log(share) if share > 0 else -inf) if hits else 0.0
    known += (misses * log(1.0 - share) if share < 1 else -inf) if misses else 0.0
    return _mixed(hits, misses) - known


def _upper(hits: int, total: int, alpha: float) -> float:
    """The smallest share that is ruled out from below, by halving: the evidence grows with the share above the rate."""
    low, high = hits / total, 1.0
    if low == 1.0:
        return 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if below(middle, hits, total, alpha) else (middle, high)
    return high
