"""Model files and manifests on disk: nothing half-written, nothing unchecked."""

from __future__ import annotations

import hashlib
import os

import pytest

from gateway.models.store import ArtifactRefused, Store, Wanted, local_path


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "state")
    made.prepare()
    return made


def untold(done: int, total: int) -> None:
    """Nobody wants to know how far it is."""


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_file_is_copied_under_its_checksum_and_the_source_may_go(store, tmp_path):
    source = tmp_path / "m.onnx"
    source.write_bytes(b"model")
    artifact = store.fetch(Wanted(source.as_uri(), sha(b"model")), (), untold)
    source.unlink()
    assert artifact.path.read_bytes() == b"model"
    assert store.fetch(Wanted(source.as_uri(), sha(b"model")), (), untold).path == artifact.path  # the copy is enough


def test_a_wrong_checksum_is_refused_and_leaves_nothing(store, tmp_path):
    source = tmp_path / "m.onnx"
    source.write_bytes(b"model")
    with pytest.raises(ArtifactRefused, match=sha(b"model")):
        store.fetch(Wanted(source.as_uri(), "0" * 64), (), untold)
    assert [path for path in (tmp_path / "state" / "models").rglob("*") if path.is_file()] == []


def test_a_damaged_copy_is_fetched_again(store, tmp_path):
    source = tmp_path / "m.onnx"
    source.write_bytes(b"model")
    copy = store.fetch(Wanted(source.as_uri(), sha(b"model")), (), untold).path
    copy.chmod(0o600)
    copy.write_bytes(b"rot")
    assert store.fetch(Wanted(source.as_uri(), sha(b"model")), (), untold).path.read_bytes() == b"model"


@pytest.mark.parametrize("kind", ["missing", "folder", "fifo"])
def test_what_is_no_regular_file_is_refused(store, tmp_path, kind):
    source = tmp_path / "m.onnx"
    if kind == "folder":
        source.mkdir()
    elif kind == "fifo":
        os.mkfifo(source)
    with pytest.raises(ArtifactRefused, match=r"m\.onnx"):
        store.fetch(Wanted(source.as_uri(), "0" * 64), (), untold)


@pytest.mark.parametrize("uri", ["s3://bucket/m.onnx", "https://host/m.onnx", "file://elsewhere/m.onnx"])
def test_a_uri_that_cannot_be_fetched_yet_is_refused_with_the_reason(uri):
    with pytest.raises(ArtifactRefused, match="file"):
        local_path(uri)
