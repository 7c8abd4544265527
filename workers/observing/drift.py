"""Drift: how far the newest answers of a version are from its reference, and when that is an alarm. Pure.

The score of a feature is a population stability index, the symmetrical Kullback-Leibler divergence between the shares
of its bins; that of a version is the highest of its features. Two samples of one distribution already differ by about
``(bins - 1) * (1/n + 1/m)``, and whatever is counted is uncertain. So the score is what is beyond doubt: the index,
less the bias, less ``SURE`` standard errors. Small windows need a clearer drift; their scores mean the same.

Sources: B. Yurdakul and J. Naranjo, "Statistical properties of the population stability index", Journal of Risk Model
Validation 14 (2020), for bias and variance where there is no drift: ``psi / (1/n + 1/m)`` is distributed as chi-square
with ``bins - 1`` degrees of freedom. Where there is one: the delta method on multinomial shares.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Deque, Dict, List, Optional, Sequence, Tuple, Union

import numpy as np

from workers.observing.bins import Frequent, Quantiles
from workers.observing.features import Form, NoFeatures, form_of

LEAST_SAMPLES = 200
"""Of a reference; fewer say too little of how seldom things are."""
SURE = 3.0
"""Standard errors that are taken off: of windows with a drift of some height, 1 in 700 has a score beyond it. Ten times
a window there is a new chance, and a reference is never quite like what comes: with 2.3 the highest score of 120,000
windows of digits written by others was 0.17, with 3.0 it was 0.10."""
PER_BIN = 25
"""Answers of a window per bin, at least; up to ``MOST_BINS``."""
MOST_BINS = 10
STEPS = 10
"""Scores are computed so often per window."""


class NoReference(ValueError):
    """What was given can't be a reference; the message says why."""


@dataclass(frozen=True)
class Score:
    """``detail``: which feature has it."""

    value: float
    alarm: bool
    detail: str


@dataclass(frozen=True)
class Expected:
    """A feature in the reference: its binning, and how many values are in each bin."""

    binning: Union[Quantiles, Frequent]
    counts: np.ndarray


class Reference:
    """An output as it is without drift."""

    def __init__(self, outputs: np.ndarray, window: int) -> None:
        """``outputs``: (samples, ...), what the model gives for inputs that it was not trained on; ``window``: answers
        that they will be compared with. Raises NoReference, NoFeatures.
        """
        if outputs.ndim == 0 or len(outputs) < LEAST_SAMPLES:
            found = len(outputs) if outputs.ndim else 1
            raise NoReference(f"at least {LEAST_SAMPLES} samples are needed, there are {found}")
        self.samples = len(outputs)
        self.form: Form = form_of(outputs)
        bins = max(3, min(MOST_BINS, window // PER_BIN))
        self.features: Dict[str, Expected] = {}
        for name, values in self.form.of(outputs).items():
            binning = (Quantiles if values.dtype.kind == "f" else Frequent).of(values, bins)
            counts = np.bincount(binning.sort(values).reshape(-1), minlength=binning.count)
            self.features[name] = Expected(binning, counts)

    def sort(self, batch: np.ndarray) -> List[Tuple[List[int], ...]]:
        """For each of the (n, ...) answers: the bins of its rows, for each feature. One that does not have the
        reference's form is not a number in every feature: that too is a drift.
        """
        try:
            values = self.form.of(batch)
        except NoFeatures:
            return [tuple([feature.binning.count - 1] for feature in self.features.values())] * len(batch)
        columns = [feature.binning.sort(values[name]).tolist() for name, feature in self.features.items()]
        return list(zip(*columns))

    def score(self, counts: Sequence[np.ndarray], answers: int, limit: Optional[float]) -> Score:
        """Of a window with so many ``answers``, whose rows are counted by bin for each feature; above ``limit`` it is
        an alarm. Rows of one answer are not independent, so answers are what counts.
        """
        best, what = -1.0, ""
        for (name, expected), found in zip(self.features.items(), counts):
            value = surely(expected.counts, found, self.samples, answers)
            if value > best:
                best, what = value, name
        alarm = limit is not None and best > limit
        return Score(best, alarm, f"{what} of {answers} answers against {self.samples} of the reference")


def surely(expected: np.ndarray, found: np.ndarray, samples: int, answers: int) -> float:
    """What of the stability index of two histograms is beyond doubt, at least 0. They were counted of so many samples
    and answers. Bins that are empty in both are none; half a value more in each of the others keeps it finite.
    """
    from scipy.special import rel_entr

    used = (expected + found) > 0
    freedom = int(used.sum()) - 1
    if freedom < 1:
        return 0.0
    p, q = expected[used] + 0.5, found[used] + 0.5
    p, q = p / p.sum(), q / q.sum()
    index = float((rel_entr(p, q) + rel_entr(q, p)).sum())
    noise = 1.0 / samples + 1.0 / answers
    variance = 2.0 * freedom * noise**2 + _variance(p, q) / samples + _variance(q, p) / answers
    return max(0.0, index - freedom * noise - SURE * float(np.sqrt(variance)))


def _variance(p: np.ndarray, q: np.ndarray) -> float:
    """Of the index, times the values that ``p`` was counted of: that of its gradient by ``p``."""
    slope = np.log(p / q) + 1.0 - q / p
    return float((p * slope**2).sum() - (p * slope).sum() ** 2)


class DriftWatch:
    """The newest answers of a version, and their score, which is computed anew ten times per window."""

    def __init__(self, reference: Reference, window: int, limit: Optional[float]) -> None:
        self.reference = reference
        self.score: Optional[Score] = None
        """None until the first window is full."""
        self._window = window
        self._limit = limit
        self._step = max(1, window // STEPS)
        self._due = window
        self._newest: Deque[Tuple[List[int], ...]] = deque()
        self._counts = [[0] * feature.binning.count for feature in reference.features.values()]

    @property
    def answers(self) -> int:
        """That are in the window now."""
        return len(self._newest)

    def add(self, bins: Tuple[List[int], ...]) -> bool:
        """One answer, as ``Reference.sort`` has it. True: the score is a new one."""
        self._count(bins, 1)
        self._newest.append(bins)
        if len(self._newest) > self._window:
            self._count(self._newest.popleft(), -1)
        self._due -= 1
        if self._due:
            return False
        self._due = self._step
        self.score = self.reference.score([np.array(c) for c in self._counts], len(self._newest), self._limit)
        return True

    def _count(self, bins: Tuple[List[int], ...], by: int) -> None:
        for counts, rows in zip(self._counts, bins):
            for at in rows:
                counts[at] += by
