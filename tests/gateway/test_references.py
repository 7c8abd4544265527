"""Drift references are fetched beside what serves, and tried again."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from pathlib import Path

import pytest

from gateway.models.artifact import Artifact, ArtifactRefused
from gateway.models.manifest_files import parse_manifests, with_absolute_uris
from gateway.models.plans import plan_of
from gateway.models.revision import Plan
from gateway.models.store import Store
from gateway.observation.references import Reference, References


def plan(fetch=None, content="c", **more):
    return Plan("m", "1", (1, 1), content, "f", (), reference=fetch, **more)


@pytest.fixture
async def references():
    references = References(first_retry=0.001)
    references.news = asyncio.Event()
    references.changed = references.news.set
    yield references
    await references.close()


async def told(references):
    await asyncio.wait_for(references.news.wait(), 10)
    references.news.clear()


async def test_a_reference_is_fetched_once(references):
    calls = []

    def fetch(told):
        calls.append(1)
        return Artifact(Path("/r.npz"), "0" * 64, ".npz")

    assert references.of(plan(fetch)) == Reference()
    await told(references)
    assert references.of(plan(fetch)) == references.of(plan(fetch)) == Reference(Path("/r.npz"))
    assert len(calls) == 1
    references.of(plan(fetch, "other content"))
    await told(references)
    assert len(calls) == 2


async def test_one_that_fails_says_why_and_is_tried_again(references):
    calls = []

    def fetch(told):
        calls.append(1)
        if len(calls) < 3:
            raise ArtifactRefused("no route to host")
        return Artifact(Path("/r.npz"), "0" * 64, ".npz")

    references.of(plan(fetch))
    await told(references)
    assert references.of(plan(fetch)).problem == "the reference can't be had: no route to host"
    while references.of(plan(fetch)).path is None:
        await told(references)
    assert len(calls) == 3


async def test_the_fetch_for_a_version_that_is_no_more_ends(references):
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def fetch(told):
        begun.set()
        go_on.wait(10)
        try:
            told(1, 2)
        except Exception:
            ended.set()
            raise

    references.of(plan(fetch))
    await asyncio.to_thread(begun.wait, 10)
    references.forget("m", "1")
    go_on.set()
    assert await asyncio.to_thread(ended.wait, 10)


MANIFEST = """
apiVersion: edge.ai/v1
kind: ModelDeployment
metadata: {{name: m}}
spec:
  model: {{uri: file:m.onnx, version: "1", checksum: "sha256:{sha}"}}
  {more}
"""


@pytest.mark.parametrize(
    ("more", "name"),
    [
        ("drift: {reference: file:r.npz, checksum: 'sha256:SHA'}", "r.npz"),
        ("drift: {window: 100}\n  golden: {uri: file:g.npz, checksum: 'sha256:SHA'}", "g.npz"),
        ("rollback: {maxDrift: 0.2}\n  golden: {uri: file:g.npz, checksum: 'sha256:SHA'}", "g.npz"),
        ("golden: {uri: file:g.npz, checksum: 'sha256:SHA'}", None),
        ("rollback: {maxDrift: 0.2}", None),
    ],
)
async def test_the_reference_lies_beside_the_manifest_and_is_by_default_the_golden_samples(
    references, tmp_path, more, name
):
    content = b"outputs"
    digest = hashlib.sha256(content).hexdigest()
    (manifest,) = parse_manifests(MANIFEST.format(sha="0" * 64, more=more.replace("SHA", digest)), "m.yaml")
    store = Store(tmp_path / "state")
    store.prepare()
    made = plan_of(with_absolute_uris(manifest, tmp_path), 1, store)
    if name is None:
        asked = "maxDrift" in more
        said = "the manifest has neither drift.reference nor golden samples" if asked else ""
        assert references.of(made) == Reference(problem=said)
    else:
        (tmp_path / name).write_bytes(content)
        references.of(made)
        await told(references)
        assert references.of(made).path.read_bytes() == content
