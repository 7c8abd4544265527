"""Features: the few numbers of an answer whose distribution is watched.

They must mean something for any model. Scores of classes (rows of 2 values or more along the last axis) have the
margin between the two largest, which shrinks where the model is unsure, and the class on top. A single whole number or
text is a class itself. Everything else has its mean and its tenth and ninetieth percentile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping, Union

import numpy as np

MOST_ROWS = 64
"""A tensor of more rows is a picture, not scores."""
LOOKED_AT = 16
"""Rows of one answer: they are alike, and a window is to hold many answers."""
MOST_VALUES = 65_536
"""Values of one answer that its percentiles are taken of."""
MOST_CLASSES = 100
"""A whole number of more different values is a quantity."""


class NoFeatures(ValueError):
    """This output has no distribution that could be watched; the message says why."""


@dataclass(frozen=True)
class Scores:
    """Margin and top class of each row."""

    def of(self, batch: np.ndarray) -> Mapping[str, np.ndarray]:
        """(n, ..., classes) -> each feature as (n, rows)."""
        if batch.ndim < 2 or batch.shape[-1] < 2 or batch.dtype.kind not in "iuf":
            raise NoFeatures(f"{list(batch.shape[1:])} is no scores of classes")
        rows = batch.reshape(len(batch), -1, batch.shape[-1])
        rows = rows[:, :: -(-rows.shape[1] // LOOKED_AT) or 1].astype(np.float64)
        two = np.partition(rows, -2, axis=-1)[..., -2:]
        with np.errstate(invalid="ignore", over="ignore"):
            return {"margin": two[..., 1] - two[..., 0], "class": rows.argmax(-1)}


@dataclass(frozen=True)
class Class:
    """The one element, which names a class."""

    def of(self, batch: np.ndarray) -> Mapping[str, np.ndarray]:
        """(n, ...) -> (n, elements)."""
        if batch.dtype.kind == "U":
            batch = np.char.encode(batch, "utf-8")  # as text travels
        return {"class": batch.reshape(len(batch), -1)[:, :LOOKED_AT]}


@dataclass(frozen=True)
class Values:
    """The mean of all values, and their percentiles where there are several."""

    several: bool

    def of(self, batch: np.ndarray) -> Mapping[str, np.ndarray]:
        """(n, ...) -> each feature as (n, 1)."""
        if batch.dtype.kind not in "biuf":
            raise NoFeatures("text of several elements has no numbers")
        flat = batch.reshape(len(batch), -1)
        flat = flat[:, :: -(-flat.shape[1] // MOST_VALUES) or 1].astype(np.float64)
        if not flat.shape[1]:
            raise NoFeatures("it has no values")
        with np.errstate(invalid="ignore", over="ignore"):
            mean = flat.mean(1, keepdims=True)
            if not self.several:
                return {"mean": mean}
            low, high = np.quantile(flat, (0.1, 0.9), axis=1, keepdims=True)
            return {"mean": mean, "low": low[0], "high": high[0]}


Form = Union[Scores, Class, Values]


def form_of(reference: np.ndarray) -> Form:
    """The form that fits an output, by its reference of shape (samples, ...). Raises NoFeatures."""
    if not reference.ndim or not reference.size:
        raise NoFeatures("the reference is empty")
    elements = reference.size // len(reference)
    if elements == 1 and reference.dtype.kind in "biuOSU":
        many = reference.dtype.kind in "iu" and len(np.unique(reference)) > MOST_CLASSES
        return Values(several=False) if many else Class()
    classes = reference.shape[-1] if reference.ndim > 1 and reference.dtype.kind in "iuf" else 1
    if classes >= 2 and elements // classes <= MOST_ROWS:
        return Scores()
    if reference.dtype.kind not in "biuf":
        raise NoFeatures("text of several elements has no numbers")
    return Values(several=elements > 1)
