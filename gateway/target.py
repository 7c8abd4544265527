"""Target: one model version on one worker; Version: what serves a request once the split has decided."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from typing import NamedTuple, Protocol

from edgeway.datatypes import BY_NAME, nbytes
from edgeway.frames import TensorPlace, aligned
from gateway.device.shedding import sheds
from gateway.plan import KEPT, Plan, plan_of
from gateway.request import Answer, Request, Signature, TensorSpec
from gateway.routing.breaker import Breaker
from gateway.routing.estimate import Estimates, RunEstimate
from gateway.routing.policy import Candidate

SHARED_LEARNS = 0.2
"""Share of the newest answer in what is believed of the size of batches. Those of one batch come at once, and one of
them is looked at."""
STALE_AFTER = 1.0
"""Seconds without a run after which a target that seems too slow wants one request as a probe: else it would never be
measured again."""

LEARN_EVERY = 0.002
"""Seconds: of more runs than 500 a second some are passed over. What the others say is as good, and each costs 5 us."""


@dataclass(frozen=True, slots=True)
class Golden:
    """Samples that a file must answer right, and what that means: at most one rule; none: by the kind of the file."""

    path: str
    sha256: str
    tolerance: tuple[float, float] | None = None
    """rtol and atol."""
    top1: float | None = None
    cosine: float | None = None


@dataclass(frozen=True, slots=True)
class LoadOrder:
    """A file that a worker should have loaded, again after each restart."""

    name: str
    version: str
    path: str
    sha256: str
    batch_size: int = 1
    """Rows that may go in one run of the model; 1: each request goes alone."""
    batch_delay: float = 0.0
    """Seconds that a run may wait for others."""
    external: tuple[tuple[str, str], ...] = ()
    """Name and SHA-256 of files with weights, which lie beside it."""
    golden: Golden | None = None


class WorkerView(Protocol):
    """What a target needs to know of its worker; ``dispatch.pool.Worker`` is the real one."""

    name: str
    backend: str
    kind: str
    state: str
    """ready, busy, hot, lost or unknown."""
    reason: str
    since: float
    """Wall-clock seconds of the last change of state."""
    remote: bool
    """Its runs leave the device."""
    sheds: str
    """Band that shedding acts on: nominal, warm, hot or critical."""
    load_limit: float
    """Seconds that a load may take."""

    def expected_wait(self, priority: int, now: float) -> float:
        """Seconds until a run of this priority that came now would begin."""
        ...


class Limiter(Protocol):
    """Learns how much may be in flight; ``admission.gradient`` has the real one."""

    @property
    def limit(self) -> int: ...

    def sample(self, rtt_seconds: float, in_flight: int, now: float) -> None: ...


@dataclass(slots=True, eq=False)
class Target:
    """One version on one worker, with its estimates. Written by dispatch and the catalog, read by ranking.

    ``worker`` is None where the manifest names an accelerator that this device lacks.
    """

    name: str
    """Worker name, or the accelerator kind that is missing."""
    preference: int
    worker: WorkerView | None
    handle: int = 0
    """The worker's number for the loaded file; 0: not loaded."""
    failure: str = ""
    """Why the worker refused to load it."""
    barred: bool = False
    """It does not agree with its golden samples here; ``failure`` says for which and by how much."""
    provenance: str = ""
    """Where what is loaded was proved to run."""
    progress: str = ""
    """What a load that takes its time is at; empty: it has not said, or there is none."""
    warming: bool = False
    """Since its worker was last told to load it, that has got as far as the warm-up, or further."""
    kind: str = ""
    """Of what runs it: its worker's, unless the loaded model runs on something else. Empty: nothing was loaded yet."""
    golden: str = ""
    """What the check with golden samples found, where it passed."""
    order: LoadOrder | None = None
    """What it should have loaded."""
    estimates: Estimates = field(default_factory=Estimates)
    """Of runs as the request feels them: all but the wait for an instance."""
    service: Estimates = field(default_factory=Estimates)
    """Of runs by the worker's own clock; their ratio to the calibrated time is the second witness of heat."""
    waits: RunEstimate = field(default_factory=RunEstimate)
    """Waits for an instance."""
    breaker: Breaker = field(default_factory=Breaker)
    limit: Limiter | None = None
    """Learned bound on what is in flight; None: not wanted (``workers[].adaptiveLimit``)."""
    in_flight: int = 0
    tried: float = 0.0
    """When the last attempt began, monotonic."""
    measured_at: float = 0.0
    """When a run last ended well, monotonic."""
    shared: float = 1.0
    """Requests that share one run of the model, of late."""
    signature: Signature | None = None
    """What the version takes and gives, once that is settled: a remote model must go on fitting it."""
    output_bytes: int = 0
    """Largest answer seen: how much room a run's slot gets where the shapes do not say."""

    @property
    def out_of_reach(self) -> str:
        """Why nobody is loading it at present, though it was ordered: its worker is lost, or its endpoint does not have
        it. Empty: it is loaded, or somebody is at it.
        """
        if self.order is None or self.handle or self.worker is None:
            return ""
        if self.worker.state == "lost":
            return self.worker.reason or "lost"
        return self.failure if self.worker.remote else ""

    @property
    def accepts_work(self) -> bool:
        return self.handle != 0 and self.worker is not None and self.worker.state != "lost" and not self.failure

    @property
    def batch_delay(self) -> float:
        """Seconds for which a run may wait in the worker for others to go with."""
        return self.order.batch_delay if self.order is not None else 0.0

    def candidate(self, nbytes: int, priority: int, now: float) -> Candidate:
        """How it looks to a request with that many bytes of inputs."""
        worker = self.worker
        if worker is None or not self.handle or worker.state == "lost" or self.failure:
            why = "barred" if self.barred else "failed" if self.failure else "lost"
            return Candidate(self.name, False, why, None, None, 0.0)
        estimates = self.estimates
        known, wait = estimates.summary(nbytes), worker.expected_wait(priority, now)
        run, shut, unproven = None if known is None else known.p95, "", False
        breaker = self.breaker
        gate = breaker.gate(now) if breaker.reason or now < breaker.ramp_until else "closed"
        if gate != "closed" and not (gate == "ramp" and breaker.admit(now)):
            shut, unproven = breaker.reason or "slow", gate == "probe"
        elif worker.sheds != "nominal" and sheds(worker.sheds, priority):
            shut = "hot" if worker.state == "hot" or worker.sheds == "warm" else "slow"
        elif self.limit is not None and self.in_flight >= self.limit.limit:
            shut = "busy"
        elif run is not None and now - self.tried > STALE_AFTER:
            unproven = True
        if known is not None and wait and known.p50:
            # The runs ahead spread too, independently: as many times the square root as there are runs, ours included.
            run = known.p50 + (known.p95 - known.p50) * sqrt(1.0 + wait / known.p50)
        fastest = estimates.fastest(nbytes) if unproven else run
        # What Candidate(...) does, without the Python function that a NamedTuple puts before it.
        return tuple.__new__(Candidate, (self.name, True, shut, run, fastest, wait, unproven))

    def health(self, now: float) -> tuple[str, str, float]:
        """(state, its reason for people, wall-clock seconds since when)."""
        worker, breaker = self.worker, self.breaker
        if worker is None:
            return "lost", f"this device has no worker {self.name}", 0.0
        if self.failure:
            return "lost", self.failure, worker.since
        if worker.state == "lost":
            return "lost", worker.reason, worker.since
        if self.handle == 0:
            return "unknown", f"loading: {self.progress}" if self.progress else "loading", worker.since
        since = time.time() - (now - breaker.since) if breaker.since else worker.since
        if breaker.reason:
            why = {"slow": "let an attempt expire", "failed": "runs failed", "lost": "attempts were lost"}
            until = max(0.0, breaker.open_until - now)
            text = f"{why.get(breaker.reason, breaker.reason)}; " + (
                f"probed in {until:.1f} s" if until else "a probe is due or out"
            )
            return "busy" if breaker.reason == "slow" else "lost", text, since
        if worker.state != "ready" or worker.reason:
            return worker.state, worker.reason, worker.since
        if now < breaker.ramp_until:
            return "ready", f"coming back by degrees until {breaker.ramp_until - now:.1f} s from now", since
        return "ready", "", since

    def wait(self, priority: int, now: float) -> float:
        return self.worker.expected_wait(priority, now) if self.worker else 0.0

    def calibrate(self, nbytes: int, link_seconds: Sequence[float], now: float) -> None:
        """A process has loaded and warmed up: what another one measured is forgotten, and its faults are too."""
        if link_seconds:
            self.estimates.calibrate(nbytes, link_seconds, now)
            self.service.calibrate(nbytes, link_seconds, now)
        self.breaker.renewed(now)
        self.tried = now

    def ran_with(self, requests: int) -> None:
        """A run has answered so many requests together; each says so."""
        self.shared += SHARED_LEARNS * (requests - self.shared)

    def settled(self, now: float) -> bool:
        """Whether a run that ends well now says nothing new: one was measured just before, and nothing is held
        against the target.
        """
        calm = not self.breaker.reason and not self.breaker.faults and not self.breaker.ejections
        return calm and now - self.measured_at < LEARN_EVERY

    def measured(self, nbytes: int, run: float, service: float | None, wait: float, now: float) -> None:
        """A run ended well. Seconds: as the request felt it, by the worker's clock (None: it was not for it alone), and
        waiting for an instance.
        """
        if now - self.measured_at < LEARN_EVERY:
            return
        estimate = self.estimates.of(nbytes)
        # One quick answer after a while says that the estimate is of another time: without forgetting it, one answer a
        # second would take minutes to bring a target back.
        before = estimate.quantile(0.95)
        if before is not None and run < 0.5 * before and now - self.measured_at > STALE_AFTER:
            estimate.clear()
        estimate.add(run, now)
        if service is not None and self.worker is not None and self.worker.backend != "cpu":  # nobody asks for its
            self.service.of(nbytes).add(service, now)
        self.waits.add(wait, now)
        self.measured_at = now
        if self.limit is not None:
            self.limit.sample(run + wait, self.in_flight + 1, now)  # the run that has ended included

    def __repr__(self) -> str:
        state = "unloaded" if not self.handle else (self.worker.state if self.worker else "missing")
        return f"<Target {self.name} {state} {self.in_flight} in flight>"


