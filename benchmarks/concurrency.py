"""Does an adaptive concurrency limit help? One target under open-loop load, in virtual time: no clock, no process."""

from __future__ import annotations

import argparse
import heapq
import json
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gateway.admission.gradient import GradientLimit
from gateway.routing.estimate import RunEstimate
from gateway.target import STALE_AFTER

SERVICE = 0.008
SPREAD = 0.15
BUDGET = 0.1
MARGIN = 0.001
LOADS = (0.5, 0.8, 1.0, 1.5, 2.0, 3.0)
POLICIES = ("none", "feasible", "spread", "gradient", "both")
"""No limit; what the gateway does; the same with the spread of the runs ahead; the limit; the second and the limit."""


@dataclass(frozen=True)
class Chip:
    """What is served by, and what the gateway believes of it."""

    name: str
    at_once: float
    """Runs that it begins; the others wait in deadline order."""
    cores: float
    """Runs that go on at full speed; more of them share."""
    instances: int
    """As the gateway is told."""
    slow: tuple[float, float, float] = (math.inf, math.inf, 1.0)
    """From, until, factor: a throttled time."""

    def possible(self, load: float, seconds: float, mean: float) -> float:
        """Runs that it could end of those that are offered at ``load`` times what it can do when not throttled."""
        begin, end, factor = self.slow
        slow = max(0.0, min(end, seconds) - begin) if begin < seconds else 0.0
        return self.cores / mean * ((seconds - slow) * min(1.0, load) + slow * min(1.0 / factor, load))

    def speed(self, running: int, now: float) -> float:
        begin, end, factor = self.slow
        return min(1.0, self.cores / max(1, running)) / (factor if begin <= now < end else 1.0)


CHIPS = (
    Chip("exclusive", 1, 1, 1),
    Chip("exclusive, x3 slow 20-40 s", 1, 1, 1, (20.0, 40.0, 3.0)),
    Chip("4 in parallel, known", math.inf, 4, 4),
    Chip("4 in parallel, told 16", math.inf, 4, 16),
    Chip("4 in parallel, told 16, x3 slow 20-40 s", math.inf, 4, 16, (20.0, 40.0, 3.0)),
)


@dataclass
class Gateway:
    """Admission as the gateway does it: predicted wait and p95 run within the budget; or a limit; or both."""

    policy: str
    instances: int
    estimate: RunEstimate = field(default_factory=RunEstimate)
    expected: float = 0.0
    in_flight: int = 0
    tried: float = -math.inf
    probing: bool = False

    def __post_init__(self) -> None:
        self.estimate.calibrate([SERVICE] * 3, 0.0)
        self.limit = GradientLimit(initial=max(4, 2 * self.instances), lowest=self.instances, highest=1024)

    def admits(self, now: float) -> bool:
        if self.policy in ("gradient", "both") and self.in_flight >= self.limit.limit:
            return False
        if self.policy in ("feasible", "spread", "both"):
            wait = 0.0 if self.in_flight < self.instances else self.expected / self.instances
            run, slow = self.estimate.quantile(0.5) or 0.0, self.estimate.quantile(0.95) or 0.0
            predicted = wait + slow
            if self.policy == "spread" and wait:
                # The spread of a sum of runs that know nothing of each other grows with its root.
                predicted = wait + run + math.sqrt(1 + self.in_flight / self.instances) * (slow - run)
            if predicted > BUDGET - MARGIN and now - self.tried <= STALE_AFTER:
                return False
        return True

    def dispatched(self, now: float) -> float:
        """The share of the backlog that this run is taken for."""
        self.probing, self.tried = now - self.tried > STALE_AFTER, now
        expects = self.estimate.quantile(0.5) or 0.0
        self.expected += expects
        self.in_flight += 1
        return expects

    def ended(self, expects: float, sent: float, run: float | None, now: float) -> None:
        """``run``: seconds without the wait for an instance; None: it was never begun."""
        self.limit.sample(now - sent, self.in_flight, now)
        self.in_flight -= 1
        self.expected = max(0.0, self.expected - expects)
        if run is not None:
            if self.probing and run < 0.5 * (self.estimate.quantile(0.95) or 0.0):
                self.estimate.clear()
            self.estimate.add(run, now)


