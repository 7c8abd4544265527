"""Manifests from text, files and folders, and back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from gateway.models.manifest import ModelDeployment
from gateway.strict_yaml import ConfigError, Document, parse_all
from gateway.typed_config import typed

_SUFFIXES = (".yaml", ".yml", ".json")


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
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES and not file.name.startswith("."))
        if not files:
            raise ConfigError(str(path), None, "", f"holds no manifest ({', '.join(_SUFFIXES)})")
    manifests: list[ModelDeployment] = []
    for file in files:
        try:
            text = file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as failed:
            raise ConfigError(str(file), None, "", f"can't be read: {failed}") from failed
        found = parse_manifests(text, str(file))
        manifests += [with_absolute_uris(manifest, file.resolve().parent) for manifest in found]
    check_unique(manifests, str(path))
    return manifests


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
    spec = manifest.spec
    model = msgspec.structs.replace(spec.model, uri=_absolute(spec.model.uri, folder))
    artifacts = tuple(msgspec.structs.replace(a, uri=_absolute(a.uri, folder)) for a in spec.artifacts)
    golden = spec.golden and msgspec.structs.replace(spec.golden, uri=_absolute(spec.golden.uri, folder))
    drift = spec.drift
    if drift is not None and drift.reference is not None:
        drift = msgspec.structs.replace(drift, reference=_absolute(drift.reference, folder))
    changed = msgspec.structs.replace(spec, model=model, artifacts=artifacts, golden=golden, drift=drift)
    return msgspec.structs.replace(manifest, spec=changed)


def _absolute(uri: str, folder: Path) -> str:
    path = uri.removeprefix("file:")
    if path == uri or path.startswith("/"):
        return uri
    return (folder / path).resolve().as_uri()


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
