"""What the observer is handed, and the figures that it gives back. Plain values; nothing here looks at a tensor."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from gateway.models.manifest import Check

_Z = 1.959963984540054
"""Quantile of the normal distribution that leaves 2.5 % on each side."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One tensor, copied out of its slot: ``data`` as on the wire, little-endian and row-major."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes | memoryview


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of the newest ``total`` answers that were compared with a shadow's, those in which both agree."""

    agreed: int
    total: int

    @property
    def rate(self) -> float:
        """0 to 1; 1 where nothing was compared."""
        return self.agreed / self.total if self.total else 1.0


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Of the newest ``total`` labels that came, those that the version had predicted."""

    right: int
    total: int

    @property
    def rate(self) -> float:
        """0 to 1; 1 where no label came."""
        return self.right / self.total if self.total else 1.0


@dataclass(frozen=True, slots=True)
class Drift:
    """How far the newest ``answers`` answers are from the reference: the population stability index, 0: not at all.

    ``alarm``: it is beyond ``maxDrift``, and not by chance. ``detail``: what moved, or why there is no score.
    """

    score: float | None
    answers: int
    alarm: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Figures:
    """All that is known of one version; None: nothing yet."""

    agreement: Agreement | None = None
    accuracy: Accuracy | None = None
    drift: Drift | None = None


@dataclass(frozen=True, slots=True)
class Labelled:
    """A label that was matched with the answer of its request."""

    version: str
    predicted: str
    right: bool


@dataclass(frozen=True, slots=True)
class SamplePolicy:
    """Every ``every``-th request's inputs are kept in ``folder``, up to ``max_bytes``, oldest out first."""

    every: int
    max_bytes: int
    folder: Path


@dataclass(frozen=True, slots=True)
class Watched:
    """What is to be observed of one version. ``reference``: an ``.npz`` file with outputs by name; None: no drift, and
    ``no_reference`` says why, where there should be some. ``max_drift``: score beyond which drift is an alarm; None:
    never. An output of None: the first that is fit.
    """

    reference: Path | None = None
    drift_output: str | None = None
    drift_window: int = 250
    max_drift: float | None = None
    feedback_output: str | None = None
    feedback_window: int = 1000
    check: Check = field(default_factory=Check)
    samples: SamplePolicy | None = None
    no_reference: str = ""

    def names(self, with_label: bool) -> frozenset[str] | None:
        """Outputs that are looked at in an answer that may get a label, or not; None: any may be."""
        drift = None if self.reference is None else self.drift_output
        if (self.reference is not None and drift is None) or (with_label and self.feedback_output is None):
            return None
        return frozenset(name for name in (drift, self.feedback_output if with_label else None) if name)


def interval(right: int, total: int) -> tuple[float, float]:
    """Lower and upper end, 0 to 1, of the 95 % interval of a share: Wilson's, which holds for small counts too.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
    """
    if not total:
        return 0.0, 1.0
    share, spread = right / total, _Z * _Z / total
    middle = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread * spread / 4) / (1 + spread)
    low = 0.0 if right == 0 else max(0.0, middle - half)
    return low, 1.0 if right == total else min(1.0, middle + half)
