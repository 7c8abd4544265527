"""``edgeway apply, delete, validate, schema``: manifests."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
from google.protobuf.message import Message

from edgeway.v1 import control_pb2 as control
from gateway.cli.control import Control, control_option
from gateway.cli.errors import fail
from gateway.cli.waiting import wait as wait_for
from gateway.models.manifest import ModelDeployment
from gateway.models.manifest_files import (
    check_unique,
    decode,
    load_manifests,
    manifest_files,
    parse_manifests,
    read_file,
    to_plain,
    with_absolute_uris,
)
from gateway.models.signing import SUFFIX, Untrusted, read_signature
from gateway.schemas import KINDS
from gateway.schemas import schema as schema_of
from gateway.strict_yaml import ConfigError

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(short_help="Deploy model versions from manifests.")
@click.option("-f", "--file", "source", required=True, metavar="FILE|DIR|-", help="Manifests; - reads stdin.")
@click.option("--wait", is_flag=True, help="Return when the versions serve, or with the reason why one can't.")
@click.option("--signature", type=_FILE, metavar="FILE", help="Of the manifests.  [default: FILE.sig, if any]")
@click.option("--timeout", type=click.FloatRange(min=0), default=300, show_default=True, help="Seconds for --wait.")
@control_option
def apply(source: str, wait: bool, signature: Path | None, timeout: float, gateway: Control) -> None:
    """Accept and store the versions that manifests declare; they load in the background.

    The version before serves until the new one is loaded and warm. A file with FILE.sig beside it is sent as it was
    signed, see `edgeway sign`.
    """
    request, manifests = _request(source, signature)
    response = gateway.call("Apply", request)
    for warning in response.warnings:
        click.echo(f"warning: {warning}", err=True)
    for applied in response.applied:
        click.echo(f"{applied.name} {applied.version}: {'accepted' if applied.changed else 'unchanged'}")
    if wait:
        idle = {(m.name, m.version) for m in manifests if m.spec.traffic.percent == 0 or m.spec.traffic.shadow}
        unchanged = {(applied.name, applied.version) for applied in response.applied if not applied.changed}
        awaited = [(applied.name, applied.version) for applied in response.applied]
        wait_for(gateway, {each: each in idle | unchanged for each in awaited}, timeout)


def _request(source: str, signature: Path | None) -> tuple[Message, list[ModelDeployment]]:
    """What is applied: signed files as they are, all others as what they say; and all that they say."""
    if signature and source != "-" and Path(source).is_dir():
        raise click.UsageError("--signature is of one file; beside the files of a folder their FILE.sig is found")
    request, every = control.ApplyRequest(), list[ModelDeployment]()
    files: list[tuple[str, bytes, Path, bytes]] = []
    try:
        if source == "-":
            files.append(("stdin", sys.stdin.buffer.read(), Path.cwd(), _signature(signature)))
        else:
            for file in manifest_files(Path(source)):
                beside = signature or file.with_name(file.name + SUFFIX)
                signed = _signature(beside) if signature or beside.exists() else b""
                files.append((str(file), read_file(file), file.resolve().parent, signed))
        for name, content, folder, signed in files:
            manifests = [with_absolute_uris(m, folder) for m in parse_manifests(decode(content, name), name)]
            every += manifests
            if signed:
                request.signed.add(content=content, signature=signed, folder=str(folder), source=name)
            else:
                request.manifests.extend(json.dumps(to_plain(manifest)) for manifest in manifests)
        check_unique(every, source)
    except ConfigError as refused:
        fail(str(refused))
    return request, every


def _signature(path: Path | None) -> bytes:
    """Raises ConfigError."""
    if path is None:
        return b""
    try:
        return read_signature(read_file(path))
    except Untrusted as refused:
        fail(f"{path}: {refused}")


def _read(source: str) -> list[ModelDeployment]:
    try:
        if source == "-":
            parsed = parse_manifests(decode(sys.stdin.buffer.read(), "stdin"), "stdin")
            return [with_absolute_uris(manifest, Path.cwd()) for manifest in parsed]
        return load_manifests(Path(source))
    except ConfigError as refused:
        fail(str(refused))


@click.command(short_help="Remove a deployment or one of its versions.")
@click.argument("name")
@click.option("--version", "label", default="", metavar="V", help="Only this version.")
@control_option
def delete(name: str, label: str, gateway: Control) -> None:
    """Remove a deployment, or one version of it; requests under way are finished."""
    response = gateway.call("Delete", control.DeleteRequest(name=name, version=label))
    for version in response.versions:
        click.echo(f"{name} {version}: deleted")


@click.command(short_help="Check manifests without a gateway.")
@click.option("-f", "--file", "source", required=True, metavar="FILE|DIR|-", help="Manifests; - reads stdin.")
def validate(source: str) -> None:
    """Check manifests: form, types, ranges, duplicates. Needs no gateway and fetches nothing."""
    for manifest in _read(source):
        click.echo(f"{manifest.name} {manifest.version}: valid")


@click.command(short_help="Print JSON Schemas.")
@click.argument("kind", type=click.Choice([*sorted(KINDS), "all"]), default="all")
def schema(kind: str) -> None:
    """Print the JSON Schema of manifests or of the device config, for editors and CI; all: an object with both."""
    shown = {name: schema_of(name) for name in sorted(KINDS)} if kind == "all" else schema_of(kind)
    click.echo(json.dumps(shown, indent=2))
