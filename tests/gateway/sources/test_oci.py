"""oci:, against a real registry where one can be had, and always against a stub that keeps to the specification."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading

import pytest

from benchmarks.file_server import BadLink, FileServer
from gateway.config import FetchSettings
from gateway.models.artifact import ArtifactRefused, Wanted
from gateway.models.fetch import Fetcher
from gateway.models.sources.allowed import Allowed
from gateway.models.sources.oci import Layer, OciSource, choose, layers_of

pytest.importorskip("oras")
CONTENT = os.urandom(2_000_000)
SHA = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def fetch(port, tmp_path, reference="models/detector:1.0", sha256=SHA, size=None, host="127.0.0.1", **more):
    settings = FetchSettings(
        **{"patience_seconds": 0.2, "timeout_seconds": 1.0, "plain_registries": (f"{host}:{port}",), **more}
    )
    wanted = Wanted(f"oci://{host}:{port}/{reference}", sha256, size)
    return Fetcher(settings, first_pause=0.02).fetch(wanted, tmp_path / "partial", lambda done, total: None)


# -- a real registry --------------------------------------------------------------------------------------------------


@pytest.fixture
def pushed(registry, tmp_path):
    """Port of a registry to which oras pushed an artifact with a model and its labels; its manifest's digest."""
    import oras.client

    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(CONTENT)
    (folder / "labels.txt").write_text("cat\ndog\n")
    client = oras.client.OrasClient(insecure=True)
    files = [str(folder / "model.onnx"), str(folder / "labels.txt")]
    pushing = client.push(f"127.0.0.1:{registry}/models/detector:1.0", files=files, disable_path_validation=True)
    return registry, pushing.headers["Docker-Content-Digest"]


def test_a_layer_comes_from_a_real_registry(pushed, tmp_path):
    assert fetch(pushed[0], tmp_path) == SHA
    assert (tmp_path / "partial").read_bytes() == CONTENT


def test_a_manifest_may_be_named_by_its_digest(pushed, tmp_path):
    port, digest = pushed
    assert fetch(port, tmp_path, f"models/detector@{digest}") == SHA


def test_a_file_may_be_named(pushed, tmp_path):
    labels = hashlib.sha256(b"cat\ndog\n").hexdigest()
    assert fetch(pushed[0], tmp_path, "models/detector:1.0#labels.txt", sha256="") == labels


def test_a_link_to_a_real_registry_that_is_cut_goes_on_where_it_was(pushed, tmp_path):
    with BadLink(pushed[0], [400_000] * 4) as link:
        assert fetch(link.port, tmp_path, patience_seconds=10) == SHA
        assert link.cuts == []
        assert link.brought <= 1.2 * len(CONTENT)


@pytest.mark.parametrize("reference", ["models/detector:2.0", "nobodys/model:1.0"])
def test_what_the_registry_does_not_have_is_refused_at_once(pushed, tmp_path, reference):
    with pytest.raises(ArtifactRefused, match="the server answered 404: there is no such file"):
        fetch(pushed[0], tmp_path, reference, patience_seconds=60)


# -- a stub -----------------------------------------------------------------------------------------------------------


class Stub:
    """A registry with one artifact, as the OCI distribution specification describes its answers."""

    def __init__(self, server, files):
        self.server, self.blobs, layers = server, {}, []
        for title, content in files.items():
            digest = "sha256:" + hashlib.sha256(content).hexdigest()
            self.blobs[digest] = content
            layers.append(
                {"digest": digest, "size": len(content), "annotations": {"org.opencontainers.image.title": title}}
            )
        self.manifest = json.dumps({"schemaVersion": 2, "layers": layers}).encode()
        self.token = ""
        self.away = ""
        """Where blobs are really: a redirect, as registries on object stores give."""
        server.answer = self.answer

    def answer(self, handler):
        server = self.server
        if handler.path.startswith("/token"):
            return self.send(handler, 200, json.dumps({"token": self.token}).encode())
        if self.token and handler.headers.get("Authorization") != f"Bearer {self.token}":
            realm = f'Bearer realm="http://127.0.0.1:{server.port}/token",service="stub",scope="repository:x:pull"'
            return self.send(handler, 401, b"", {"Www-Authenticate": realm})
        kind, _, reference = handler.path.removeprefix("/v2/models/detector/").partition("/")
        if kind == "manifests":
            return self.send(handler, 200, self.manifest)
        if kind != "blobs" or reference not in self.blobs:
            return self.send(handler, 404, b'{"errors": [{"code": "BLOB_UNKNOWN"}]}')
        if self.away:
            return self.send(handler, 307, b"", {"Location": self.away})
        server.content, server.answer = self.blobs[reference], None
        server.asked.pop()
        server.serve(handler)
        server.answer = self.answer
        return None

    def send(self, handler, status, body, headers=None):
        handler.send_response(status)
        for name, text in {"Content-Length": str(len(body)), **(headers or {})}.items():
            handler.send_header(name, text)
        handler.end_headers()
        handler.wfile.write(body)


