"""Observation: all that is looked at beside a request's way, in one place for those who wire, ask and show it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edgeway.v1 import control_pb2 as control
from gateway.errors import InvalidRequest
from gateway.models.revision import Deployment
from gateway.observation.mirror import Mirror
from gateway.observation.ports import Observer
from gateway.observation.sight import Handing, Sights
from gateway.observation.status import figure_readings, fill, mirror_readings
from gateway.record.metrics import Reading

_LONGEST = 1024
"""Characters of a request id or a label that comes later."""


@dataclass(slots=True)
class Observation:
    """Follows the catalog, takes labels, and tells what is known of answers. Its methods belong to the loop."""

    observer: Observer
    handing: Handing
    mirror: Mirror
    sights: Sights
    deployments: Mapping[str, Deployment]

    def changed(self) -> None:
        """Versions have come or gone, or got other settings."""
        self.sights.refresh(list(self.deployments.values()))

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
        told = await self.observer.label(model, request_id, label)
        verdict = "right" if told.right else f"wrong, it is {label}"
        return control.FeedbackResponse(
            message=f"{model} {told.version} answered {told.predicted}: {verdict}",
            version=told.version,
            predicted=told.predicted,
            right=told.right,
        )

    def fill(self, status: control.VersionStatus, model: str) -> None:
        """What is known of the answers of the version whose status this is."""
        fill(status, self.observer.figures(model, status.version))

    def readings(self) -> Iterable[Reading]:
        """For the metrics endpoint."""
        for deployment in list(self.deployments.values()):
            for revision in deployment.ready():
                version = (("model", deployment.name), ("version", revision.label))
                yield from figure_readings(version, self.observer.figures(deployment.name, revision.label))
        yield from mirror_readings(self.mirror.tallies(), self.handing.dropped)