class Sight(Protocol):
    """Looks at a version's answers while they are still in their slots; ``observation.sight`` has the real one."""

    def answered(self, request: Request, answer: Answer) -> None:
        """Copies what is wanted of it; all else is for later, when the answer is on its way."""
        ...


class AnswerForm(NamedTuple):
    """The outputs of answers, without their values."""

    places: Sequence[TensorPlace]
    """As the worker gave them."""
    outputs: tuple[tuple[str, str, tuple[int, ...], int, int], ...]
    """Name, datatype, shape, first byte in the slot, byte behind the last."""
    room: int
    """Bytes that they take in a slot."""


@dataclass(slots=True, eq=False)
class Version:
    """A version that is loaded, as the hot path sees it."""

    label: str
    signature: Signature
    targets: tuple[Target, ...]
    """In the manifest's order of preference."""
    users: int = 0
    """Requests between their routing and their answer."""
    retire: Callable[[], None] | None = None
    """Called once when the last user has left, after the catalog has taken the version out of the routes."""
    seen: Sight | None = None
    """Who looks at its answers; None: nobody."""
    input_index: Mapping[str, int] = field(init=False)
    output_index: Mapping[str, int] = field(init=False)
    output_sizes: tuple[int | None, ...] = field(init=False)
    """Bytes of each output, aligned for a slot; None where the shape or the datatype does not say."""
    plans: dict[object, Plan] = field(default_factory=dict)
    """By form: requests of these forms fit the signature."""
    answers: dict[int, AnswerForm] = field(default_factory=dict)
    """By the id() of their places: checked, because workers are not believed."""

    def __post_init__(self) -> None:
        self.input_index = {spec.name: index for index, spec in enumerate(self.signature.inputs)}
        self.output_index = {spec.name: index for index, spec in enumerate(self.signature.outputs)}
        self.output_sizes = tuple(_fixed_size(spec) for spec in self.signature.outputs)

    def plan(self, request: Request) -> Plan:
        """The plan for a request that fits the signature; kept for others of its form."""
        plan = plan_of(request, self)
        if request.form is not None:
            if len(self.plans) >= KEPT:
                self.plans.clear()
            self.plans[request.form] = plan
        return plan

    def enter(self) -> None:
        self.users += 1

    def leave(self) -> None:
        self.users -= 1
        if not self.users and self.retire is not None:
            retire, self.retire = self.retire, None
            retire()

    def retire_when_idle(self, retire: Callable[[], None]) -> None:
        """Call ``retire`` as soon as nobody uses the version, which may be now."""
        if self.users:
            self.retire = retire
        else:
            retire()

    def __repr__(self) -> str:
        return f"<Version {self.label} {list(self.targets)}>"


def _fixed_size(spec: TensorSpec) -> int | None:
    dtype = BY_NAME.get(spec.datatype)
    if dtype is None or not dtype.itemsize or any(size < 0 for size in spec.shape):
        return None
    return aligned(nbytes(spec.datatype, spec.shape))