@pytest.fixture
def stub():
    with FileServer() as server:
        yield Stub(server, {"model.onnx": CONTENT, "labels.txt": b"cat"})


def test_a_layer_comes_from_the_stub(stub, tmp_path):
    assert fetch(stub.server.port, tmp_path) == SHA


def test_a_registry_that_wants_a_token_gets_one(stub, tmp_path):
    stub.token = "abc"
    assert fetch(stub.server.port, tmp_path) == SHA


def test_credentials_of_docker_login_are_used_for_the_token_and_not_elsewhere(stub, tmp_path):
    (tmp_path / "home" / ".docker").mkdir(parents=True)
    auths = {"auths": {f"127.0.0.1:{stub.server.port}": {"auth": "dXNlcjpwYXNz"}}}
    (tmp_path / "home" / ".docker" / "config.json").write_text(json.dumps(auths))
    stub.token = "abc"
    with FileServer(CONTENT) as elsewhere:
        stub.away = elsewhere.url("/blob", host="localhost")
        assert fetch(stub.server.port, tmp_path) == SHA
        assert "authorization" not in elsewhere.asked[0][1]
    asked = [headers.get("authorization") for path, headers in stub.server.asked if path.startswith("/token")]
    assert set(asked) == {"Basic dXNlcjpwYXNz"}


def test_a_registry_that_refuses_its_own_token_is_not_asked_for_ever(stub, tmp_path):
    stub.token = "abc"
    stub.server.answer = lambda handler: (
        stub.send(handler, 200, b'{"token": "other"}') if handler.path.startswith("/token") else stub.answer(handler)
    )
    with pytest.raises(ArtifactRefused, match="the server answered 401"):
        fetch(stub.server.port, tmp_path, patience_seconds=60)


def test_blobs_that_are_elsewhere_must_be_allowed_there(stub, tmp_path):
    with FileServer(CONTENT) as elsewhere:
        stub.away = elsewhere.url("/blob", host="localhost")
        with pytest.raises(ArtifactRefused, match="localhost is not one of the hosts"):
            fetch(stub.server.port, tmp_path, hosts=("127.0.0.1",))
        assert elsewhere.asked == []
        assert fetch(stub.server.port, tmp_path, hosts=("127.0.0.1", "localhost")) == SHA


def test_a_redirect_loop_ends(stub, tmp_path):
    digest = next(iter(stub.blobs))
    stub.away = f"http://127.0.0.1:{stub.server.port}/v2/models/detector/blobs/{digest}"
    with pytest.raises(ArtifactRefused, match="redirected more than 5 times"):
        fetch(stub.server.port, tmp_path)


def test_a_redirect_with_an_endless_body_is_not_read(stub, tmp_path):
    with FileServer(CONTENT) as elsewhere:

        def answer(handler):
            if "/blobs/" not in handler.path:
                return stub.answer(handler)
            handler.send_response(307)
            handler.send_header("Location", elsewhere.url("/blob"))
            handler.end_headers()
            while True:
                handler.wfile.write(bytes(100_000))

        stub.server.answer = answer
        assert fetch(stub.server.port, tmp_path) == SHA


