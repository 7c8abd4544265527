"""How alike two answers are: the rules of a manifest's ``tolerance``, ``top1`` and ``cosine``, and one for no rule."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import List, Optional

import numpy as np

ALIKE = 0.25
"""Where no rule is given: largest distance of floats from the expected ones, as a share of the length of these. FP32
and INT8 of one network differ by 0.01 to 0.1 in what they are sure of; another scale, sign or order by more."""


@dataclass(frozen=True)
class Rule:
    """At most one of them, as in the manifest; none: the same top class in each row, and floats not far apart."""

    rtol: Optional[float] = None
    """With ``atol``: each value must be within ``atol + rtol * |expected|``."""
    atol: float = 0.0
    top1: Optional[float] = None
    """Least share of rows with the same largest value."""
    cosine: Optional[float] = None
    """Least cosine of the angle between both, each taken as one vector."""


def agree(rule: Rule, expected: np.ndarray, found: np.ndarray) -> bool:
    """Whether one output agrees with what is expected of it. Both as ``edgeway.tensors.to_array`` gives them; a NaN
    agrees with a NaN, and what is no number with its equal.
    """
    if expected.shape != found.shape or expected.dtype.kind != found.dtype.kind:
        return False
    if expected.dtype.kind not in "biuf":
        return bool(np.array_equal(expected, found))
    if rule.rtol is not None:
        return excess(expected, found, rule.rtol, rule.atol) <= 0.0
    if rule.top1 is not None:
        return top1(expected, found) >= rule.top1
    if rule.cosine is not None:
        return cosine(expected, found) >= rule.cosine
    if expected.dtype.kind != "f":
        return bool(np.array_equal(expected, found))
    return top1(expected, found) == 1.0 and distance(expected, found) <= ALIKE


def excess(expected: np.ndarray, found: np.ndarray, rtol: float, atol: float) -> float:
    """By how much the worst value is beyond its tolerance; at most 0: none is. Infinite where only one is a number."""
    expected, found = expected.astype(np.float64), found.astype(np.float64)
    with np.errstate(invalid="ignore"):
        beyond = np.abs(found - expected) - (atol + rtol * np.abs(expected))
    same = (expected == found) | (np.isnan(expected) & np.isnan(found))
    beyond = np.where(same, -atol, np.where(np.isfinite(expected) & np.isfinite(found), beyond, np.inf))
    return float(beyond.max()) if beyond.size else 0.0


def top1(expected: np.ndarray, found: np.ndarray) -> float:
    """Share of rows (along the last axis) whose largest value is in the same place; 1 where rows have but one value."""
    if not expected.size or not expected.ndim or expected.shape[-1] < 2:
        return 1.0
    return float((expected.argmax(-1) == found.argmax(-1)).mean())


def cosine(expected: np.ndarray, found: np.ndarray) -> float:
    """-1 to 1; two vectors of zeros are alike; -1 where a value is not finite."""
    a, b = _vectors(expected, found)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return 1.0 if np.array_equal(a, b, equal_nan=True) else -1.0
    lengths = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    if 0.0 in lengths:
        return 1.0 if lengths == (0.0, 0.0) else 0.0
    return float(np.dot(a / lengths[0], b / lengths[1]))


def distance(expected: np.ndarray, found: np.ndarray) -> float:
    """Length of the difference as a share of the length of the expected one; infinite where only one is a number."""
    a, b = _vectors(expected, found)
    if np.array_equal(a, b, equal_nan=True):
        return 0.0
    with np.errstate(invalid="ignore", over="ignore"):
        apart, length = float(np.linalg.norm(b - a)), float(np.linalg.norm(a))
    return apart / length if length and math.isfinite(apart) and math.isfinite(length) else math.inf


def _vectors(*arrays: np.ndarray) -> List[np.ndarray]:
    return [array.reshape(-1).astype(np.float64) for array in arrays]
