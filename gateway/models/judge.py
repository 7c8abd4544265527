"""The judge: whether a version must be left, from its own outcomes, net of what happened to the device.

What is laid to a version's charge, and what to the device's:

- *Errors.* A request counts when it failed on every target tried and the runtime raised, which a device's death, an
  unplugged chip or a refusal does not look like (see ``errors.py``). So nothing needs to be taken off the count.
- *Times.* A run is never judged by its length alone, but by its ratio to what the other version takes *on the same
  worker at the same time*: heat, a neighbour's load or a lower clock make both longer. Where the other one did not run
  there just then (the slow version's attempts expired, and the CPU served it; or all traffic is the version's), its
  usual run on that worker stands in, but only for runs that no device event was near.
- *Attempts that expired* have no run time, but took at least as long as was waited for them. They are held against what
  requests of the other version felt there, waiting included, so that a queue is nobody's fault; and they only count
  where they were long enough to say something.
- *One ratio is noise.* It is the half that decides: the version is left when more than half of its runs are over the
  limit, and that not by chance (a sequential sign test). So neither single stalls nor a ratio near the limit do it.
- *Agreement and accuracy* are rates: the version is left when even the upper bound of the rate is below the limit. A
  wholly wrong version is left after the least count, a doubtful one is given time. *Drift* comes with its own test.

All of it may be asked after every request: the tests are sequential. Nothing here knows a clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.models.manifest import Rollback
from gateway.models.run_times import RunTimes
from gateway.models.samples import Sample
from gateway.models.significance import Comparison, above, below, bounds
from gateway.observation.figures import Figures

Evidence = dict[str, float | int | str]

LEAST = 20
"""Requests, answers or labels that a rate is taken of, at least."""
LEAST_RUNS = 10
"""Runs that can be compared, at least; as many are certain at the earliest, if all are over the limit."""
MOST = 10_000
"""Requests remembered for a rate: at a rate that brings more within the window, the newest of them are as good."""
_DOUBT = 0.05
"""Probability that a good version's promotion is ever held up by chance: waiting costs less than a roll-back."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """That a version must be left, and why. ``rule``: the manifest's word. ``evidence``: figures, for the event."""

    version: str
    rule: str
    message: str
    evidence: Evidence


@dataclass(slots=True)
class Trial:
    """One version that is judged, against another one if there is one. It is condemned at most once."""

    version: str
    against: str | None
    """The version that serves the others meanwhile."""
    rules: Rollback
    errors: Comparison = field(default_factory=Comparison)
    """Of failed requests; the other stream is ``against``."""
    wrong: Comparison = field(default_factory=Comparison)
    """Of wrong answers, as late labels say."""
    condemned: Verdict | None = None
    stepped: int = 0
    """Requests of the version, answered or failed, since ``step``."""
    _failures: deque[float] = field(default_factory=deque, repr=False)
    """When failures were, of the window."""
    _requests: deque[tuple[float, bool]] = field(default_factory=deque, repr=False)
    """(when, failed), for a rate."""
    _failed: int = 0
    """Of them."""
    _times: RunTimes | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        limit, window, self._times = self.rules.max_latency_ratio, self.rules.error_window_seconds, None
        if limit is not None and self.against is not None:
            self._times = RunTimes(self.version, self.against, limit, window)

    def observe(self, sample: Sample) -> Verdict | None:
        """Take a sample of either version; constant time. A verdict: by this very request the version must be left."""
        own = sample.version == self.version
        if self.condemned is not None or not (own or sample.version == self.against):
            return None
        if self._times is not None:
            self._times.take(sample)
        if sample.outcome == "other":
            return None
        failed = sample.outcome == "failed"
        if not own:
            self.errors.add_other(failed)
            return None
        self.stepped += 1
        self.errors.add(failed)
        return self._condemn(self._judge_errors(sample.at, failed)) if self.rules.auto_rollback_on_error else None

    def labelled(self, version: str, right: bool) -> None:
        """A late label came for an answer of either version."""
        if version == self.version:
            self.wrong.add(not right)
        elif version == self.against:
            self.wrong.add_other(not right)

    def review(self, now: float, figures: Figures, expected: Mapping[tuple[str, str], float]) -> Verdict | None:
        """What needs no new request to be seen; to be asked about every half second.

        Args:
            now: monotonic seconds.
            figures: what the observer knows of the version.
            expected: (version, worker) -> seconds of a usual run, where known.
        """
        if self.condemned is not None:
            return None
        return self._condemn(
            self._judge_times(now, expected)
            or self._judge_rate("minAgreement", self.rules.min_agreement, _agreed(figures), "answers that agree")
            or self._judge_rate("minAccuracy", self.rules.min_accuracy, _right(figures), "right answers")
            or self._judge_drift(figures)
        )

    def step(self) -> None:
        """A new canary step begins: its requests are counted anew."""
        self.stepped = 0

    def holds_back(self, figures: Figures) -> str:
        """Why the version should not get a larger share yet; empty: nothing speaks against it."""
        if self.condemned is not None:
            return self.condemned.message
        if self.stepped < LEAST:
            return f"{self.stepped} of {LEAST} requests of this step"
        if self.errors.more(_DOUBT):
            return f"it fails more often than {self.against}: {_rates(self.errors)}"
        if self.wrong.more(_DOUBT):
            return f"it is wrong more often than {self.against}: {_rates(self.wrong)}"
        if self._times is not None and self._times.over * 2 > self._times.count >= LEAST_RUNS:
            return f"most of its runs take more than {self._times.limit:g} x those of {self.against}"
        for word, limit, seen in (
            ("agreement", self.rules.min_agreement, _agreed(figures)),
            ("accuracy", self.rules.min_accuracy, _right(figures)),
        ):
            if limit is not None and seen is not None and seen[0] < limit * seen[1]:
                return f"its {word} of {seen[0] / seen[1]:.3f} is below {limit:g}"
        if figures.drift is not None and figures.drift.alarm:
            return f"its outputs drift: {figures.drift.detail}"
        return ""

    def _condemn(self, verdict: Verdict | None) -> Verdict | None:
        self.condemned = verdict
        return verdict

    def _judge_errors(self, now: float, failed: bool) -> Verdict | None:
        threshold = self.rules.error_threshold
        seen = self._count(threshold, now, failed) if isinstance(threshold, int) else self._rate(threshold, now, failed)
        if seen is None:
            return None
        message, evidence = seen
        evidence["windowSeconds"] = self.rules.error_window_seconds
        return Verdict(self.version, "errorThreshold", message, evidence | self._compared(self.errors, "error"))

    def _count(self, threshold: int, now: float, failed: bool) -> tuple[str, Evidence] | None:
        if not failed:
            return None
        failures = self._failures
        failures.append(now)
        while failures[0] < now - self.rules.error_window_seconds:
            failures.popleft()
        if len(failures) < threshold:
            return None
        span = now - failures[0]
        return f"{threshold} requests failed within {span:.1f} s", {"failures": threshold, "seconds": span}

    def _rate(self, threshold: str, now: float, failed: bool) -> tuple[str, Evidence] | None:
        window, requests = self.rules.error_window_seconds, self._requests
        requests.append((now, failed))
        self._failed += failed
        while requests[0][0] < now - window or len(requests) > MOST:
            self._failed -= requests.popleft()[1]
        total, limit = len(requests), float(threshold[:-1]) / 100
        if not self._failed or total < LEAST or self._failed < limit * total:
            return None
        message = f"{self._failed} of {total} requests failed within {window:g} s; {threshold} is the limit"
        return message, {"failures": self._failed, "requests": total, "limit": limit}

    def _judge_times(self, now: float, expected: Mapping[tuple[str, str], float]) -> Verdict | None:
        times = self._times
        if times is None:
            return None
        times.settle(now, expected)
        if times.count < LEAST_RUNS or not above(0.5, times.over, times.count):
            return None
        typical = times.typical()
        message = (
            f"its runs take {typical:.1f} x those of {times.against} on the same worker; {times.limit:g} x is the "
            f"limit, and {times.over} of {times.count} are over it"
        )
        evidence: Evidence = {
            "ratio": typical,
            "limit": times.limit,
            "runs": times.count,
            "over": times.over,
            "against": times.against,
        }
        return Verdict(self.version, "maxLatencyRatio", message, evidence)

    def _judge_rate(self, rule: str, limit: float | None, seen: tuple[int, int] | None, what: str) -> Verdict | None:
        if limit is None or seen is None:
            return None
        hits, total = seen
        if total < LEAST or not below(limit, hits, total):
            return None
        high = bounds(hits, total)[1]
        message = f"{hits} of {total} are {what}, so at most {high:.3f} in truth; {limit:g} is the least"
        evidence: Evidence = {"rate": hits / total, "upperBound": high, "count": total, "limit": limit}
        if rule == "minAccuracy":
            evidence |= self._compared(self.wrong, "wrong")
        return Verdict(self.version, rule, message, evidence)

    def _judge_drift(self, figures: Figures) -> Verdict | None:
        drift, limit = figures.drift, self.rules.max_drift
        if limit is None or drift is None or drift.score is None or not drift.alarm:
            return None
        message = f"its outputs drift by {drift.score:.3f}, {limit:g} is the limit ({drift.detail})"
        evidence: Evidence = {"score": drift.score, "limit": limit, "answers": drift.answers, "detail": drift.detail}
        return Verdict(self.version, "maxDrift", message, evidence)

    def _compared(self, streams: Comparison, what: str) -> Evidence:
        """Both rates, where there is another version that was asked."""
        if self.against is None or streams.rate is None or streams.other_rate is None:
            return {}
        return {
            f"{what}Rate": streams.rate,
            "against": self.against,
            f"{what}RateOfThat": streams.other_rate,
            "p": streams.p,
        }


def _agreed(figures: Figures) -> tuple[int, int] | None:
    seen = figures.agreement
    return (seen.agreed, seen.total) if seen is not None and seen.total else None


def _right(figures: Figures) -> tuple[int, int] | None:
    seen = figures.accuracy
    return (seen.right, seen.total) if seen is not None and seen.total else None


def _rates(streams: Comparison) -> str:
    return f"{streams.rate or 0:.2%} against {streams.other_rate or 0:.2%}, p = {streams.p:.2g}"
