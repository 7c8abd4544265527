"""Fetching over links that are cut and from servers that lie, with real ones on this machine."""

from __future__ import annotations

import hashlib
import os
import resource
import ssl
import subprocess
import sys
import threading
import time
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from benchmarks.file_server import FileServer, cut_link
from benchmarks.harness import wait_for
from gateway.config import FetchSettings
from gateway.models.artifact import ArtifactRefused, LinkLost, Wanted
from gateway.models.fetch import Fetcher
from gateway.models.sources.partial import note_of

CONTENT = os.urandom(300_000)
SHA = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server():
    with FileServer(CONTENT) as running:
        yield running


@pytest.fixture
def partial(tmp_path):
    return tmp_path / "model.partial"


def settings(**more):
    return FetchSettings(**{"patience_seconds": 0.2, "timeout_seconds": 1.0, **more})


def untold(done, total):
    """Nobody wants to know how far it is."""


def fetch(uri, partial, told=untold, sha256=SHA, size=None, **more):
    return Fetcher(settings(**more), first_pause=0.02).fetch(Wanted(uri, sha256, size), partial, told)


def leftovers(partial):
    return [path for path in (partial, note_of(partial)) if path.exists()]


# -- bad links --------------------------------------------------------------------------------------------------------


def test_a_file_comes_whole_with_its_digest_and_nothing_beside_it(server, partial):
    assert fetch(server.url(), partial) == SHA
    assert partial.read_bytes() == CONTENT
    assert leftovers(partial) == [partial]


def test_a_link_that_is_cut_again_and_again_goes_on_where_it_was(server, partial):
    server.cuts = [30_000] * 9
    assert fetch(server.url(), partial) == SHA
    assert len(server.asked) == 10
    assert server.sent <= 1.2 * len(CONTENT)
    assert partial.read_bytes() == CONTENT


def test_progress_renews_the_patience(server, partial):
    """Ten tries take longer than the patience; each brings something."""
    server.cuts, server.rate = [30_000] * 9, 600_000
    began = time.monotonic()
    assert fetch(server.url(), partial, patience_seconds=0.2) == SHA
    assert time.monotonic() - began > 0.2


def test_a_link_that_brings_nothing_new_is_given_up_after_the_patience_and_what_came_stays(server, partial):
    server.cuts = [100_000] + [0] * 1000
    with pytest.raises(LinkLost, match=r"given up after 0\.2 s without a new byte: the link was cut"):
        fetch(server.url(), partial)
    assert 0 < partial.stat().st_size <= 100_000
    server.cuts, server.sent = [], 0
    assert fetch(server.url(), partial) == SHA
    assert server.sent <= 200_000 + 64_000


def test_a_process_that_is_killed_leaves_what_came_to_the_next(server, partial):
    server.rate = 400_000
    code = """if True:
        import sys, pathlib
        from gateway.config import FetchSettings
        from gateway.models.fetch import Fetcher
        from gateway.models.artifact import Wanted
        Fetcher(FetchSettings()).fetch(Wanted(sys.argv[1], sys.argv[2]), pathlib.Path(sys.argv[3]), lambda *_: None)
    """
    with subprocess.Popen([sys.executable, "-c", code, server.url(), SHA, str(partial)]) as process:
        wait_for(lambda: partial.exists() and partial.stat().st_size > 100_000, 20, "a part of the file")
        process.kill()
    kept, server.rate = partial.stat().st_size, None
    assert fetch(server.url(), partial) == SHA
    assert server.asked[-1][1]["range"] == f"bytes={kept}-"


def test_a_server_that_gives_no_parts_is_read_from_the_beginning(server, partial):
    server.cuts, server.ranges = [100_000], False
    assert fetch(server.url(), partial) == SHA
    assert server.sent == pytest.approx(400_000, abs=70_000)


