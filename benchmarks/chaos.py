"""Open-loop load with budgets, and what became of it: in budget, late, refused or failed, by whom and why.

Arrivals are Poisson and do not wait for answers; each latency counts from the moment of the actual send.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import grpc
import numpy as np

from edgeway.client import AsyncClient, InferenceError, Late, Result


@dataclass(frozen=True)
class Class:
    """One class of callers."""

    name: str
    rate: float
    """Requests per second."""
    budget_ms: float
    priority: int = 0


@dataclass(frozen=True)
class Sample:
    """One request. Seconds; ``sent`` since the start of the load."""

    caller: str
    sent: float
    latency: float
    budget: float
    outcome: str
    """``served``, ``refused`` (the gateway said no in time) or ``failed``."""
    target: str = ""
    reason: str = ""

    @property
    def in_budget(self) -> bool:
        return self.outcome == "served" and self.latency <= self.budget


@dataclass
class Tally:
    """All samples of a run."""

    samples: list[Sample] = field(default_factory=list)

    def of(self, caller: str | None = None, since: float = 0.0, until: float = float("inf")) -> Tally:
        return Tally([s for s in self.samples if (caller in (None, s.caller)) and since <= s.sent < until])

    def share_in_budget(self) -> float:
        return sum(s.in_budget for s in self.samples) / max(1, len(self.samples))

    def count(self, outcome: str) -> int:
        return sum(s.outcome == outcome for s in self.samples)

    def percentile(self, q: float) -> float:
        """Milliseconds, of the served."""
        served = [s.latency for s in self.samples if s.outcome == "served"]
        return float(np.percentile(served, q)) * 1e3 if served else float("nan")

    def slowest(self) -> float:
        """Milliseconds until the last caller knew, served or not."""
        return max((s.latency for s in self.samples), default=0.0) * 1e3

    def switches_per_minute(self) -> float:
        """Changes of the serving target from one request to the next."""
        served = [s for s in sorted(self.samples, key=lambda s: s.sent) if s.outcome == "served"]
        if len(served) < 2:
            return 0.0
        changes = sum(a.target != b.target for a, b in itertools.pairwise(served))
        return changes * 60.0 / max(1e-9, served[-1].sent - served[0].sent)

    def lines(self) -> list[str]:
        """A table: one line per class, then who served and why."""
        rows = [f"{'class':8} {'sent':>6} {'in budget':>10} {'late':>6} {'refused':>8} {'failed':>7}  p50/p99/p99.9 ms"]
        for caller in dict.fromkeys(s.caller for s in self.samples):
            part = self.of(caller)
            late = part.count("served") - sum(s.in_budget for s in part.samples)
            rows.append(
                f"{caller:8} {len(part.samples):6} {part.share_in_budget():10.2%} {late:6} {part.count('refused'):8} "
                f"{part.count('failed'):7}  {part.percentile(50):.1f} / {part.percentile(99):.1f} / "
                f"{part.percentile(99.9):.1f}"
            )
        who = Counter((s.target, s.reason) for s in self.samples if s.outcome == "served")
        served = ", ".join(f"{target} {n}" + (f" ({why})" if why else "") for (target, why), n in who.most_common())
        rows.append(f"served by {served}; {self.switches_per_minute():.1f} switches/min")
        failures = Counter(s.reason for s in self.samples if s.outcome != "served")
        rows += [f"  {n} x {why}" for why, n in failures.most_common(5)]
        return rows


async def play(
    address: str,
    model: str,
    inputs: Mapping[str, np.ndarray],
    classes: Sequence[Class],
    seconds: float,
    seed: int = 1,
    beside: Callable[[float], Awaitable[None]] | None = None,
) -> Tally:
    """Send each class's Poisson arrivals for ``seconds``; ``beside(began)`` runs meanwhile and makes the trouble."""
    tally = Tally()
    async with AsyncClient(address) as client:
        await client.infer(model, inputs)  # the connection is there
        began = time.monotonic()
        trouble = asyncio.create_task(beside(began)) if beside is not None else None
        senders = [
            _send(client, model, inputs, each, seconds, random.Random(f"{seed} {each.name}"), began, tally)
            for each in classes
        ]
        await asyncio.gather(*senders)
        if trouble is not None:
            await trouble
    return tally


async def _send(
    client: AsyncClient,
    model: str,
    inputs: Mapping[str, np.ndarray],
    caller: Class,
    seconds: float,
    chance: random.Random,
    began: float,
    tally: Tally,
) -> None:
    at, asked = chance.expovariate(caller.rate), []
    while at < seconds:
        await asyncio.sleep(max(0.0, began + at - time.monotonic()))
        asked.append(asyncio.create_task(_ask(client, model, inputs, caller, began, tally)))
        at += chance.expovariate(caller.rate)
    await asyncio.gather(*asked)


async def _ask(
    client: AsyncClient, model: str, inputs: Mapping[str, np.ndarray], caller: Class, began: float, tally: Tally
) -> None:
    sent = time.monotonic()
    result: Result | None = None
    outcome, why = "served", ""
    try:
        result = await client.infer(model, inputs, budget_ms=caller.budget_ms, priority=caller.priority)
    except Late as late:
        outcome, why = ("refused" if time.monotonic() - sent <= caller.budget_ms / 1e3 else "failed"), str(late)
    except (InferenceError, grpc.RpcError) as error:
        code = getattr(error, "code", None)
        refused = getattr(code, "name", "") == "RESOURCE_EXHAUSTED"
        outcome, why = "refused" if refused else "failed", f"{type(error).__name__}: {error}"
    sample = Sample(
        caller.name,
        sent - began,
        time.monotonic() - sent,
        caller.budget_ms / 1e3,
        outcome,
        result.served_by if result else "",
        result.reason if result else why[:160],
    )
    tally.samples.append(sample)
