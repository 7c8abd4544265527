"""Steering: what operators and verdicts change. Each change is a pure step of the roll-out, kept before it is said."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from gateway.errors import Conflict, NotFound, Refused
from gateway.models import rollout as steps
from gateway.models.catalog import Catalog
from gateway.models.ledger import Ledger, NotKept
from gateway.models.manifest import ModelDeployment
from gateway.models.manifest_files import content_hash, from_json, to_plain
from gateway.models.plans import plan_of
from gateway.models.revision import Plan
from gateway.models.rollout import Rank, Rollout, check_percents, first_share
from gateway.models.signing import Highest, Untrusted, check_counters
from gateway.models.state import Change, Known, Stored
from gateway.models.store import Store
from gateway.strict_yaml import ConfigError

Step = Callable[[Rollout, Rank, set[str], set[str]], Rollout]
"""From the roll-out, a rank for what becomes newest, the labels that are ready and those on their way, to the next."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """What became of one manifest. ``changed``: False: this content is already in force."""

    name: str
    version: str
    changed: bool


class Steering:
    """Owns what is accepted and how deployments stand. Commands go one after the other; a verdict acts at once."""

    def __init__(
        self,
        catalog: Catalog,
        ledger: Ledger,
        store: Store,
        emit: Callable[..., None],
        wall: Callable[[], float] = time.time,
        signatures_required: bool = False,
    ) -> None:
        """``emit(kind, message, deployment=..., version=...)`` records an event; ``wall``: seconds since the epoch."""
        self._catalog = catalog
        self._ledger = ledger
        self._store = store
        self._emit = emit
        self._signatures_required = signatures_required
        self._wall = wall
        self._sequence = 0
        self._stored: dict[tuple[str, str], Stored] = {}
        self._counters: dict[str, Highest] = {}
        self._commands = asyncio.Lock()
        self._keeping: set[asyncio.Future[None]] = set()

    def restore(self, known: Known) -> None:
        """Bring up what was accepted before the process started."""
        for problem in known.problems:
            self._emit("state-damaged", problem)
        self._counters = dict(known.counters)
        ranks = [s.rank[1] for r in known.rollouts.values() for s in r.standings if s.rank[0]]
        self._sequence = max([*ranks, *(each.sequence for each in known.manifests)], default=0)
        self._catalog.restore(known.rollouts)
        plans = []
        for each in known.manifests:
            try:
                manifest = from_json(json.dumps(each.manifest), "stored manifest")
            except ConfigError as refused:
                self._emit("state-damaged", str(refused))
                continue
            self._stored[manifest.name, manifest.version] = each
            plans.append(plan_of(manifest, each.sequence, self._store))
        self._catalog.offer_all(plans)

    @property
    def origins(self) -> Mapping[tuple[str, str], str]:
        """Where each accepted version came from: empty: an operator."""
        return {key: stored.origin for key, stored in self._stored.items()}

    # -- commands ----------------------------------------------------------------------------------------------

    async def accept(
        self,
        manifests: Sequence[ModelDeployment],
        origin: str = "",
        signed: Container[tuple[str, str]] = (),
    ) -> list[Accepted]:
        """Keep manifests, and begin to bring up what they declare. ``signed``: those that a trusted key has signed.

        Raises:
            InvalidRequest: the percents of a deployment would pass 100.
            Refused: one that is signed is older than what was accepted before.
            NotKept
        """
        async with self._commands:
            counters = self._counted([m for m in manifests if (m.name, m.version) in signed])
            self._check_percents(manifests)
            accepted, stored, plans = [], {}, []
            for manifest in manifests:
                key = manifest.name, manifest.version
                changed = self._changes(manifest)
                accepted.append(Accepted(*key, changed))
                if changed:
                    self._sequence += 1
                    stored[key] = Stored(self._sequence, self._wall(), to_plain(manifest), origin)
                    plans.append(plan_of(manifest, self._sequence, self._store))
                elif key in self._stored and self._stored[key].origin not in ("", origin):
                    # An operator wants it too now, or it moved to another file; what an operator wants stays so.
                    stored[key] = replace(self._stored[key], origin=origin)
            rollouts = self._declared(plans)
            if stored or counters:
                await self._ledger.commit(Change(stored, (), rollouts, counters))
                self._stored |= stored
                self._counters |= counters
            for each in accepted:
                if each.changed:
                    self._emit("applied", origin or "by command", deployment=each.name, version=each.version)
            if plans:
                self._catalog.offer_all(plans)
                self._keep(*rollouts)
        return accepted

    async def delete(self, name: str, version: str, origin: str | None = None) -> list[str]:
        """The versions that went. ``origin``: only if it still came from there. Raises NotFound, NotKept."""
        async with self._commands:
            if origin is not None and self.origins.get((name, version)) != origin:
                return []
            deployment = self._catalog.deployment(name)
            labels = [label for label in deployment.labels() if version in ("", label)]
            if not labels:
                raise NotFound(f"deployment {name} has no version {version}")
            left = steps.withdraw(deployment.rollout, labels)
            keys = [(name, label) for label in labels]
            await self._ledger.commit(Change({}, keys, {name: left if left.standings else None}))
            for key in keys:
                self._stored.pop(key, None)
            return self._catalog.withdraw(name, version)

    async def promote(self, name: str, label: str) -> str:
        """Raises NotFound, NotKept, Conflict: it can't be loaded."""
        async with self._commands:
            self._catalog.deployment(name).rollout.get(label)
            await self._change(name, lambda now, rank, ready, coming: steps.promote(now, label, rank, ready))
            self._emit("promoted", "100 %, by command", deployment=name, version=label)
            ready = self._catalog.deployment(name).serving(label) is not None
        return f"{name} {label}: promoted" + ("" if ready else "; it takes over once it is ready")

    async def roll_back(self, name: str, to: str) -> str:
        """Raises NotFound, NotKept, Conflict: there is nothing to go back from, or nowhere to go."""
        if not to:
            return await self._roll_back(name, to)
        self._catalog.deployment(name).rollout.get(to)
        async with self._catalog.at_hand(name, to):
            return await self._roll_back(name, to)

    async def _roll_back(self, name: str, to: str) -> str:
        left = serves = ""

        def step(now: Rollout, rank: Rank, ready: set[str], coming: set[str]) -> Rollout:
            nonlocal left, serves
            made, left, serves = steps.roll_back(now, to, rank, ready, coming, "rolled back by command")
            return made

        async with self._commands:
            await self._change(name, step)
            self._emit("rolled-back", f"by command; {serves} serves", deployment=name, version=left)
        return f"{name}: {left} rolled back, {serves} serves"

    async def set_traffic(self, name: str, percents: Mapping[str, int]) -> str:
        """Raises NotFound, InvalidRequest, NotKept."""
        async with self._commands:
            self._catalog.deployment(name)
            await self._change(name, lambda now, rank, ready, coming: steps.set_traffic(now, percents))
            shares = ", ".join(f"{label} {percent} %" for label, percent in self._shares(name))
            self._emit("traffic", f"by command: {shares}", deployment=name)
        return f"{name}: {shares}"

    # -- what happens by itself --------------------------------------------------------------------------------

    def condemn(self, name: str, label: str, why: str) -> bool:
        """A version has failed: it is left at once, and that is kept as soon as the disk allows. False: there is no
        other one that could serve, so it goes on.
        """
        deployment = self._catalog.deployment(name)
        try:
            made, left, serves = steps.verdict(
                deployment.rollout, label, self._rank(), deployment.serving_labels(), why
            )
        except Conflict as nowhere:
            self._emit("roll-back-impossible", f"{why}; {nowhere}", deployment=name, version=label)
            return False
        self._catalog.adopt(name, made)
        self._emit("rolled-back", f"{why}; {serves} serves", deployment=name, version=left)
        self._keep(name)
        return True

    def step(self, healthy: Callable[[str, str], bool]) -> None:
        """Begin and end steps of versions on trial. ``healthy(name, label)``: whether all speaks for the next one."""
        now = self._wall()
        for name, deployment in self._catalog.deployments.items():
            ready = deployment.serving_labels()
            for standing in deployment.rollout.standings:
                if not standing.steps or standing.left or standing.label not in ready:
                    continue
                if not standing.step_since or standing.step_since > now:  # the clock was set back
                    self._catalog.adopt(name, steps.begin_step(deployment.rollout, standing.label, now))
                    self._keep(name)
                elif now - standing.step_since >= standing.step_seconds and healthy(name, standing.label):
                    self._advance(name, standing.label, standing.steps[0], now)

    def _advance(self, name: str, label: str, percent: int, now: float) -> None:
        deployment = self._catalog.deployment(name)
        others = {each: share for each, share in deployment.rollout.percents().items() if each != label}
        if percent < 100 and sum(others.values()) + percent > 100:
            return  # others hold what it is to get: it waits
        made = steps.advance(deployment.rollout, label, self._rank(), deployment.serving_labels(), now)
        self._catalog.adopt(name, made)
        kind, what = ("promoted", "100 %, by its steps") if percent == 100 else ("step", f"{percent} %")
        self._emit(kind, what, deployment=name, version=label)
        self._keep(name)

    def keep(self, name: str) -> None:
        """Something about the deployment has changed by itself: keep it."""
        self._keep(name)

    async def settled(self) -> None:
        """Returns when all that changed by itself is kept, or could not be."""
        while self._keeping:
            await asyncio.wait(self._keeping)

    # -- keeping -----------------------------------------------------------------------------------------------

    async def _change(self, name: str, step: Step) -> None:
        """Make the step, keep it, and put it into force; again, where a verdict has come between."""
        while True:
            deployment = self._catalog.deployment(name)
            before = deployment.rollout
            after = step(before, self._rank(), deployment.serving_labels(), deployment.coming())
            await self._ledger.commit(Change(rollouts={name: after}))
            if self._catalog.deployment(name).rollout is before:
                self._catalog.adopt(name, after)
                return

    def _keep(self, *names: str) -> None:
        self._spawn(self._kept(names))

    async def _kept(self, names: Iterable[str]) -> None:
        async with self._commands:
            known = self._catalog.deployments
            rollouts = {name: known[name].rollout for name in names if name in known}
            try:
                if rollouts:
                    await self._ledger.commit(Change(rollouts=rollouts))
            except NotKept as failed:  # what is in force stays: a version that failed must not serve on
                for name in rollouts:
                    self._emit("state-not-kept", str(failed), deployment=name)

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._keeping.add(task)
        task.add_done_callback(self._keeping.discard)

    def _rank(self) -> Rank:
        self._sequence += 1
        return 1, self._sequence

    # -- looking -----------------------------------------------------------------------------------------------

    def _declared(self, plans: Sequence[Plan]) -> dict[str, Rollout]:
        """The roll-outs of all deployments that these plans are of, as they will stand."""
        made: dict[str, Rollout] = {}
        for plan in plans:
            deployment = self._catalog.deployments.get(plan.name)
            before = made.get(plan.name) or (deployment.rollout if deployment else Rollout())
            made[plan.name] = steps.declare(before, plan.standing())
        return made

    def _changes(self, manifest: ModelDeployment) -> bool:
        """Whether this content is new, or its version failed and shall be tried again."""
        deployment = self._catalog.deployments.get(manifest.name)
        newest = deployment.newest(manifest.version) if deployment else None
        return newest is None or newest.state in ("failed", "barred") or newest.plan.content != content_hash(manifest)

    def _counted(self, signed: Sequence[ModelDeployment]) -> dict[str, Highest]:
        """The counters that signed manifests raise. Raises Refused."""
        try:
            return check_counters(signed, self._signatures_required, self._counters.get, self._in_force)
        except Untrusted as refused:
            raise Refused(str(refused)) from refused

    def _in_force(self, name: str, label: str) -> str | None:
        deployment = self._catalog.deployments.get(name)
        newest = deployment.newest(label) if deployment else None
        return newest.plan.content if newest else None

    def _check_percents(self, manifests: Sequence[ModelDeployment]) -> None:
        """Raises InvalidRequest: the percents of one deployment would pass 100."""
        for name in {manifest.name for manifest in manifests}:
            deployment = self._catalog.deployments.get(name)
            percents = {}
            if deployment is not None:
                standing = deployment.rollout.percents()
                percents = {label: standing[label] for label in deployment.labels() if label in standing}
            for manifest in manifests:
                if manifest.name == name and self._changes(manifest):
                    traffic = manifest.spec.traffic
                    percents[manifest.version] = first_share(traffic.percent, traffic.steps)[0] or 0
            check_percents(percents, name)

    def _shares(self, name: str) -> list[tuple[str, int]]:
        return self._catalog.deployment(name).shares()
