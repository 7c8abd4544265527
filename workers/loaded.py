"""A model that is loaded: its handle, its users, and how long its runs take."""

from __future__ import annotations

import threading
import time
from typing import Dict, List, Optional, Sequence

from edgeway.datatypes import BY_NAME, nbytes
from workers.backend import BackendError, Model, Tensor, TensorSpec
from workers.batching import Limits

ANY_RUN = 50e-6
"""Seconds that a run costs whatever its inputs: calling the runtime."""
WARMUP_LIMIT = 0.5
"""Seconds of warm-up after which no further run begins: a model of seconds needs no second look."""
_WARMUP_BYTES = 256 << 20


class NeverCancelled:
    """For warm-up runs, for which somebody always waits."""

    cancelled = False

    def on_cancel(self, stop: object) -> None:
        """Nobody will."""


class LoadedModel:
    """One loaded file. Its memory is given back when it was asked to close and the last run has left."""

    def __init__(self, handle: int, model: Model, limits: Optional[Limits] = None) -> None:
        self.handle = handle
        self.model = model
        self.limits = limits
        """How its runs go together; None: each goes alone."""
        self._expected: Dict[int, float] = {}
        self._users = 0
        self._closing = False
        self._lock = threading.Lock()

    def expected(self, input_bytes: int) -> Optional[float]:
        """Seconds that a run with inputs of this size should take; None before the first run.

        For a size that was never seen: the nearest smaller one's time beyond the cost of any run, in proportion; a
        larger one's time as it is.
        """
        size = input_bytes.bit_length()
        known = self._expected.get(size)
        if known is None and self._expected:
            nearest = max((seen for seen in self._expected if seen < size), default=0) or min(self._expected)
            beyond = max(0.0, self._expected[nearest] - ANY_RUN)
            known = ANY_RUN + beyond * 2.0 ** max(0, size - nearest)
        return known

    def estimate(self, input_bytes: int) -> float:
        """As ``expected``, with 0 before the first run: what is not known keeps nobody waiting, or from joining."""
        return self.expected(input_bytes) or 0.0

    def took(self, input_bytes: int, seconds: float) -> None:
        """Learn from a run; a slower one is believed at once, a faster one slowly."""
        size = input_bytes.bit_length()
        known = self._expected.get(size, seconds)
        self._expected[size] = max(seconds, 0.8 * known + 0.2 * seconds)

    def enter(self) -> bool:
        """Whether a run may begin to use it."""
        with self._lock:
            if self._closing:
                return False
            self._users += 1
            return True

    def leave(self) -> bool:
        """Whether it is now closed."""
        with self._lock:
            self._users -= 1
            return self._close_if_idle()

    def close(self) -> bool:
        """Close when nobody uses it; whether that is now."""
        with self._lock:
            self._closing = True
            return self._close_if_idle()

    def warm_up(self, runs: int) -> List[float]:
        """Run on zeros and return the times, without the first, which pays for first touches.

        Empty where an input's size can't be guessed, or where the model does not take zeros. A model that batches runs
        on a whole batch too, and knows how long that takes.
        """
        timed = self._warm_up(runs, 1)
        if timed and self.limits is not None and self.limits.size > 1:
            self._warm_up(min(runs, 1), self.limits.size)
        return timed

    def _warm_up(self, runs: int, rows: int) -> List[float]:
        inputs = {spec.name: zeros(spec, rows) for spec in self.model.inputs}
        total = sum(tensor.data.nbytes for tensor in inputs.values())
        if total > _WARMUP_BYTES:
            return []
        outputs = [spec.name for spec in self.model.outputs]
        times: List[float] = []
        began = time.monotonic()
        for _ in range(1 + runs):
            start = time.monotonic()
            try:
                self.model.run(inputs, outputs, NeverCancelled())
            except BackendError:
                return []
            times.append(time.monotonic() - start)
            if time.monotonic() - began > WARMUP_LIMIT:
                break
        timed = times[1:] or times
        for seconds in timed:
            self.took(total, seconds)
        return timed

    def _close_if_idle(self) -> bool:
        if self._closing and not self._users and self.model is not None:
            self.model.close()
            return True
        return False


def zeros(spec: TensorSpec, rows: int = 1) -> Tensor:
    """A tensor of zeros (empty elements for BYTES); sizes that are open count as 1, the first one as ``rows``."""
    shape = tuple((1 if axis else rows) if size < 0 else size for axis, size in enumerate(spec.shape))
    assert spec.datatype in BY_NAME
    return Tensor(spec.datatype, shape, memoryview(bytes(nbytes(spec.datatype, shape))))


def input_bytes(tensors: Sequence[Tensor]) -> int:
    return sum(tensor.data.nbytes for tensor in tensors)