def test_what_is_read_again_is_no_progress(server, partial):
    server.cuts, server.ranges = [100_000] * 1000, False
    with pytest.raises(ArtifactRefused, match="without a new byte"):
        fetch(server.url(), partial)


def test_a_file_that_changes_midway_is_not_mixed(server, partial):
    server.content, server.tag, server.cuts = bytes(300_000), '"old"', [100_000]

    def told(done, total):
        if done:
            server.content, server.tag = CONTENT, '"new"'

    assert fetch(server.url(), partial, told) == SHA


def test_a_file_that_changes_midway_unnoticed_is_fetched_once_more(server, partial):
    """Without validators the pieces of two files meet, and only the checksum tells."""
    server.content, server.validators, server.cuts = bytes(300_000), False, [100_000]

    def told(done, total):
        if done:
            server.content = CONTENT

    assert fetch(server.url(), partial, told) == SHA


def test_another_size_midway_tells_another_file(server, partial):
    server.content, server.validators, server.cuts = bytes(200_000), False, [100_000]

    def told(done, total):
        if done:
            server.content = CONTENT

    assert fetch(server.url(), partial, told) == SHA
    assert ["range" in headers for _, headers in server.asked] == [False, True, False]  # the pieces were never joined


@pytest.mark.parametrize("damage", ["zeros", "shorter", "no note", "another source"])
def test_what_an_earlier_process_left_is_trusted_only_with_its_digest(server, partial, damage):
    server.cuts = [200_000] + [0] * 1000
    with pytest.raises(ArtifactRefused):
        fetch(server.url(), partial)
    server.cuts = []
    if damage == "zeros":  # as after a power cut: the length is on the disk, the bytes are not
        partial.write_bytes(bytes(partial.stat().st_size))
    elif damage == "shorter":
        partial.write_bytes(partial.read_bytes()[:50_000])
    elif damage == "no note":
        note_of(partial).unlink()
    uri = server.url("/other.onnx") if damage == "another source" else server.url()
    assert fetch(uri, partial) == SHA


def test_a_file_that_is_here_whole_needs_no_server(server, partial):
    server.cuts = [300_000 - 1] + [0] * 1000
    with pytest.raises(ArtifactRefused):
        fetch(server.url(), partial)
    partial.write_bytes(CONTENT)
    uri = server.url()
    server.close()
    assert fetch(uri, partial) == SHA


# -- servers that lie -------------------------------------------------------------------------------------------------


def test_a_wrong_checksum_is_refused_and_leaves_nothing(server, partial):
    with pytest.raises(ArtifactRefused, match=f"checksum mismatch: expected sha256:{'0' * 64}, got sha256:{SHA}"):
        fetch(server.url(), partial, sha256="0" * 64)
    assert len(server.asked) == 1
    assert leftovers(partial) == []


def test_a_wrong_checksum_over_a_link_that_is_cut_is_fetched_twice_and_no_more(server, partial):
    server.cuts = [100_000, 300_000, 100_000]
    with pytest.raises(ArtifactRefused, match="checksum mismatch"):
        fetch(server.url(), partial, sha256="0" * 64)
    assert server.sent <= 2.2 * len(CONTENT)
    assert leftovers(partial) == []


@pytest.mark.parametrize("said", [299_999, 300_001])
def test_a_length_that_is_not_the_manifests_is_refused_before_a_byte_is_read(server, partial, said):
    with pytest.raises(ArtifactRefused, match=f"wrong length: the manifest says {said} bytes, the source has 300000"):
        fetch(server.url(), partial, size=said)
    assert leftovers(partial) in ([], [partial])
    assert not partial.exists() or partial.stat().st_size == 0


