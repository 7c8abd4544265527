"""Signed manifests: whom to believe, and that nothing older comes back."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import TrustedKey, TrustSettings, parse_device_config
from gateway.models.manifest_files import content_hash, parse_manifests
from gateway.models.signing import (
    Highest,
    Trust,
    TrustUnavailable,
    Untrusted,
    check_counters,
    fresh,
    read_signature,
    read_signed,
    shown_signature,
)
from gateway.strict_yaml import ConfigError

RELEASE, OTHER = (Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32) for seed in (1, 2))


def public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def trust(*keys: Ed25519PrivateKey, required: bool = True) -> Trust:
    names = [f"key{number}" for number in range(len(keys))]
    trusted = [
        TrustedKey(name=n, public_key=base64.b64encode(public(k)).decode()) for n, k in zip(names, keys, strict=True)
    ]
    return Trust(TrustSettings(required=required, keys=tuple(trusted)))


def text(version: str = "1", counter: int | None = 1, more: str = "", uri: str = "file:m.onnx") -> str:
    count = "" if counter is None else f", counter: {counter}"
    return (
        f"apiVersion: edge.ai/v1\nkind: ModelDeployment\nmetadata: {{name: m{count}}}\n"
        f'spec:\n  model: {{uri: "{uri}", version: "{version}", checksum: sha256:{"a" * 64}}}\n{more}'
    )


def parsed(**options):
    (manifest,) = parse_manifests(text(**options), "m.yaml")
    return manifest


@dataclass
class Signed:
    content: bytes
    signature: bytes
    folder: str = "/srv"
    source: str = "m.yaml"


def word_of(work) -> str:
    with pytest.raises(Untrusted) as caught:
        work()
    assert str(caught.value).startswith(f"{caught.value.word}: ")
    return caught.value.word


@given(st.binary(max_size=200), st.data())
def test_only_the_signed_bytes_are_believed_whichever_bit_is_turned(content, data):
    signature = RELEASE.sign(content)
    assert trust(OTHER, RELEASE).check(content, signature) == "key1"
    turned = bytearray(content + signature)
    bit = data.draw(st.integers(0, 8 * len(turned) - 1))
    turned[bit // 8] ^= 1 << bit % 8
    changed, made = bytes(turned[: len(content)]), bytes(turned[len(content) :])
    for tail in (b"", public(RELEASE)):
        assert word_of(lambda tail=tail: trust(OTHER, RELEASE).check(changed, made + tail)) == "bad-signature"


def test_each_reason_has_its_own_word():
    content = text().encode()
    good = RELEASE.sign(content) + public(RELEASE)
    strange = OTHER.sign(content) + public(OTHER)
    mixed = RELEASE.sign(text("2").encode()) + public(RELEASE)
    ask = trust(RELEASE).check
    assert ask(content, good) == "key0"
    assert word_of(lambda: ask(content, b"")) == "unsigned"
    assert word_of(lambda: ask(content + b" ", good)) == "bad-signature"
    assert word_of(lambda: ask(content, mixed)) == "bad-signature"  # a signature of another manifest
    assert word_of(lambda: ask(content, strange)) == "unknown-key"
    assert word_of(lambda: ask(content, OTHER.sign(content) + public(RELEASE))) == "bad-signature"
    assert word_of(lambda: ask(content, good[:-1])) == "bad-signature"


def test_a_key_that_claims_to_be_the_signer_is_not_believed_for_that():
    content = text().encode()
    assert word_of(lambda: trust(RELEASE).check(content, OTHER.sign(content) + public(OTHER))) == "unknown-key"


def test_where_no_key_is_trusted_nothing_is_checked():
    assert Trust(TrustSettings()).check(b"anything", b"") == ""


def test_without_the_package_only_a_config_with_keys_is_refused(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cryptography.hazmat.primitives.asymmetric.ed25519", None)
    Trust(TrustSettings())
    with pytest.raises(TrustUnavailable, match=r"edgeway\[trust\]"):
        trust(RELEASE)


@pytest.mark.parametrize("shape", [lambda s: s, lambda s: base64.encodebytes(base64.b64decode(s.split()[0])).decode()])
def test_a_signature_file_is_read_with_and_without_the_signer_and_in_lines(shape):
    signature = RELEASE.sign(b"x")
    assert read_signature(shape(shown_signature(signature, public(RELEASE))).encode())[:64] == signature


@given(st.binary(max_size=300) | st.text(alphabet="AQgw= \n", max_size=200).map(str.encode))
def test_no_signature_file_crashes_the_reader(content):
    try:
        assert len(read_signature(content)) in (64, 96)
    except Untrusted as refused:
        assert refused.word == "bad-signature"


@pytest.mark.parametrize(
    ("counter", "version", "highest", "same", "in_force", "word"),
    [
        (5, "1", None, False, False, None),
        (6, "2", 5, False, False, None),
        (5, "1", 5, True, False, None),  # what has the highest counter may come again, also after a delete
        (4, "1", 5, False, True, None),  # an older version that is in force still: it changes nothing
        (5, "2", 5, False, False, "replayed"),
        (4, "1", 5, False, False, "replayed"),
        (4, "1", 5, True, False, "replayed"),
        (0, "1", 1, False, False, "replayed"),
        (None, "1", None, False, False, "missing-counter"),
        (None, "1", 5, False, True, "missing-counter"),
    ],
)
def test_the_counter_never_goes_back(counter, version, highest, same, in_force, word):
    manifest = parsed(version=version, counter=counter)
    content = content_hash(manifest)
    known = None if highest is None else Highest(highest, content if same else "other")

    def ask():
        fresh(manifest, known, content if in_force else "older", True)

    if word is None:
        ask()
    else:
        assert word_of(ask) == word


def test_where_signatures_are_optional_a_signed_manifest_needs_no_counter():
    fresh(parsed(counter=None), Highest(5, "other"), None, False)


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["1", "2", "3"])), max_size=30))
def test_whatever_is_sent_in_whatever_order_what_is_accepted_never_goes_back(sent):
    highest, in_force, accepted = None, {}, []
    for counter, version in sent:
        manifest = parsed(version=version, counter=counter)
        try:
            fresh(manifest, highest, in_force.get(version), True)
        except Untrusted:
            continue
        if in_force.get(version) != content_hash(manifest):
            accepted.append((counter, content_hash(manifest)))
        in_force[version] = content_hash(manifest)
        if highest is None or counter >= highest.counter:
            highest = Highest(counter, content_hash(manifest))
    assert [counter for counter, _ in accepted] == sorted({counter for counter, _ in accepted})


def test_a_signed_file_is_read_after_its_signature_and_with_its_folder():
    content = (text() + "---\n" + text("2", 2)).encode()
    signer, manifests = read_signed(Signed(content, RELEASE.sign(content)), trust(RELEASE))
    assert (signer, [m.version for m in manifests]) == ("key0", ["1", "2"])
    assert manifests[0].spec.model.uri == "file:///srv/m.onnx"
    broken = b"{"
    assert word_of(lambda: read_signed(Signed(broken, OTHER.sign(broken)), trust(RELEASE))) == "bad-signature"
    with pytest.raises(ConfigError, match=r"m\.yaml"):
        read_signed(Signed(broken, RELEASE.sign(broken)), trust(RELEASE))
    with pytest.raises(ConfigError, match="absolute"):
        read_signed(Signed(content, RELEASE.sign(content), folder="srv"), trust(RELEASE))


def test_where_signatures_are_optional_an_unsigned_file_passes_but_a_wrong_signature_does_not():
    content, optional = text().encode(), trust(RELEASE, required=False)
    assert read_signed(Signed(content, b""), optional)[0] == ""
    assert word_of(lambda: read_signed(Signed(content, OTHER.sign(content)), optional)) == "bad-signature"


def test_manifests_signed_together_raise_the_counter_to_the_highest_of_theirs():
    first, second = parsed(version="1", counter=3), parsed(version="2", counter=7)
    raised = check_counters([second, first], True, {"m": Highest(2, "older")}.get, lambda name, version: None)
    assert raised == {"m": Highest(7, content_hash(second))}
    again = check_counters([second, first], True, raised.get, lambda name, version: content_hash(first))
    assert again == {}


@pytest.mark.parametrize(
    ("given_", "path"),
    [
        ("{required: true}", "trust.keys"),
        ("{keys: [{name: a, publicKey: AAAA}]}", r"trust.keys\[0\].publicKey"),
        ("{keys: [{name: a, publicKey: '%%%'}]}", r"trust.keys\[0\].publicKey"),
        (
            f"{{keys: [{{name: a, publicKey: {'A' * 43}=}}, {{name: a, publicKey: {'A' * 43}=}}]}}",
            r"trust.keys\[1\].name",
        ),
    ],
)
def test_a_trust_list_that_cannot_be_is_refused_with_the_path(given_, path):
    with pytest.raises(ConfigError, match=path):
        parse_device_config(f"trust: {given_}", "device.yaml")
