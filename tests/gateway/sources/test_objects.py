"""s3:, gs: and az:, against a real S3-compatible server, and servers that answer wrongly."""

from __future__ import annotations

import hashlib
import os
import sys
from urllib.parse import unquote

import pytest

from benchmarks.file_server import BadLink, FileServer
from gateway.config import FetchSettings, ObjectStore
from gateway.models.artifact import ArtifactRefused, Wanted
from gateway.models.fetch import Fetcher
from gateway.models.sources.allowed import Allowed
from gateway.models.sources.objects import ObjectSource

obstore = pytest.importorskip("obstore")
CONTENT = os.urandom(3_000_000)
SHA = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def credentials(monkeypatch):
    for name in [name for name in os.environ if name.startswith(("AWS_", "AZURE_", "GOOGLE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-key")


@pytest.fixture
def bucket(s3):
    """A bucket ``models`` with ``a/model.onnx``."""
    import boto3

    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{s3}", region_name="us-east-1")
    client.create_bucket(Bucket="models")
    client.put_object(Bucket="models", Key="a/model 1.onnx", Body=CONTENT)
    return client


def settings(port, **more):
    store = ObjectStore(endpoint=f"http://127.0.0.1:{port}", region="us-east-1", allow_http=True)
    return FetchSettings(**{"patience_seconds": 0.2, "timeout_seconds": 1.0, "object_store": store, **more})


def fetch(port, tmp_path, uri="s3://models/a/model%201.onnx", told=lambda done, total: None, size=None, **more):
    return Fetcher(settings(port, **more), first_pause=0.02).fetch(Wanted(uri, SHA, size), tmp_path / "partial", told)


def test_an_object_comes_from_a_real_server(s3, bucket, tmp_path):
    said = []
    assert fetch(s3, tmp_path, told=lambda *progress: said.append(progress), size=len(CONTENT)) == SHA
    assert (tmp_path / "partial").read_bytes() == CONTENT
    assert said[-1] == (len(CONTENT), len(CONTENT))


def test_a_link_to_a_real_server_that_is_cut_goes_on_where_it_was(s3, bucket, tmp_path):
    with BadLink(s3, [500_000] * 6) as link:
        assert fetch(link.port, tmp_path, patience_seconds=10) == SHA
        assert link.cuts == []
        assert link.brought <= 1.2 * len(CONTENT)


def test_an_object_that_changes_midway_is_not_mixed(s3, bucket, tmp_path):
    bucket.put_object(Bucket="models", Key="a/model 1.onnx", Body=bytes(len(CONTENT)))

    def told(done, total):
        bucket.put_object(Bucket="models", Key="a/model 1.onnx", Body=CONTENT)

    with BadLink(s3, [1_000_000]) as link:
        assert fetch(link.port, tmp_path, told=told, patience_seconds=10) == SHA


@pytest.mark.parametrize("uri", ["s3://models/none.onnx", "s3://nobodys/model.onnx"])
def test_what_is_not_there_is_refused_at_once(s3, bucket, tmp_path, uri):
    with pytest.raises(ArtifactRefused, match=f"{uri}: there is no such object or bucket"):
        fetch(s3, tmp_path, uri, patience_seconds=60)


def test_an_object_of_another_length_is_refused(s3, bucket, tmp_path):
    with pytest.raises(ArtifactRefused, match="wrong length: the manifest says 7 bytes, the source has 3000000"):
        fetch(s3, tmp_path, size=7)


def test_a_bucket_counts_as_a_host(s3, bucket, tmp_path):
    assert fetch(s3, tmp_path, hosts=("models",), schemes=("s3",)) == SHA
    (tmp_path / "partial").unlink()
    with pytest.raises(ArtifactRefused, match=r"models is not one of the hosts that fetch\.hosts allows"):
        fetch(s3, tmp_path, hosts=("others", "127.0.0.1"))


@pytest.mark.parametrize(
    ("status", "words"), [(403, "refuses these credentials; give the gateway AWS_ACCESS_KEY_ID"), (400, "answered 400")]
)
def test_what_the_store_refuses_is_not_asked_for_again_and_no_key_is_told(tmp_path, status, words):
    with FileServer() as server:
        server.answer = lambda handler: handler.send_error(status)
        with pytest.raises(ArtifactRefused, match=words) as refused:
            fetch(server.port, tmp_path, patience_seconds=60)
        assert len(server.asked) == 1
        assert "secret" not in str(refused.value)
        assert "\n" not in str(refused.value)


def test_a_store_in_trouble_is_asked_again(tmp_path):
    with FileServer() as server:
        server.answer = lambda handler: handler.send_error(503)
        with pytest.raises(ArtifactRefused, match=r"given up after 0\.2 s without a new byte: the server answered 503"):
            fetch(server.port, tmp_path)
        assert len(server.asked) > 1


def test_a_store_that_says_nothing_and_one_that_is_not_there_are_told_apart(tmp_path):
    import threading

    release = threading.Event()
    with FileServer() as server:
        server.answer = lambda handler: release.wait(10)
        with pytest.raises(ArtifactRefused, match=r"nothing came for 0\.3 s"):
            fetch(server.port, tmp_path, timeout_seconds=0.3)
        release.set()
        port = server.port
    with pytest.raises(ArtifactRefused, match="no connection to the object store"):
        fetch(port, tmp_path)


@pytest.mark.parametrize("begun", [False, True])
def test_closing_ends_a_wait_for_the_store(tmp_path, begun):
    import threading

    asked, release, ended = threading.Event(), threading.Event(), []

    def stall(handler):
        if begun:
            handler.send_response(200)
            headers = {"Content-Length": "300", "ETag": '"x"', "Last-Modified": "Thu, 26 Nov 2026 17:00:00 GMT"}
            for name, text in headers.items():
                handler.send_header(name, text)
            handler.end_headers()
            handler.wfile.write(b"x" * 100)
            handler.wfile.flush()
        asked.set()
        release.wait(20)

    with FileServer() as server:
        server.answer = stall
        fetcher = Fetcher(settings(server.port, timeout_seconds=60.0, patience_seconds=60.0))
        said = threading.Event()

        def run():
            try:
                fetcher.fetch(Wanted("s3://models/m.onnx", SHA), tmp_path / "partial", lambda done, total: said.set())
            except ArtifactRefused as refused:
                ended.append(str(refused))

        thread = threading.Thread(target=run)
        thread.start()
        assert (said if begun else asked).wait(10)
        fetcher.close()
        thread.join(10)
        release.set()
    assert len(ended) == 1
    assert "the gateway stops" in ended[0]


def test_plain_http_to_a_store_must_be_allowed(s3, bucket, tmp_path):
    plain = ObjectStore(endpoint=f"http://127.0.0.1:{s3}", region="us-east-1")
    with pytest.raises(ArtifactRefused, match=r"fetch\.objectStore\.allowHttp"):
        fetch(s3, tmp_path, object_store=plain, patience_seconds=60)


@pytest.mark.parametrize(
    ("scheme", "path"), [("s3", "/models/m.onnx"), ("gs", "/models/m.onnx"), ("az", "/models/m.onnx")]
)
def test_each_store_is_asked_for_its_object_anonymously(tmp_path, monkeypatch, scheme, path):
    """Wire level: the path of a bucket's object, and no credentials."""
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    with FileServer(CONTENT) as server:
        server.extra = {"Last-Modified": "Thu, 26 Nov 2026 17:00:00 GMT"}
        server.cuts = [1_000_000]
        store = ObjectStore(endpoint=f"http://127.0.0.1:{server.port}", allow_http=True, anonymous=True)
        assert fetch(server.port, tmp_path, f"{scheme}://models/m.onnx", object_store=store, patience_seconds=10) == SHA
        assert [unquote(asked) for asked, _ in server.asked] == [path] * 2
        assert "range" in server.asked[1][1]
        assert not any("authorization" in headers for _, headers in server.asked)


@pytest.mark.parametrize("uri", ["s3://models", "s3:///key", "s3://user:secret@models/key", "s3:models/key"])
def test_what_names_no_object_is_refused(tmp_path, uri):
    with pytest.raises(ArtifactRefused, match="expected s3://BUCKET/KEY") as refused:
        fetch(1, tmp_path, uri)
    assert "secret" not in str(refused.value)


def test_without_the_library_the_remedy_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(ArtifactRefused, match=r"s3: needs obstore: pip install 'edgeway\[s3\]'"):
        ObjectSource("s3://models/key", ObjectStore(), Allowed(), 1.0)