def test_a_body_without_end_is_ended_at_the_first_byte_too_many(server, partial):
    def endless(handler):
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(bytes(1000))

    server.answer = endless
    most = 0

    def told(done, total):
        nonlocal most
        most = max(most, done)

    with pytest.raises(ArtifactRefused, match="too long: it goes on after the 123456 bytes that the manifest says"):
        fetch(server.url(), partial, told, size=123_456)
    assert most <= 123_457
    assert leftovers(partial) == []
    with pytest.raises(ArtifactRefused, match=r"too long: it goes on after the 1 MB of fetch\.maxFileMB"):
        fetch(server.url(), partial, max_file_mb=1)
    assert leftovers(partial) == []


def test_a_body_that_is_longer_than_all_files_may_be_is_not_begun(server, partial):
    server.extra = {"Content-Length": str(2 << 20)}
    server.length = False
    with pytest.raises(ArtifactRefused, match="too long: 2097152 bytes"):
        fetch(server.url(), partial, max_file_mb=1)


def test_a_body_without_a_length_that_ends_too_early_twice_has_the_wrong_length(server, partial):
    server.length = False
    with pytest.raises(ArtifactRefused, match="wrong length: the manifest says 300001 bytes, and it ends after 300000"):
        fetch(server.url(), partial, size=300_001)
    assert leftovers(partial) == []


def test_a_part_that_ends_early_without_a_word_is_not_the_end(server, partial):
    """A server that says how long the file is, but not how long its answer."""

    def part(handler):
        server.answer, begin = None, int(handler.headers["Range"][6:-1])
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {begin}-299999/300000")
        handler.send_header("ETag", server.tag)
        handler.end_headers()
        handler.wfile.write(CONTENT[begin:250_000])

    server.cuts = [100_000]
    first = server.serve

    def serve(handler):
        first(handler)
        if len(server.asked) == 1:
            server.answer = part

    server.serve = serve
    assert fetch(server.url(), partial) == SHA
    assert len(server.asked) == 3


def test_a_body_without_a_length_that_was_cut_goes_on(server, partial):
    server.length, server.cuts = False, [100_000]
    assert fetch(server.url(), partial, size=300_000) == SHA


@pytest.mark.parametrize("status", [401, 403, 404, 410, 418])
def test_what_a_server_refuses_is_not_asked_for_again(server, partial, status):
    server.answer = lambda handler: handler.send_error(status)
    with pytest.raises(ArtifactRefused, match=f"the server answered {status}"):
        fetch(server.url(), partial)
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_may_pass_is_asked_for_again(server, partial, status):
    def once(handler):
        server.answer = None
        handler.send_error(status)

    server.answer = once
    assert fetch(server.url(), partial, patience_seconds=5) == SHA
    assert len(server.asked) == 2


def test_a_server_that_says_nothing_is_given_up(server, partial):
    release = threading.Event()
    server.answer = lambda handler: release.wait(10)
    with pytest.raises(ArtifactRefused, match=r"nothing came for 0\.2 s"):
        fetch(server.url(), partial, timeout_seconds=0.2, patience_seconds=0.3)
    release.set()


def test_headers_that_come_byte_by_byte_are_given_up(server, partial):
    """Each byte in time, and no end: what the timeout of a socket never sees."""
    release = threading.Event()

    def trickle(handler):
        while not release.wait(0.05):
            handler.wfile.write(b"H")
            handler.wfile.flush()

    server.answer = trickle
    with pytest.raises(ArtifactRefused, match=r"no answer within 0\.4 s"):
        fetch(server.url(), partial, timeout_seconds=0.2)
    release.set()


def test_a_compressed_answer_that_nobody_asked_for_is_refused(server, partial):
    server.extra = {"Content-Encoding": "gzip"}
    with pytest.raises(ArtifactRefused, match=r"encoded .gzip., although that was not asked for"):
        fetch(server.url(), partial)
    assert server.asked[0][1]["accept-encoding"] == "identity"


def test_where_nobody_listens_is_told_in_one_line(server, partial):
    uri = server.url()
    server.close()
    with pytest.raises(ArtifactRefused, match="no connection") as refused:
        fetch(uri, partial)
    assert "\n" not in str(refused.value)