def test_a_manifest_without_end_is_refused(stub, tmp_path):
    def endless(handler):
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(bytes(100_000))

    stub.server.answer = endless
    with pytest.raises(ArtifactRefused, match="manifest is longer than 4194304 bytes"):
        fetch(stub.server.port, tmp_path)


def test_a_manifest_that_is_not_the_one_of_its_digest_is_refused(stub, tmp_path):
    with pytest.raises(ArtifactRefused, match="not the one of that digest"):
        fetch(stub.server.port, tmp_path, f"models/detector@sha256:{'0' * 64}")


def test_a_layer_of_another_length_or_content_is_refused(stub, tmp_path):
    with pytest.raises(ArtifactRefused, match="wrong length: the manifest says 5 bytes, the source has 2000000"):
        fetch(stub.server.port, tmp_path, size=5)
    stub.blobs["sha256:" + SHA] = bytes(len(CONTENT))
    with pytest.raises(ArtifactRefused, match="checksum mismatch"):
        fetch(stub.server.port, tmp_path)


def test_a_registry_that_says_nothing_is_given_up(stub, tmp_path):
    release = threading.Event()
    stub.server.answer = lambda handler: release.wait(10)
    with pytest.raises(ArtifactRefused, match=r"the registry: nothing came for 0\.2 s"):
        fetch(stub.server.port, tmp_path, timeout_seconds=0.2)
    release.set()


def test_a_registry_that_is_not_declared_plain_is_asked_over_tls(stub, tmp_path):
    with pytest.raises(ArtifactRefused, match=r"given up .* the registry: "):
        fetch(stub.server.port, tmp_path, plain_registries=())


# -- which layer ------------------------------------------------------------------------------------------------------

MODEL, LABELS = Layer("sha256:" + "a" * 64, 5, "model.onnx"), Layer("sha256:" + "b" * 64, 3, "labels.txt")


def test_the_wanted_digest_goes_before_the_name_and_the_name_before_being_the_only_one():
    assert choose([MODEL, LABELS], "b" * 64, "model.onnx") is LABELS
    assert choose([MODEL, LABELS], "c" * 64, "model.onnx") is MODEL
    assert choose([MODEL], "", "") is MODEL


@pytest.mark.parametrize(
    ("layers", "file", "words"),
    [
        ([MODEL, LABELS], "", "has 2 files, so add #FILE to the URI; it has: model.onnx, labels.txt"),
        ([MODEL], "x", "has no file x; it has: model.onnx"),
        ([], "", "has 0 files"),
    ],
)
def test_a_layer_that_can_not_be_told_is_refused(layers, file, words):
    with pytest.raises(ArtifactRefused, match=words):
        choose(layers, "", file)


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"[]",
        b"{}",
        b'{"layers": 5}',
        b'{"layers": [{}]}',
        b'{"layers": [{"digest": "sha256:../../x", "size": 1}]}',
        b'{"layers": [{"digest": "sha256:%s", "size": -1}]}' % (b"a" * 64),
        b'{"layers": [{"digest": "sha256:%s", "size": 1, "annotations": 5}]}' % (b"a" * 64),
        b"[" * 100_000,
    ],
)
def test_what_is_no_manifest_is_refused(manifest):
    with pytest.raises(ArtifactRefused, match="manifest can't be read"):
        layers_of(manifest)


def test_an_index_is_not_an_artifact():
    with pytest.raises(ArtifactRefused, match="index of several artifacts"):
        layers_of(b'{"manifests": []}')


@pytest.mark.parametrize(
    "uri", ["oci://registry", "oci://registry/x", "oci://user@registry/x:1", "oci://r/../x:1", "oci:r/x:1"]
)
def test_what_names_no_artifact_is_refused(uri):
    with pytest.raises(ArtifactRefused, match="expected oci://REGISTRY/REPOSITORY:TAG"):
        OciSource(uri, "", (), Allowed(), 1.0)


def test_without_the_library_the_remedy_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "oras.auth", None)
    with pytest.raises(ArtifactRefused, match=r"oci: needs oras: pip install 'edgeway\[oci\]'"):
        OciSource("oci://registry/x:1", "", (), Allowed(), 1.0)
