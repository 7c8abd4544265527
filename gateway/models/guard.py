"""The guard: hands what requests say of versions to their trials, and acts on verdicts and steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from gateway.models.catalog import Catalog
from gateway.models.judge import Trial, Verdict
from gateway.models.manifest import Rollback
from gateway.models.revision import Deployment, Revision
from gateway.models.rollout import Standing
from gateway.models.samples import samples_of
from gateway.models.steering import Steering
from gateway.observation.figures import Figures
from gateway.request import Outcome

EVERY = 0.5
"""Seconds between two reviews."""
_NOTHING = Figures()


@dataclass(slots=True)
class _Bench:
    """The trials of one deployment, by label."""

    trials: dict[str, tuple[object, Trial]] = field(default_factory=dict)
    """With what they were made for: another content, rule or opponent is another trial."""
    percents: dict[str, int | None] = field(default_factory=dict)


class Guard:
    """All methods belong to the loop."""

    def __init__(
        self,
        catalog: Catalog,
        steering: Steering,
        troubled: Callable[[str], bool],
        figures: Callable[[str, str], Figures | None],
        clock: Callable[[], float],
    ) -> None:
        """Args:
        catalog: says which versions serve.
        steering: leaves versions, and steps on.
        troubled: whether a worker is hot, throttled, lost or starting: what runs there says nothing of a version.
        figures: (deployment, version) -> what the observer knows of its answers; None: nothing.
        clock: monotonic seconds.
        """
        self._catalog = catalog
        self._steering = steering
        self._troubled = troubled
        self._figures = figures
        self._clock = clock
        self._benches: dict[str, _Bench] = {}
        catalog.subscribe(self.refresh)

    def refresh(self) -> None:
        """Versions have come or gone: begin the trials of those that serve, and end the others'."""
        for name in [name for name in self._benches if name not in self._catalog.deployments]:
            del self._benches[name]
        for name, deployment in self._catalog.deployments.items():
            bench = self._benches.get(name, _Bench())
            self._seat(deployment, bench)
            if bench.trials:
                self._benches[name] = bench
            else:
                self._benches.pop(name, None)

    def took(self, outcome: Outcome) -> None:
        """A request has ended. Those that count against the model are taken by ``failed``, at once."""
        if outcome.model in self._benches and not outcome.counts_against_model:
            self._observe(outcome)

    def failed(self, outcome: Outcome) -> None:
        """A request has failed by the model's fault: if it is one too many, its version is left before the next one."""
        if outcome.model in self._benches:
            self._observe(outcome)

    def labelled(self, name: str, version: str, right: bool) -> None:
        """A late label came."""
        for _, trial in self._trials(name).values():
            trial.labelled(version, right)

    def look(self) -> None:
        """What no single request decides: rates, run times, drift, and the next steps. Each half second."""
        now = self._clock()
        for name in list(self._benches):
            deployment = self._catalog.deployments.get(name)
            for label, (_, trial) in list(self._trials(name).items()):
                if deployment is not None:
                    verdict = trial.review(now, self._figures(name, label) or _NOTHING, usual_runs(deployment))
                    self._act(name, verdict)
        self._steering.step(lambda name, label: not self.holds_back(name, label))

    def holds_back(self, name: str, label: str) -> str:
        """Why a version should not get its next step yet; empty: nothing speaks against it."""
        found = self._trials(name).get(label)
        return found[1].holds_back(self._figures(name, label) or _NOTHING) if found else "it is not in service"

    def trial(self, name: str, label: str) -> Trial | None:
        """For those who want to see how it stands."""
        found = self._trials(name).get(label)
        return found[1] if found else None

    def _observe(self, outcome: Outcome) -> None:
        for sample in samples_of(outcome, self._troubled):
            for _, trial in list(self._trials(outcome.model).values()):
                self._act(outcome.model, trial.observe(sample))

    def _act(self, name: str, verdict: Verdict | None) -> None:
        if verdict is not None:
            figures = ", ".join(f"{key} {_short(value)}" for key, value in verdict.evidence.items())
            self._steering.condemn(name, verdict.version, f"{verdict.rule}: {verdict.message} [{figures}]")

    def _trials(self, name: str) -> Mapping[str, tuple[object, Trial]]:
        bench = self._benches.get(name)
        return bench.trials if bench is not None else {}

    def _seat(self, deployment: Deployment, bench: _Bench) -> None:
        current, previous = deployment.current, deployment.previous
        seated: dict[str, tuple[object, Trial]] = {}
        for revision in deployment.ready():
            standing = deployment.rollout.find(revision.label)
            if standing is None or not _judged(revision, standing):
                continue
            against = previous if revision is current else current
            opponent = against.label if against is not None else None
            made_for = (revision.plan.content, opponent)
            before = bench.trials.get(revision.label)
            seated[revision.label] = (
                before
                if before is not None and before[0] == made_for
                else (made_for, Trial(revision.label, opponent, revision.plan.rollback))
            )
            if bench.percents.get(revision.label) != standing.percent:
                seated[revision.label][1].step()
            bench.percents[revision.label] = standing.percent
        bench.trials = seated


def usual_runs(deployment: Deployment) -> dict[tuple[str, str], float]:
    """(version, worker) -> seconds that a run usually takes there."""
    known = {}
    for revision in deployment.ready():
        for target in revision.targets:
            seconds = target.estimates.typical(0.5)
            if seconds is not None:
                known[revision.label, target.name] = seconds
    return known


def _judged(revision: Revision, standing: Standing) -> bool:
    """Whether anything could follow for this version: it has rules, or it is on trial."""
    rules: Rollback = revision.plan.rollback
    declared = (rules.max_latency_ratio, rules.min_agreement, rules.min_accuracy, rules.max_drift)
    return (
        rules.auto_rollback_on_error or any(rule is not None for rule in declared) or standing.canary or standing.shadow
    )


def _short(value: float | int | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
