"""The recorder: one call per Outcome feeds every number that leaves the gateway."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.errors import Code
from gateway.record.latency import Histogram, Latency, RecentLatency, bucket_of
from gateway.request import Outcome, Statistics

Trace = Callable[[Outcome], None]


@dataclass(slots=True)
class _VersionTotals:
    recent: RecentLatency
    success: int = 0
    success_seconds: float = 0.0
    failed: int = 0
    failed_seconds: float = 0.0
    queue_seconds: float = 0.0
    compute_seconds: float = 0.0
    last: float = 0.0
    served: Counter[str] = field(default_factory=Counter)
    """Answers by worker."""


class Recorder:
    """Counts in plain Python numbers; exporters read them when they are asked (``metrics.py``).

    Outcomes are counted a little later, several at once: right after an answer the core is needed to send it.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        trace: Trace | None = None,
        later: Callable[[Callable[[], None]], object] | None = None,
    ) -> None:
        """Args:
        clock: monotonic seconds.
        trace: makes spans of an outcome; None: tracing is off.
        later: calls back soon, when there is time; None: outcomes are counted at once.
        """
        self._clock = clock
        self._trace = trace
        self._later = later
        self.taken = 0
        """Outcomes since the start."""
        self._waiting: list[Outcome] = []
        self._versions: dict[tuple[str, str], _VersionTotals] = {}
        self.durations: dict[tuple[str, str, str, Code], Histogram] = {}
        """(model, version, accelerator, code) -> all durations."""
        self.attempts: Counter[tuple[str, str]] = Counter()
        """(worker, "" or the reason of the failure) -> attempts."""
        self.fallbacks: Counter[tuple[str, str]] = Counter()
        """(model, reason) -> answers of another than the first target."""
        self.budget_missed: Counter[str] = Counter()
        self.shed: Counter[str] = Counter()

    def record(self, outcome: Outcome) -> None:
        """Take one outcome."""
        self.taken += 1
        self._waiting.append(outcome)
        if self._later is None:
            self.settle()
        elif len(self._waiting) == 1:
            self._later(self.settle)

    def settle(self) -> None:
        """Count what waits; a reader sees all that was taken before it asked."""
        waiting, self._waiting = self._waiting, []
        now, clock_time = self._clock(), time.time()
        for outcome in waiting:
            self._record(outcome, now, clock_time)

    def _record(self, outcome: Outcome, now: float, clock_time: float) -> None:
        """Count one request; costs about 3 us."""
        # A name that nobody serves must not become a series: a hostile caller could invent millions.
        code, seconds = outcome.code, outcome.total_seconds
        bucket = bucket_of(seconds)
        model = "" if code is Code.NOT_FOUND or not outcome.version else outcome.model
        key = (model, outcome.version, outcome.accelerator, code)
        histogram = self.durations.get(key)
        if histogram is None:
            histogram = self.durations[key] = Histogram()
        histogram.add_to(bucket, seconds)
        for attempt in outcome.attempts:
            self.attempts[attempt.target, attempt.reason] += 1
        if outcome.missed_budget:
            self.budget_missed[model] += 1
        if code is Code.RESOURCE_EXHAUSTED:
            self.shed[model] += 1
        if outcome.degraded and not code:
            self.fallbacks[model, outcome.reason] += 1
        if model:
            totals = self._versions.get((model, outcome.version))
            if totals is None:
                totals = self._versions[model, outcome.version] = _VersionTotals(RecentLatency(now))
            if not code:
                totals.success += 1
                totals.success_seconds += seconds
                totals.queue_seconds += outcome.queue_seconds
                totals.compute_seconds += outcome.compute_seconds
                totals.last = clock_time
                totals.served[outcome.target] += 1
                totals.recent.add_to(bucket, seconds, now)
            elif code is not Code.CANCELLED:
                totals.failed += 1
                totals.failed_seconds += seconds
        if self._trace is not None:
            self._trace(outcome)

    def forget(self, model: str, version: str) -> None:
        """Drop the series of a version that was deleted."""
        self._versions.pop((model, version), None)
        for key in [key for key in self.durations if key[:2] == (model, version)]:
            del self.durations[key]

    def latency(self, model: str, version: str) -> Latency:
        self.settle()
        totals = self._versions.get((model, version))
        return totals.recent.read(self._clock()) if totals else Latency(0.0, 0.0, 0.0, 0)

    def requests(self, model: str, version: str) -> tuple[int, int]:
        """(requests, those of them that failed)."""
        self.settle()
        totals = self._versions.get((model, version))
        return (totals.success + totals.failed, totals.failed) if totals else (0, 0)

    def share(self, model: str, version: str, worker: str) -> float:
        """Part of the version's answers that a worker gave, 0 to 1."""
        self.settle()
        totals = self._versions.get((model, version))
        return totals.served[worker] / totals.success if totals and totals.success else 0.0

    def statistics(self, model: str, version: str) -> Statistics:
        self.settle()
        totals = self._versions.get((model, version))
        if totals is None:
            return Statistics()
        return Statistics(
            success_count=totals.success,
            success_ns=int(totals.success_seconds * 1e9),
            fail_count=totals.failed,
            fail_ns=int(totals.failed_seconds * 1e9),
            queue_ns=int(totals.queue_seconds * 1e9),
            compute_ns=int(totals.compute_seconds * 1e9),
            last_inference_ms=int(totals.last * 1e3),
        )
