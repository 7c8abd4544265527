"""Signed manifests: which trusted key signed a file, and whether the file is no older than what was accepted before."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from gateway.config import TrustSettings
from gateway.models.manifest import ModelDeployment
from gateway.models.manifest_files import content_hash, decode, parse_manifests, with_absolute_uris
from gateway.strict_yaml import ConfigError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

SUFFIX = ".sig"
"""``FILE.sig`` lies beside FILE: the signature as base64 and, after a space, the signer's public key as base64."""
REMEDY = "signatures need the package cryptography: pip install 'edgeway[trust]'"

_SIGNATURE = 64
_KEY = 32
_MAX_FILE = 1024
"""Bytes of a FILE.sig; one has 134 at most."""

Word = Literal["unsigned", "bad-signature", "unknown-key", "replayed", "missing-counter"]


class TrustUnavailable(Exception):
    """Keys are trusted, but nothing here can check a signature. The message says what to install."""


class Untrusted(Exception):
    """The manifest is not to be believed. ``word`` names the reason; the message begins with it."""

    def __init__(self, word: Word, problem: str) -> None:
        super().__init__(f"{word}: {problem}")
        self.word = word


class SignedFile(Protocol):
    """A file of manifests as it was signed: ``SignedManifests`` of the control service."""

    @property
    def content(self) -> bytes: ...

    @property
    def signature(self) -> bytes: ...

    @property
    def folder(self) -> str: ...

    @property
    def source(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Highest:
    """The highest counter that was ever accepted for a deployment, and the ``content_hash`` that it came with."""

    counter: int
    content: str


class Trust:
    """The keys of the device config. Raises TrustUnavailable."""

    def __init__(self, settings: TrustSettings) -> None:
        self.required = settings.required
        self._keys: dict[str, Ed25519PublicKey] = {}
        for key in settings.keys:
            self._keys[key.name] = _public_key(base64.b64decode(key.public_key))

    def check(self, content: bytes, signature: bytes) -> str:
        """The name of the trusted key that signed the content; empty where no key is trusted: nothing is checked then.

        Args:
            content: the file, byte by byte.
            signature: 64 bytes; or 96, ended by the signer's public key, with which a stranger's signature can be told
                from a file that was changed.

        Raises:
            Untrusted: unsigned, bad-signature, unknown-key.
        """
        if not self._keys:
            return ""
        if not signature:
            raise Untrusted("unsigned", "no signature; sign it with `edgeway sign` and a key that is trusted here")
        if len(signature) not in (_SIGNATURE, _SIGNATURE + _KEY):
            raise Untrusted("bad-signature", f"expected {_SIGNATURE} bytes of Ed25519, got {len(signature)}")
        made, signer = signature[:_SIGNATURE], signature[_SIGNATURE:]
        for name, key in self._keys.items():
            if _verifies(key, made, content):
                return name
        trusted = f"trusted here: {', '.join(self._keys)}"
        if not signer:
            raise Untrusted("bad-signature", f"the file was changed, or another key signed it; {trusted}")
        if not _verifies(_public_key(signer), made, content):
            raise Untrusted("bad-signature", "the file was changed after it was signed, or the signature is another's")
        raise Untrusted("unknown-key", f"signed by {base64.b64encode(signer).decode()}; {trusted}")


def read_signature(text: bytes) -> bytes:
    """What ``Trust.check`` takes, from the content of a FILE.sig. Raises Untrusted: it is none."""
    if len(text) > _MAX_FILE:
        raise Untrusted("bad-signature", f"a signature file has {_MAX_FILE} bytes at most, got {len(text)}")
    parts = text.split()
    try:
        first = base64.b64decode(parts[0], validate=True) if parts else b""
        if len(first) == _SIGNATURE:
            signer = base64.b64decode(b"".join(parts[1:]), validate=True)
            if len(signer) in (0, _KEY):
                return first + signer
        whole = base64.b64decode(b"".join(parts), validate=True)  # as base64(1) breaks it into lines
    except binascii.Error:
        whole = b""
    if len(whole) != _SIGNATURE:
        raise Untrusted("bad-signature", f"the signature file holds no {_SIGNATURE} bytes as base64")
    return whole


def shown_signature(signature: bytes, signer: bytes) -> str:
    """The one line of a FILE.sig."""
    return f"{base64.b64encode(signature).decode()} {base64.b64encode(signer).decode()}\n"


def read_signed(file: SignedFile, trust: Trust) -> tuple[str, list[ModelDeployment]]:
    """The signer's name and the manifests, with their ``file:`` URIs made absolute.

    A signature that is there is checked; one that is not there is missed only where signatures are required.

    Nothing in the content is looked at before its signature. Costs up to a second for the longest content: run it in a
    thread. ``fresh`` is still to be asked.

    Raises:
        Untrusted: see ``Trust.check``.
        ConfigError: the content is not a file of manifests, or the folder not an absolute path.
    """
    signer = trust.check(file.content, file.signature) if file.signature or trust.required else ""
    folder = Path(file.folder)
    if not folder.is_absolute():
        raise ConfigError(file.source, None, "", f'the folder of a signed file must be absolute, got "{file.folder}"')
    text = decode(file.content, file.source)
    return signer, [with_absolute_uris(manifest, folder) for manifest in parse_manifests(text, file.source)]


def fresh(manifest: ModelDeployment, highest: Highest | None, in_force: str | None, required: bool) -> None:
    """Return if a signed manifest is no older than what was accepted before it.

    Args:
        highest: of this deployment's name, also if it was deleted since.
        in_force: ``content_hash`` of what this version is now; None: it is not known.
        required: whether signatures are: then there must be a counter.

    Raises:
        Untrusted: missing-counter, replayed.
    """
    counter, label = manifest.metadata.counter, f"{manifest.name} {manifest.version}"
    if counter is None:
        if required:
            raise Untrusted(
                "missing-counter",
                f"{label}: metadata.counter is missing; give it a number that is higher in every roll-out",
            )
        return
    content = content_hash(manifest)
    if highest is None or counter > highest.counter or content == in_force:
        return
    if counter < highest.counter:
        problem = f"metadata.counter {counter} is lower than {highest.counter}, which was accepted already"
        raise Untrusted("replayed", f"{label}: {problem}")
    if content != highest.content:
        problem = f"metadata.counter {counter} was accepted already with other content; raise it and sign again"
        raise Untrusted("replayed", f"{label}: {problem}")


def check_counters(
    manifests: Sequence[ModelDeployment],
    required: bool,
    highest: Callable[[str], Highest | None],
    in_force: Callable[[str, str], str | None],
) -> dict[str, Highest]:
    """The highest counters of the deployments after manifests that were signed together. Raises as ``fresh`` does."""
    raised: dict[str, Highest] = {}
    for manifest in manifests:
        name, counter = manifest.name, manifest.metadata.counter
        known = highest(name)
        fresh(manifest, known, in_force(name, manifest.version), required)
        before = raised.get(name) or known
        if counter is not None and (before is None or counter > before.counter):
            raised[name] = Highest(counter, content_hash(manifest))
    return raised


def _public_key(raw: bytes) -> Ed25519PublicKey:
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError as missing:
        raise TrustUnavailable(REMEDY) from missing
    return Ed25519PublicKey.from_public_bytes(raw)


def _verifies(key: Ed25519PublicKey, signature: bytes, content: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, content)
    except InvalidSignature:
        return False
    return True
