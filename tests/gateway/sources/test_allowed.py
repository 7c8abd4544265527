"""The allow-list, and what is told of URIs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.models.artifact import ArtifactRefused
from gateway.models.manifest import SCHEMES
from gateway.models.sources.allowed import Allowed
from gateway.models.sources.uris import beside, masked, suffix_of

HOSTS = ("models.example.com", "*.cdn.example.com", "10.0.0.7:8080", "[fe80::1]", "bucket", "[::1]:5000")


@pytest.mark.parametrize(
    ("host", "port"),
    [
        ("models.example.com", None),
        ("MODELS.example.com.", 443),
        ("a.cdn.example.com", None),
        ("a.b.cdn.example.com", 8443),
        ("10.0.0.7", 8080),
        ("[FE80::1]", 80),
        ("bucket", None),
        ("[::1]", 5000),
    ],
)
def test_a_host_on_the_list_is_allowed(host, port):
    Allowed(hosts=HOSTS).check_host(host, port)


@pytest.mark.parametrize(
    ("host", "port"),
    [
        ("example.com", None),
        ("cdn.example.com", None),
        ("evilcdn.example.com", None),
        ("models.example.com.evil.test", None),
        ("xmodels.example.com", None),
        ("10.0.0.7", 80),
        ("10.0.0.7", None),
        ("fe80::2", None),
        ("::1", 80),
        ("buckets", None),
        ("", None),
        ("*.cdn.example.com.evil", None),
    ],
)
def test_a_host_that_is_not_on_the_list_is_refused(host, port):
    with pytest.raises(ArtifactRefused, match=r"is not one of the hosts that fetch\.hosts allows"):
        Allowed(hosts=HOSTS).check_host(host, port)


@given(st.sampled_from(SCHEMES), st.text(max_size=30))
def test_an_empty_list_allows_all(scheme, host):
    Allowed().check_scheme(scheme)
    Allowed().check_host(host, None)


@given(st.lists(st.sampled_from(SCHEMES), min_size=1), st.sampled_from(SCHEMES))
def test_only_the_schemes_of_a_list_are_allowed(schemes, scheme):
    allowed = Allowed(schemes=tuple(schemes))
    if scheme in schemes:
        allowed.check_scheme(scheme)
    else:
        with pytest.raises(ArtifactRefused, match=r"fetch\.schemes"):
            allowed.check_scheme(scheme)


@given(st.text(max_size=400))
def test_what_is_shown_of_a_uri_is_one_short_line(uri):
    line = masked(uri)
    assert len(line) <= 200
    assert line.isprintable()


@pytest.mark.parametrize(
    ("uri", "line"),
    [
        ("https://user:pass@host:1/a/m.onnx?X-Sig=abc#f", "https://host:1/a/m.onnx?..."),
        ("s3://models/m.onnx", "s3://models/m.onnx"),
        ("file:///srv/m.onnx", "file:///srv/m.onnx"),
        ("oci://ghcr.io/a/m:1#m.onnx", "oci://ghcr.io/a/m:1#m.onnx"),
        ("http://[::1/x?key=abc", "http://[::1/x"),
    ],
)
def test_no_credentials_are_shown(uri, line):
    assert masked(uri) == line


@pytest.mark.parametrize(
    ("uri", "suffix", "neighbour"),
    [
        ("https://h/a/m.onnx?sig=x.y", ".onnx", "https://h/a/w.bin"),
        ("s3://b/m%2Eonnx", ".onnx", "s3://b/w.bin"),
        ("file:///a/m.plan", ".plan", "file:///a/w.bin"),
        ("oci://r:5000/a/m:1.0", ".onnx", "oci://r:5000/a/m:1.0#w.bin"),
        ("oci://r/a/m@sha256:00#d/m.tflite", ".tflite", "oci://r/a/m@sha256:00#w.bin"),
    ],
)
def test_the_kind_of_model_and_its_neighbours_are_named_by_the_uri(uri, suffix, neighbour):
    assert suffix_of(uri) == suffix
    assert beside(uri, "w.bin") == neighbour
