"""Which files of the store are needed: by what serves or may have to, and by what is accepted at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gateway.models.revision import Deployment, Revision
from gateway.models.states import COMING

Deployments = Mapping[str, Deployment]


class Keeping:
    """Knows it as of the last change. ``renew`` belongs to the loop; any thread may read."""

    def __init__(self, deployments: Callable[[], Deployments]) -> None:
        self._deployments = deployments
        self.kept: Mapping[str, str] = {}
        """Keys of files that must stay, each with the deployment and version that needs it."""
        self.wanted: frozenset[str] = frozenset()
        """Keys of all files that accepted manifests name."""

    def renew(self) -> bool:
        """Whether there are files that nothing wants any more."""
        deployments, before = self._deployments(), self.wanted
        self.kept = kept_files(deployments)
        self.wanted = frozenset(key for each in deployments.values() for r in each.revisions for key in r.plan.keys)
        return not before <= self.wanted


def kept_files(deployments: Deployments) -> dict[str, str]:
    """Files of versions that are loaded or on their way, or that come back by themselves: current, previous, those with
    a share and those that pins reach are among them. Besides, of the version that a roll-back would lead to.
    """
    kept: dict[str, str] = {}
    for name, deployment in sorted(deployments.items()):
        needed = [revision for revision in deployment.revisions if _may_serve(revision)]
        fallbacks = {revision.plan.rollback.previous_version for revision in needed}
        needed += [revision for revision in deployment.revisions if revision.label in fallbacks]
        kept |= {key: f"{name} {revision.label}" for revision in needed for key in revision.plan.keys}
    return kept


def _may_serve(revision: Revision) -> bool:
    coming = revision.state in ("new", *COMING)
    return revision.version is not None or coming or revision.held or revision.short_of_memory
