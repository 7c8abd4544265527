"""Plans: what the catalog should bring up, from manifests and from the repository."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from gateway.errors import Conflict, NotFound
from gateway.models.artifact import Artifact as StoredFile
from gateway.models.artifact import Told, Wanted
from gateway.models.catalog import Catalog
from gateway.models.files import file_sha256
from gateway.models.manifest import (
    Artifact,
    Batching,
    Check,
    Golden,
    ModelDeployment,
    ModelFile,
    accelerator_kind,
    hex_digest,
)
from gateway.models.manifest_files import content_hash
from gateway.models.repository import KEPT_VERSIONS, Found, follow, scan
from gateway.models.revision import Plan, PlannedArtifact
from gateway.models.sources.uris import beside
from gateway.models.store import Store

log = logging.getLogger(__name__)


def plan_of(manifest: ModelDeployment, sequence: int, store: Store) -> Plan:
    """The plan of an accepted manifest; ``sequence`` orders manifests by acceptance."""
    spec = manifest.spec
    targets = manifest.target_order()
    budget, batching = spec.latency.budget_ms, spec.batching or Batching(max_size=1)
    files = [*_files(spec.model), *(wanted for file in spec.artifacts for wanted in _files(file))]
    content = _same_files(manifest, batching)
    golden = _golden(spec.golden, content)
    reference = _reference(manifest, golden, content)
    return Plan(
        name=manifest.name,
        version=manifest.version,
        order=(1, sequence),
        content=content_hash(manifest),
        file=content,
        artifacts=(
            _planned(spec.model, "", spec.golden, store),
            *(_planned(file, accelerator_kind(file.accelerator), file.golden, store) for file in spec.artifacts),
        ),
        keys=frozenset(wanted.key for wanted in (*files, golden, reference) if wanted is not None),
        golden=_fetch(golden, store),
        reference=_fetch(reference, store),
        targets=targets,
        may_leave=bool(spec.targets),
        percent=spec.traffic.percent,
        budget=budget / 1e3 if budget else None,
        reject_infeasible=spec.latency.when_infeasible == "reject",
        degrade=spec.latency.degrade,
        checksum=spec.model.checksum,
        batch_size=batching.max_size,
        batch_delay=batching.max_delay_ms / 1e3,
        min_memory=(spec.hardware.min_memory_mb or 0) << 20,
        traffic=spec.traffic,
        rollback=spec.rollback,
        drift=spec.drift,
        feedback=spec.feedback,
        samples=spec.samples,
    )


def _files(file: ModelFile | Artifact) -> tuple[Wanted, ...]:
    """The model's file, and its external data."""
    external = (
        Wanted(e.uri or beside(file.uri, e.path), hex_digest(e.checksum), e.size, e.path) for e in file.external_data
    )
    return Wanted(file.uri, hex_digest(file.checksum), file.size), *external


def _planned(file: ModelFile | Artifact, accelerator: str, check: Check | None, store: Store) -> PlannedArtifact:
    wanted, *external = _files(file)
    return PlannedArtifact(
        accelerator,
        wanted.suffix,
        lambda told: store.fetch(wanted, external, told),
        file.uri.startswith("file:"),
        check,
    )


def _golden(golden: Golden | None, edition: str) -> Wanted | None:
    """Without a checksum they are fetched anew when the version is loaded anew."""
    return Wanted(golden.uri, hex_digest(golden.checksum or ""), edition=edition) if golden else None


def _reference(manifest: ModelDeployment, golden: Wanted | None, edition: str) -> Wanted | None:
    """The outputs that drift is measured against: golden samples have some too."""
    drift = manifest.spec.drift
    if drift is None and manifest.spec.rollback.max_drift is None:
        return None
    if drift is None or drift.reference is None:
        return golden
    return Wanted(drift.reference, hex_digest(drift.checksum or ""), edition=edition)


def _fetch(wanted: Wanted | None, store: Store) -> Callable[[Told], StoredFile] | None:
    return None if wanted is None else partial(store.fetch, wanted, ())


def _same_files(manifest: ModelDeployment, batching: Batching) -> str:
    """Equal for manifests whose files, and how they are loaded, are the same."""
    spec = manifest.spec
    parts = (spec.model, spec.artifacts, spec.golden, manifest.target_order(), bool(spec.targets), batching)
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()


def plan_of_found(found: Found, rank: int) -> Plan:
    """The plan of a repository file; ``rank`` orders the versions of one model."""
    path = found.path.resolve()
    content = f"{path} {found.stamp}"
    return Plan(
        name=found.name,
        version=found.version,
        order=(0, rank),
        content=content,
        file=content,
        artifacts=(PlannedArtifact("", path.suffix, lambda told: StoredFile(path, file_sha256(path), path.suffix)),),
    )


class RepositoryControl:
    """Keeps the catalog as the repository is (``follow``), or loads and unloads on demand."""

    def __init__(self, root: Path, catalog: Catalog) -> None:
        self._root = root
        self._catalog = catalog
        self._offered: dict[tuple[str, str], str] = {}

    async def follow(self, synced: Callable[[], None]) -> None:
        """Until cancelled. ``synced()`` is called after every change, the first time at once."""

        async def changed(models: dict[str, list[Found]]) -> None:
            self._sync(models)
            synced()

        await follow(self._root, changed)

    async def load(self, name: str) -> None:
        """Load the newest versions of a model, and wait.

        Raises:
            NotFound: the repository has no such model.
            Conflict: it can't be loaded.
        """
        found = (await asyncio.to_thread(scan, self._root)).get(name)
        if not found:
            raise NotFound(f"the repository has no model {name!r}")
        for key in [key for key in self._offered if key[0] == name]:
            del self._offered[key]
        self._sync({name: found}, only=name)
        await self._catalog.settled()
        deployment = self._catalog.deployments.get(name)
        if deployment is None or not deployment.ready():
            reasons = [r.reason for r in deployment.revisions] if deployment else []
            raise Conflict(f"model {name} can't be loaded: {'; '.join(reasons) or 'unloaded meanwhile'}")

    async def unload(self, name: str) -> None:
        """Take a model out of service. Raises NotFound."""
        self._catalog.withdraw(name)
        for key in [key for key in self._offered if key[0] == name]:
            del self._offered[key]

    def _sync(self, models: dict[str, list[Found]], only: str | None = None) -> None:
        wanted = {
            (found.name, found.version): plan_of_found(found, rank)
            for versions in models.values()
            for rank, found in enumerate(versions)
            if rank >= len(versions) - KEPT_VERSIONS
        }
        for key in [key for key in self._offered if key not in wanted and only in (None, key[0])]:
            del self._offered[key]
            try:
                self._catalog.withdraw(*key)
            except NotFound:
                log.debug("%s %s was withdrawn already", *key)
        for key, plan in wanted.items():
            if self._offered.get(key) != plan.content:
                self._offered[key] = plan.content
                self._catalog.offer(plan)
