"""Manifests from text, files and folders, and back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from gateway.models.manifest import Artifact, ModelDeployment, ModelFile
from gateway.strict_yaml import ConfigError, Document, parse_all
from gateway.typed_config import typed

SUFFIXES = (".yaml", ".yml", ".json")
_F = TypeVar("_F", ModelFile, Artifact)


def parse_manifests(text: str, source: str) -> list[ModelDeployment]:
    """All manifests of one text (YAML, or JSON, which is YAML). Raises ConfigError."""
    documents = [document for document in parse_all(text, source) if document.data is not None]
    manifests = [typed(document, ModelDeployment) for document in documents]
    if not manifests:
        raise ConfigError(source, None, "", "holds no manifest")
    check_unique(manifests, source)
    return manifests


def load_manifests(path: Path) -> list[ModelDeployment]:
    """Manifests of a file, or of all manifest files of a folder, with their ``file:`` URIs made absolute.

    Raises:
        ConfigError
    """
    manifests: list[ModelDeployment] = []
    for file in manifest_files(path):
        found = parse_manifests(decode(read_file(file), str(file)), str(file))
        manifests += [with_absolute_uris(manifest, file.resolve().parent) for manifest in found]
    check_unique(manifests, str(path))
    return manifests


def manifest_files(path: Path) -> list[Path]:
    """The file itself, or those of a folder. Raises ConfigError: the folder has none."""
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and not file.name.startswith("."))
    if not files:
        raise ConfigError(str(path), None, "", f"holds no manifest ({', '.join(SUFFIXES)})")
    return files


def read_file(path: Path) -> bytes:
    """Raises ConfigError."""
    try:
        return path.read_bytes()
    except OSError as failed:
        raise ConfigError(str(path), None, "", f"can't be read: {failed.strerror}") from failed


def decode(content: bytes, source: str) -> str:
    """Raises ConfigError."""
    try:
        return content.decode()
    except UnicodeDecodeError as broken:
        raise ConfigError(source, None, "", f"is not UTF-8: {broken.reason} at byte {broken.start}") from broken


def check_unique(manifests: Sequence[ModelDeployment], source: str) -> None:
    """Raises ConfigError: a version is declared twice, or percents of one deployment pass 100."""
    seen: set[tuple[str, str]] = set()
    percents: dict[str, int] = {}
    for manifest in manifests:
        identity = (manifest.name, manifest.version)
        if identity in seen:
            raise ConfigError(
                source, None, "spec.model.version", f"{manifest.name} {manifest.version} is declared twice"
            )
        seen.add(identity)
        percents[manifest.name] = percents.get(manifest.name, 0) + (manifest.spec.traffic.percent or 0)
        if percents[manifest.name] > 100:
            problem = f"the versions of {manifest.name} get {percents[manifest.name]} % in sum"
            raise ConfigError(source, None, "spec.traffic.percent", problem)


def with_absolute_uris(manifest: ModelDeployment, folder: Path) -> ModelDeployment:
    """``file:relative`` is relative to the manifest: make it absolute before it leaves its folder."""
    replace, spec = msgspec.structs.replace, manifest.spec
    drift = spec.drift

    def of_file(file: _F) -> _F:
        external = tuple(replace(e, uri=e.uri and _absolute(e.uri, folder)) for e in file.external_data)
        return replace(file, uri=_absolute(file.uri, folder), external_data=external)

    changed = replace(
        spec,
        model=of_file(spec.model),
        artifacts=tuple(of_file(artifact) for artifact in spec.artifacts),
        golden=spec.golden and replace(spec.golden, uri=_absolute(spec.golden.uri, folder)),
        drift=drift and replace(drift, reference=drift.reference and _absolute(drift.reference, folder)),
    )
    return replace(manifest, spec=changed)


def _absolute(uri: str, folder: Path) -> str:
    """Links on the way are kept: a ConfigMap's lead through a folder that gets another name at each change."""
    path = uri.removeprefix("file:")
    if path == uri or path.startswith("/"):
        return uri
    whole = folder / path
    return (whole.resolve() if ".." in whole.parts else whole).as_uri()


def to_plain(manifest: ModelDeployment) -> dict[str, Any]:
    """As plain data, defaults left out where they were."""
    plain = msgspec.to_builtins(manifest)
    assert isinstance(plain, dict)
    return plain


def from_json(text: str, source: str) -> ModelDeployment:
    """One manifest from JSON. Raises ConfigError."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as broken:
        raise ConfigError(source, None, "", f"is not JSON: {broken}") from broken
    return typed(Document(source, data, {}), ModelDeployment)


def content_hash(manifest: ModelDeployment) -> str:
    """Equal exactly for manifests that say the same."""
    return hashlib.sha256(json.dumps(to_plain(manifest), sort_keys=True).encode()).hexdigest()
