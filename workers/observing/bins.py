"""Sorting of a feature's values into few bins, made of the values in the reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping

import numpy as np


@dataclass(frozen=True)
class Quantiles:
    """Numbers: bins that are equally full in the reference, and a last one for what is not finite."""

    edges: np.ndarray
    """Rising; a value is in the bin of as many edges as it has reached."""

    @classmethod
    def of(cls, values: np.ndarray, bins: int) -> Quantiles:
        """A value that fills a whole bin alone gets one of its own, so that both sides of it are seen."""
        finite = values[np.isfinite(values)]
        if not finite.size:
            return cls(np.empty(0))
        inner = np.arange(1, max(2, bins)) / max(2, bins)
        edges, times = np.unique(np.quantile(finite, inner), return_counts=True)
        alone = edges[times > 1] if len(inner) > 1 else edges
        return cls(np.unique(np.concatenate([edges, np.nextafter(alone, np.inf)])))

    @property
    def count(self) -> int:
        return len(self.edges) + 2

    def sort(self, values: np.ndarray) -> np.ndarray:
        """The bin of each value."""
        index = np.searchsorted(self.edges, values, side="right")
        return np.where(np.isfinite(values), index, len(self.edges) + 1)


@dataclass(frozen=True)
class Frequent:
    """Classes: a bin for each that is frequent in the reference, and a last one for the others."""

    places: Mapping[Any, int]

    @classmethod
    def of(cls, values: np.ndarray, bins: int) -> Frequent:
        """Frequent: at least half of what an equal share of the bins would be. Others come too seldom to be told from
        chance one by one.
        """
        found, times = np.unique(values.reshape(-1), return_counts=True)
        least = values.size / max(2, bins) / 2
        order = np.argsort(-times, kind="stable")[: max(2, bins)]
        return cls({found[at]: place for place, at in enumerate(at for at in order if times[at] >= least)})

    @property
    def count(self) -> int:
        return len(self.places) + 1

    def sort(self, values: np.ndarray) -> np.ndarray:
        """The bin of each value."""
        rest = len(self.places)
        flat = [self.places.get(value, rest) for value in values.reshape(-1).tolist()]
        return np.array(flat, np.intp).reshape(values.shape)
