"""How figures are shown: in ``get deployments`` and at the metrics endpoint."""

from __future__ import annotations

from collections.abc import Iterable

from edgeway.v1 import control_pb2 as control
from gateway.observation.figures import Figures, interval
from gateway.observation.mirror import Tally
from gateway.record.metrics import Reading


def fill(status: control.VersionStatus, figures: Figures) -> None:
    """Say of a version what is known of its answers; what is not known stays absent."""
    if figures.accuracy is not None and figures.accuracy.total:
        status.accuracy = figures.accuracy.rate
        status.accuracy_detail.CopyFrom(share(figures.accuracy.right, figures.accuracy.total))
    if figures.agreement is not None and figures.agreement.total:
        status.agreement = figures.agreement.rate
        status.agreement_detail.CopyFrom(share(figures.agreement.agreed, figures.agreement.total))
    if figures.drift is not None:
        status.drift_detail = figures.drift.detail
        if figures.drift.score is not None:
            status.drift = figures.drift.score


def share(right: int, total: int) -> control.Share:
    """With its 95 % interval."""
    low, high = interval(right, total)
    return control.Share(right=right, total=total, low=low, high=high)


def figure_readings(version: tuple[tuple[str, str], ...], figures: Figures) -> Iterable[Reading]:
    """Metrics of one version. ``version``: its labels."""
    if figures.accuracy is not None and figures.accuracy.total:
        text = "Share of the newest labels that the version had predicted, 0 to 1"
        yield Reading("edgeway_model_accuracy", text, version, figures.accuracy.rate)
    if figures.agreement is not None and figures.agreement.total:
        text = "Share of the newest copied requests that this shadow answers like the others, 0 to 1"
        yield Reading("edgeway_model_agreement", text, version, figures.agreement.rate)
    if figures.drift is not None and figures.drift.score is not None:
        text = "Population stability index of the newest outputs against the reference, 0: the same"
        yield Reading("edgeway_model_drift", text, version, figures.drift.score)


def mirror_readings(tallies: Iterable[tuple[str, str, Tally]], dropped: int) -> Iterable[Reading]:
    """Metrics of shadow traffic and of the copies that nobody looked at."""
    for model, label, tally in tallies:
        for became in ("compared", "failed", "skipped"):
            labels = (("model", model), ("version", label), ("became", became))
            text = "Requests that were to be copied to a shadow version, and what became of the copy"
            yield Reading("edgeway_mirror_requests", text, labels, getattr(tally, became), counter=True)
    text = "Answers that were not looked at because too many waited"
    yield Reading("edgeway_observation_dropped", text, (), dropped, counter=True)