# -- redirects and the allow-list -------------------------------------------------------------------------------------


def redirect(server, target, status=302):
    def answer(handler):
        server.answer = None
        handler.send_response(status)
        handler.send_header("Location", target)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    server.answer = answer


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_followed(server, partial, status):
    redirect(server, "/elsewhere.onnx", status)
    assert fetch(server.url(), partial) == SHA
    assert [path for path, _ in server.asked] == ["/model.onnx", "/elsewhere.onnx"]


def test_a_redirect_to_a_host_that_is_not_allowed_is_refused_without_a_connection(server, partial):
    with FileServer(CONTENT) as other:
        redirect(server, other.url(host="localhost"))
        with pytest.raises(
            ArtifactRefused, match=r"redirected: localhost is not one of the hosts that fetch\.hosts allows"
        ):
            fetch(server.url(), partial, hosts=("127.0.0.1",))
        assert other.asked == []


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://[::1/x", "gopher:x"])
def test_a_redirect_to_what_is_no_web_server_is_refused(server, partial, target):
    redirect(server, target)
    with pytest.raises(ArtifactRefused, match="redirected"):
        fetch(server.url(), partial)


def test_a_redirect_loop_ends(server, partial):
    def loop(handler):
        handler.send_response(302)
        handler.send_header("Location", handler.path + "x")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    server.answer = loop
    with pytest.raises(ArtifactRefused, match="redirected more than 5 times"):
        fetch(server.url(), partial)
    assert len(server.asked) == 6


def test_credentials_go_to_their_own_host_only_and_into_no_message(server, partial):
    with FileServer(CONTENT) as other:
        redirect(server, other.url("/x?signature=secret"))
        uri = server.url().replace("//", "//user:secret@") + "?key=secret"
        with pytest.raises(ArtifactRefused) as refused:
            fetch(uri, partial, sha256="0" * 64)
        assert "secret" not in str(refused.value)
        assert server.asked[0][1]["authorization"].startswith("Basic ")
        assert "authorization" not in other.asked[0][1]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Path of a key with its self-signed certificate for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")]), datetime.now(timezone.utc)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    path.write_bytes(private + made.public_bytes(pem))
    return path


