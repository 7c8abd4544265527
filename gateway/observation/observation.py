"""Observation: all that is looked at beside a request's way, in one place for those who wire, ask and show it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from edgeway.datatypes import nbytes
from edgeway.v1 import control_pb2 as control
from gateway.errors import Conflict, InvalidRequest, NotFound
from gateway.models.revision import Deployment, Revision
from gateway.observation.figures import Figures
from gateway.observation.mirror import Mirror
from gateway.observation.ports import Observer
from gateway.observation.references import References
from gateway.observation.sight import SMALL, Handing, Sights
from gateway.observation.status import figure_readings, fill, mirror_readings
from gateway.record.metrics import Reading
from gateway.request import TensorSpec

_LONGEST = 1024
"""Characters of a request id or a label that comes later."""


@dataclass(slots=True)
class Observation:
    """Follows the catalog, takes labels, and tells what is known of answers. Its methods belong to the loop."""

    observer: Observer
    handing: Handing
    mirror: Mirror
    sights: Sights
    references: References
    deployments: Callable[[], Mapping[str, Deployment]]
    labelled: Callable[[str, str, bool], None] = lambda model, version, right: None
    """Hears of each label that was matched: model, version that had answered, whether it was right."""

    def changed(self) -> None:
        """Versions have come or gone, or got other settings."""
        self.sights.refresh(list(self.deployments().values()))

    async def close(self) -> None:
        """Give up what is under way."""
        await self.mirror.close()
        await self.references.close()
        self.handing.hand_on()

    async def feedback(self, model: str, request_id: str, label: str) -> control.FeedbackResponse:
        """Compare a label with the answer that was given.

        Raises:
            InvalidRequest: something is missing, or too long.
            NotFound: no answer of that id is remembered.
            Conflict: the version's outputs are not such that a label could be compared with them.
        """
        for name, text in (("request id", request_id), ("label", label)):
            if not 0 < len(text) <= _LONGEST:
                raise InvalidRequest(f"the {name} must have 1 to {_LONGEST} characters, got {len(text)}")
        self.handing.hand_on()  # its answer may be one of those
        try:
            told = await self.observer.label(model, request_id, label)
        except NotFound:
            deployment = self.deployments().get(model)
            if deployment is not None and not any(map(takes_labels, deployment.ready())):
                outputs = "no output of it is an integer, a text or a row of scores"
                raise Conflict(f"labels can't be compared with what {model} answers: {outputs}") from None
            raise
        self.labelled(model, told.version, told.right)
        verdict = "right" if told.right else f"wrong, it is {label}"
        return control.FeedbackResponse(
            message=f"{model} {told.version} answered {told.predicted}: {verdict}",
            version=told.version,
            predicted=told.predicted,
            right=told.right,
        )

    def forget(self, model: str, label: str) -> None:
        """The version was deleted: its labels go too."""
        self.sights.forget(model, label)

    def fill(self, status: control.VersionStatus, model: str) -> None:
        """What is known of the answers of the version whose status this is."""
        fill(status, self.observer.figures.get((model, status.version), Figures()))

    def readings(self) -> Iterable[Reading]:
        """For the metrics endpoint."""
        for deployment in list(self.deployments().values()):
            for revision in deployment.ready():
                version = (("model", deployment.name), ("version", revision.label))
                yield from figure_readings(
                    version, self.observer.figures.get((deployment.name, revision.label), Figures())
                )
        yield from mirror_readings(self.mirror.tallies(), self.handing.dropped + self.observer.dropped)


def takes_labels(revision: Revision) -> bool:
    """Whether the version has an output that may mean a label: one integer or text, or a row of scores."""
    chosen = revision.plan.feedback.output
    outputs = revision.version.signature.outputs if revision.version is not None else ()
    return any(_means_a_label(spec) for spec in outputs if chosen in (None, spec.name))


def _means_a_label(spec: TensorSpec) -> bool:
    if spec.datatype == "BYTES":
        return all(size in (1, -1) for size in spec.shape)
    if any(size < 0 for size in spec.shape):
        return True  # it may, in some answers
    size = math.prod(spec.shape)
    if size == 1:
        return spec.datatype.startswith(("BOOL", "INT", "UINT"))
    return spec.shape[-1:] == (size,) and nbytes(spec.datatype, spec.shape) <= SMALL