@dataclass
class _Job:
    sent: float
    work: float
    expects: float
    begun: float = 0.0


def simulate(chip: Chip, policy: str, load: float, seconds: float, seed: int) -> dict[str, float]:
    """Poisson arrivals at ``load`` times what the chip can do unthrottled; one call, one seed, one result."""
    rng = np.random.default_rng(seed)
    mean = SERVICE * math.exp(SPREAD**2 / 2)
    rate = load * chip.cores / mean
    count = int(rate * seconds)
    arrivals = np.cumsum(rng.exponential(1 / rate, count)).tolist()
    works = (SERVICE * np.exp(rng.normal(0, SPREAD, count))).tolist()
    gateway = Gateway(policy, chip.instances)
    waiting: deque[_Job] = deque()
    running: list[tuple[float, int, _Job]] = []
    now = done = 0.0
    next_arrival = refused = dropped = 0
    latencies: list[float] = []
    limits: list[int] = []
    changes = [at for at in chip.slow[:2] if at < math.inf]
    # ``done``: work that a run which is always on has got; all running ones get the same.
    while next_arrival < count or running:
        speed = chip.speed(len(running), now)
        finish = now + max(0.0, running[0][0] - done) / speed if running else math.inf
        arrival = arrivals[next_arrival] if next_arrival < count else math.inf
        change = next((at for at in changes if at > now), math.inf)
        upcoming = min(finish, arrival, change)
        done += (upcoming - now) * speed
        now = upcoming
        if upcoming == finish:
            _, _, job = heapq.heappop(running)
            gateway.ended(job.expects, job.sent, now - job.begun, now)
            latencies.append(now - job.sent)
        elif upcoming == arrival:
            if gateway.admits(now):
                waiting.append(_Job(now, works[next_arrival], gateway.dispatched(now)))
            else:
                refused += 1
            next_arrival += 1
            limits.append(gateway.limit.limit)
        while waiting and len(running) < chip.at_once:
            job = waiting.popleft()
            if now >= job.sent + BUDGET:
                gateway.ended(job.expects, job.sent, None, now)
                dropped += 1
                continue
            job.begun = now
            heapq.heappush(running, (done + job.work, next_arrival, job))
        if now > 3 * seconds:
            break  # without a limit the parallel chip holds more and more
    good = sum(each <= BUDGET for each in latencies)
    return {
        "goodput": good / chip.possible(load, seconds, mean),
        "late": (len(latencies) - good) / count,
        "refused": refused / count,
        "dropped": dropped / count,
        "p99Ms": float(np.quantile(latencies, 0.99)) * 1e3,
        "limit": float(np.median(limits)),
    }


def compare(seconds: float, seeds: int) -> list[dict[str, Any]]:
    """Every chip, load and policy; the mean over the seeds."""
    rows = []
    for chip in CHIPS:
        for load in LOADS:
            for policy in POLICIES:
                results = [simulate(chip, policy, load, seconds, seed) for seed in range(seeds)]
                means = {key: float(np.mean([each[key] for each in results])) for key in results[0]}
                rows.append({"chip": chip.name, "load": load, "policy": policy, **means})
    return rows


def table(rows: Sequence[dict[str, Any]]) -> None:
    """Policies side by side."""
    print(f"{'target':40}{'load':>5}" + "".join(f"{policy:>18}" for policy in POLICIES) + "   limit")
    for chip in CHIPS:
        for load in LOADS:
            own = [row for row in rows if row["chip"] == chip.name and row["load"] == load]
            cells = "".join(f"{row['goodput']:>9.1%}{min(row['p99Ms'], 9999):>6.0f} ms" for row in own)
            print(f"{chip.name:40}{load:>5g}{cells}{own[POLICIES.index('gradient')]['limit']:>8.0f}")
    print(
        f"\nper policy: answers in budget ({BUDGET * 1e3:.0f} ms), of what was offered and possible; p99 of all answers"
    )
    print(f"service {SERVICE * 1e3:g} ms; limit: the gradient's median")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="virtual")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    options = parser.parse_args()
    rows = compare(options.seconds, options.seeds)
    if options.output == "json":
        print(json.dumps(rows, indent=1))
    else:
        table(rows)


if __name__ == "__main__":
    main()
