"""One version as the observer sees it: its settings, its windows, its figures."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Deque, Dict, Mapping, Optional, Sequence

import numpy as np

from edgeway.tensors import BY_NAME, to_array
from edgeway.v1 import observer_pb2
from workers.comparing import Rule, agree
from workers.observing.drift import DriftWatch, NoReference, Reference
from workers.observing.features import NoFeatures
from workers.observing.labels import predicted
from workers.observing.reference import read_reference
from workers.observing.samples import SampleFolder

COMPARED = 1000
"""Newest comparisons that agreement is taken of."""


class Version:
    """Takes what was seen, and knows what is new about it."""

    def __init__(self, watch: observer_pb2.Watch) -> None:
        self.watch = watch
        self.changed = False
        """Whether the figures are others than when it was last set to False."""
        self._rule = _rule(watch.rule)
        before, agreed = min(watch.agreement.total, COMPARED), min(watch.agreement.good, COMPARED)
        self._agreed: Deque[bool] = deque(
            [False] * (before - min(agreed, before)) + [True] * min(agreed, before), COMPARED
        )
        self._outputs: Mapping[str, np.ndarray] = {}
        self._drift: Optional[DriftWatch] = None
        self._drift_output = ""
        self._why = ""
        """Why there is no drift score, so far; empty: there is one, or will be."""
        self.samples: Optional[SampleFolder] = None
        if watch.samples:
            self.samples = SampleFolder(Path(watch.samples), watch.sample_bytes)
        if watch.reference:
            self._read(Path(watch.reference))

    def _read(self, path: Path) -> None:
        try:
            import scipy.special  # noqa: F401

            self._outputs = read_reference(path)
            self._settle([self.watch.drift_output])
        except ImportError:
            self._refuse("scipy is not installed; pip install 'edgeway[drift]'")
        except (NoReference, MemoryError) as wrong:
            self._refuse(str(wrong) or "the reference does not fit into memory")

    def _settle(self, names: Sequence[str]) -> None:
        """Take the reference of the output that is to be watched, of those with these names."""
        wanted = [self.watch.drift_output] if self.watch.drift_output else names
        name = next((name for name in wanted if name in self._outputs), None)
        if name is None:
            if wanted != [""]:
                self._refuse(f"the reference has {', '.join(self._outputs)}, the answers {', '.join(wanted)}")
            return
        try:
            reference = Reference(self._outputs[name], self.watch.drift_window)
        except (NoReference, NoFeatures) as wrong:
            self._refuse(f"{name}: {wrong}")
        else:
            limit = self.watch.max_drift if self.watch.HasField("max_drift") else None
            self._drift, self._drift_output = DriftWatch(reference, self.watch.drift_window, limit), name
            self._why = ""
        self._outputs = {}

    def _refuse(self, why: str) -> None:
        self._why, self.changed = f"no drift score: {why}", True

    def answered(self, tensors: Mapping[str, np.ndarray]) -> None:
        """An answer of this version, for its drift."""
        if self._outputs:  # a caller may have asked for other outputs than the next one
            self._settle(list(tensors))
        output = tensors.get(self._drift_output)
        if self._drift is None or output is None:
            return
        self.changed = self._drift.add(self._drift.reference.sort(output[None])[0]) or self.changed

    def prediction(self, tensors: Mapping[str, np.ndarray]) -> Optional[str]:
        """The label that an answer gives; None: none."""
        if self.watch.feedback_output:
            output = tensors.get(self.watch.feedback_output)
            return None if output is None else predicted(output)
        return next((label for label in map(predicted, tensors.values()) if label is not None), None)

    def compared(self, real: Mapping[str, np.ndarray], shadow: Mapping[str, np.ndarray]) -> None:
        """Two answers to one request."""
        alike = real.keys() == shadow.keys() and all(agree(self._rule, real[name], shadow[name]) for name in real)
        self._agreed.append(alike)
        self.changed = True

    def figures(self) -> observer_pb2.VersionFigures:
        """Without the accuracy, which is in the database."""
        figures = observer_pb2.VersionFigures(model=self.watch.model, version=self.watch.version)
        if self._agreed:
            figures.agreement.good, figures.agreement.total = sum(self._agreed), len(self._agreed)
        if self._why:
            figures.drift.detail = self._why
        elif self._drift is not None and self._drift.score is not None:
            score = self._drift.score
            figures.drift.score, figures.drift.alarm, figures.drift.detail = score.value, score.alarm, score.detail
            figures.drift.answers = self._drift.answers
        return figures


def arrays(tensors: Sequence[observer_pb2.ObservedTensor]) -> Dict[str, np.ndarray]:
    """By name. Raises ValueError: a tensor's bytes are not what its shape needs, or nobody knows its datatype."""
    found: Dict[str, np.ndarray] = {}
    for tensor in tensors:
        if tensor.datatype not in BY_NAME or any(size < 0 for size in tensor.shape):
            raise ValueError(f"{tensor.name}: {tensor.datatype} of shape {list(tensor.shape)}")
        array = to_array(tensor.datatype, tensor.shape, memoryview(tensor.data))
        found[tensor.name] = _real(array) if tensor.datatype == "BF16" else array
    return found


def _real(bits: np.ndarray) -> np.ndarray:
    """BF16, whose bits travel as uint16, as FP32: it is its upper half."""
    widened: np.ndarray = (bits.astype(np.uint32) << 16).view(np.float32)
    return widened


def _rule(rule: observer_pb2.Rule) -> Rule:
    return Rule(
        rule.rtol if rule.HasField("rtol") else None,
        rule.atol,
        rule.top1 if rule.HasField("top1") else None,
        rule.cosine if rule.HasField("cosine") else None,
    )
