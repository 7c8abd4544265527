"""``edgeway sign, verify``: who says what a device runs."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.cli.errors import fail
from gateway.config import TrustedKey, TrustSettings, load_device_config
from gateway.models.manifest import ModelDeployment
from gateway.models.manifest_files import decode, parse_manifests, read_file
from gateway.models.signing import (
    REMEDY,
    SUFFIX,
    Trust,
    TrustUnavailable,
    Untrusted,
    read_signature,
    shown_signature,
)
from gateway.strict_yaml import ConfigError
from gateway.typed_config import Problem

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(short_help="Sign a file of manifests, or make the key for it.")
@click.option("-f", "--file", "source", type=_FILE, metavar="FILE", help=f"Manifests to sign; writes FILE{SUFFIX}.")
@click.option("--key", type=_FILE, metavar="KEY.pem", help="Private key to sign with.")
@click.option("--new-key", type=_FILE, metavar="KEY.pem", help="Make a private key, readable by you only.")
@click.option("--show-key", type=_FILE, metavar="KEY.pem", help="Print its public key, as the device config takes it.")
def sign(source: Path | None, key: Path | None, new_key: Path | None, show_key: Path | None) -> None:
    r"""Sign a file of manifests with Ed25519, so that devices with trusted keys accept it.

    \b
    edgeway sign --new-key release.pem              once; keep it off the devices
    edgeway sign --show-key release.pem             what devices put under trust.keys
    edgeway sign -f detector.yaml --key release.pem
    edgeway apply -f detector.yaml                  sends detector.yaml.sig along

    Each manifest needs a metadata.counter that is higher in every roll-out, so that an older file can't be replayed.
    """
    if bool(source) + bool(new_key) + bool(show_key) != 1 or bool(source) != bool(key):
        raise click.UsageError("give either -f FILE with --key KEY.pem, or --new-key KEY.pem, or --show-key KEY.pem")
    if new_key:
        _make(new_key)
    elif show_key:
        _print_public(show_key, _load(show_key))
    elif source and key:
        _sign(source, _load(key))


def _make(path: Path) -> None:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    except ImportError:
        fail(REMEDY)
    key = Ed25519PrivateKey.generate()
    content = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        fail(f"{path} is there already; a key is never overwritten: name another file")
    except OSError as failed:
        fail(f"{path} can't be written: {failed.strerror}")
    with os.fdopen(fd, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    click.echo(f"{path}: private key, keep it off the devices; their config trusts it with", err=True)
    _print_public(path, key)


def _load(path: Path) -> Ed25519PrivateKey:
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    except ImportError:
        fail(REMEDY)
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except OSError as failed:
        fail(f"{path} can't be read: {failed.strerror}")
    except TypeError:
        fail(f"{path} is locked with a passphrase; unlock a copy with `openssl pkey -in {path} -out KEY.pem`")
    except (ValueError, UnsupportedAlgorithm):
        fail(f"{path} is no private key in PEM; make one with `edgeway sign --new-key KEY.pem`")
    if not isinstance(key, Ed25519PrivateKey):
        fail(f"{path} is not of Ed25519; make one with `edgeway sign --new-key KEY.pem`")
    return key


def _print_public(path: Path, key: Ed25519PrivateKey) -> None:
    shown = base64.b64encode(key.public_key().public_bytes_raw()).decode()
    click.echo(f'{{name: {json.dumps(path.stem)}, publicKey: "{shown}"}}')


def _sign(source: Path, key: Ed25519PrivateKey) -> None:
    content, manifests = _read(source)
    for manifest in manifests:
        if manifest.metadata.counter is None:
            click.echo(
                f"warning: {manifest.name} {manifest.version} has no metadata.counter: it can be replayed, and devices "
                "that require signatures refuse it",
                err=True,
            )
    beside = source.with_name(source.name + SUFFIX)
    partial = beside.with_name(f".{beside.name}.partial")
    try:
        partial.write_text(shown_signature(key.sign(content), key.public_key().public_bytes_raw()))
        partial.replace(beside)
    except OSError as failed:
        fail(f"{beside} can't be written: {failed.strerror}")
    click.echo(f"{beside}: written")


@click.command(short_help="Check who signed a file of manifests.")
@click.option("-f", "--file", "source", type=_FILE, required=True, metavar="FILE", help="Manifests.")
@click.option("--signature", type=_FILE, metavar="FILE", help=f"Where the signature is.  [default: FILE{SUFFIX}]")
@click.option("--key", "public", metavar="PUBLIC", help="Public key, as `edgeway sign --show-key` prints it.")
@click.option("--config", type=_FILE, metavar="FILE", help="Device config whose trusted keys count.")
@click.option("-o", "--output", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def verify(source: Path, signature: Path | None, public: str | None, config: Path | None, form: str) -> None:
    """Say which trusted key signed a file of manifests; exit code 1 if none did. Needs no gateway.

    Whether metadata.counter is high enough only a device knows: it remembers the highest that it accepted.
    """
    if (public is None) == (config is None):
        raise click.UsageError("give either --key PUBLIC or --config FILE, to say which keys are trusted")
    settings = _trust_of(config) if config else TrustSettings(keys=(_named(public or ""),))
    if not settings.keys:
        fail(f"{config}: trust.keys: names no key; add what `edgeway sign --show-key` prints")
    content, manifests = _read(source)
    shown: dict[str, Any] = {
        "file": str(source),
        "valid": False,
        "key": None,
        "reason": "",
        "message": "",
        "manifests": [{"name": m.name, "version": m.version, "counter": m.metadata.counter} for m in manifests],
    }
    beside = signature or source.with_name(source.name + SUFFIX)
    try:
        signed = read_signature(beside.read_bytes()) if beside.exists() else b""
        shown |= {"valid": True, "key": Trust(settings).check(content, signed)}
    except Untrusted as refused:
        shown |= {"reason": refused.word, "message": str(refused)}
    except OSError as failed:
        fail(f"{beside} can't be read: {failed.strerror}")
    except TrustUnavailable as unavailable:
        fail(str(unavailable))
    if form == "json":
        click.echo(json.dumps(shown, indent=2))
    elif shown["valid"]:
        labels = ", ".join(f"{m.name} {m.version} (counter {m.metadata.counter})" for m in manifests)
        click.echo(f"{source}: signed by {shown['key']}: {labels}")
    if not shown["valid"]:
        fail(f"{source}: {shown['message']}")


def _trust_of(path: Path) -> TrustSettings:
    try:
        return load_device_config(path).trust
    except ConfigError as refused:
        fail(str(refused))


def _named(public: str) -> TrustedKey:
    """From base64, or from the whole line that ``--show-key`` prints."""
    found = public.partition("publicKey:")[2].strip(' "}\n') or public.strip()
    try:
        return TrustedKey(name="key", public_key=found)
    except Problem as refused:
        raise click.UsageError(f"--key: {refused.problem}") from refused


def _read(source: Path) -> tuple[bytes, list[ModelDeployment]]:
    """The file as it is, and what it says."""
    try:
        content = read_file(source)
        return content, parse_manifests(decode(content, str(source)), str(source))
    except ConfigError as refused:
        fail(str(refused))