@pytest.fixture
def tls_server(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with FileServer(CONTENT, tls=context) as running:
        yield running


def test_a_certificate_is_looked_at(tls_server, certificate, partial, monkeypatch):
    uri = tls_server.url().replace("http:", "https:")
    with pytest.raises(ArtifactRefused, match="TLS failed: the certificate or this device's clock is wrong"):
        fetch(uri, partial)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert fetch(uri, partial) == SHA


def test_a_redirect_from_https_to_http_is_refused(tls_server, server, certificate, partial, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    redirect(tls_server, server.url())
    with pytest.raises(ArtifactRefused, match="redirected from https to http"):
        fetch(tls_server.url().replace("http:", "https:"), partial)
    assert server.asked == []


def test_the_proxy_of_the_environment_is_used(server, partial, monkeypatch):
    """A proxy is asked for the whole URI; the name is for it to resolve."""
    monkeypatch.setenv("http_proxy", server.url(""))
    monkeypatch.delenv("no_proxy", raising=False)
    assert fetch("http://models.test/model.onnx", partial, hosts=("models.test",)) == SHA
    assert server.asked[0][0] == "http://models.test/model.onnx"


@pytest.mark.parametrize(
    ("more", "word"),
    [({"hosts": ("models.example.com",)}, r"fetch\.hosts"), ({"schemes": ("https", "s3")}, r"fetch\.schemes")],
)
def test_what_is_not_allowed_is_refused_before_a_connection(server, partial, more, word):
    with pytest.raises(ArtifactRefused, match=word):
        fetch(server.url(), partial, **more)
    assert server.asked == []


@pytest.mark.parametrize(
    "uri", ["http://evil.test\\@127.0.0.1/x", "http:///x", "http://a b/", "http://[::1/x", "http:x"]
)
def test_a_uri_that_can_be_read_in_two_ways_is_none(partial, uri):
    with pytest.raises(ArtifactRefused, match=r"no URI that names a host|neither http"):
        fetch(uri, partial, hosts=("127.0.0.1",))


# -- telling, ending, pace --------------------------------------------------------------------------------------------


class Unwanted(Exception):
    pass


def test_who_does_not_want_it_any_more_ends_it_and_what_came_stays(server, partial):
    server.rate = 400_000

    def told(done, total):
        assert total == 300_000
        if done > 100_000:
            raise Unwanted

    with pytest.raises(Unwanted):
        fetch(server.url(), partial, told)
    kept = partial.stat().st_size
    assert 100_000 < kept < 300_000
    server.rate = None
    assert fetch(server.url(), partial) == SHA
    assert server.asked[-1][1]["range"] == f"bytes={kept}-"


def test_between_two_tries_it_can_be_ended_too(server, partial):
    server.answer = cut_link
    calls = 0

    def told(done, total):
        nonlocal calls
        calls += 1
        if calls == 3:
            raise Unwanted

    with pytest.raises(Unwanted):
        fetch(server.url(), partial, told, patience_seconds=60)


def test_it_tells_the_size_first_then_at_most_ten_times_a_second_and_the_end(server, partial):
    said = []
    server.rate = 600_000
    fetch(server.url(), partial, lambda done, total: said.append((done, total)))
    assert (said[0], said[-1]) == ((0, 300_000), (300_000, 300_000))
    assert said == sorted(said)
    assert 3 <= len(said) <= 12


def test_two_downloads_share_the_bandwidth(server, tmp_path):
    fetcher = Fetcher(settings(max_mb_per_second=0.5))
    began = time.monotonic()
    names = ("a", "b")
    readers = [
        threading.Thread(target=fetcher.fetch, args=(Wanted(server.url(), SHA), tmp_path / name, untold))
        for name in names
    ]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert time.monotonic() - began >= 600_000 / (0.5 * (1 << 20)) - 0.3
    assert [(tmp_path / name).read_bytes() == CONTENT for name in names] == [True, True]


def test_closing_ends_a_wait_for_headers(server, partial):
    fetcher = Fetcher(settings(timeout_seconds=60.0, patience_seconds=60.0))
    asked, release, ended = threading.Event(), threading.Event(), []

    def silent(handler):
        asked.set()
        release.wait(20)

    def run():
        try:
            fetcher.fetch(Wanted(server.url(), SHA), partial, untold)
        except LinkLost as refused:
            ended.append(str(refused))

    server.answer = silent
    thread = threading.Thread(target=run)
    thread.start()
    assert asked.wait(10)
    fetcher.close()
    thread.join(10)
    release.set()
    assert len(ended) == 1
    assert "the gateway stops" in ended[0]


def test_closing_ends_a_read_that_waits(server, partial):
    fetcher = Fetcher(settings(timeout_seconds=60.0, patience_seconds=60.0))
    release, ended = threading.Event(), []

    def stall(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "300000")
        handler.end_headers()
        handler.wfile.write(CONTENT[:50_000])
        release.wait(20)

    def run():
        try:
            fetcher.fetch(Wanted(server.url(), SHA), partial, untold)
        except LinkLost as refused:
            ended.append(str(refused))

    server.answer = stall
    thread = threading.Thread(target=run)
    thread.start()
    wait_for(lambda: partial.exists() and partial.stat().st_size, 10, "the first bytes")
    fetcher.close()
    thread.join(10)
    release.set()
    assert len(ended) == 1
    assert "the gateway stops" in ended[0]


def test_a_disk_that_takes_no_more_is_told_and_nothing_is_left(server, partial):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            fetch(server.url(), partial)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert leftovers(partial) == []
