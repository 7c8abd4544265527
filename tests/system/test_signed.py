"""A device that believes signed manifests only, through the command line and a real gateway."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from benchmarks.harness import Gateway, manifest, scaled, wait_for
from gateway.cli.root import edgeway as group

pytestmark = pytest.mark.system


def edgeway(*arguments: object, control: str = "", text: str | None = None) -> Result:
    """A verb in this process, which is sooner than in one of its own."""
    return CliRunner().invoke(group, [str(each) for each in arguments], input=text, env={"EDGEWAY_CONTROL": control})


def ask(gateway: Gateway, *arguments: str, text: str | None = None) -> Result:
    return edgeway(*arguments, control=gateway.control, text=text)


def refusals(gateway: Gateway) -> list[str]:
    return [
        e["message"]
        for e in json.loads(ask(gateway, "get", "events", "-o", "json").stdout)
        if e["kind"] == "manifest-refused"
    ]


def key_in(folder: Path, name: str) -> tuple[Path, dict]:
    """The private key's file, and what a device config says of it."""
    path = folder / f"{name}.pem"
    assert edgeway("sign", "--new-key", path).exit_code == 0
    return path, yaml.safe_load(edgeway("sign", "--show-key", path).stdout)


def counted(folder: Path, version: str, factor: float, counter: int | None) -> Path:
    path = Path(manifest(folder, "m", version, scaled(factor).SerializeToString()))
    if counter is not None:
        path.write_text(path.read_text().replace("{name: m}", f"{{name: m, counter: {counter}}}"))
    return path


def sign(path: Path, key: Path) -> Path:
    done = edgeway("sign", "-f", path, "--key", key)
    assert done.exit_code == 0, done.stderr
    return path


def versions(gateway) -> set[str]:
    return {
        v["version"] for d in json.loads(ask(gateway, "get", "deployments", "-o", "json").stdout) for v in d["versions"]
    }


def test_only_what_a_trusted_key_signed_is_installed_and_nothing_older_comes_back(folder, gateway_in):
    key, trusted = key_in(folder, "release")
    stranger, _ = key_in(folder, "stranger")
    gateway = gateway_in({"trust": {"required": True, "keys": [trusted]}})

    def refused(path: Path, word: str, *more: str) -> None:
        done = ask(gateway, "apply", "-f", str(path), *more)
        assert (done.exit_code, f"{word}: " in done.stderr) == (1, True), done.stderr

    first = counted(folder, "1", 2.0, 5)
    refused(first, "unsigned")
    assert ask(gateway, "apply", "-f", str(sign(first, key)), "--wait").exit_code == 0
    genuine = first.with_name(first.name + ".sig").read_bytes()

    first.write_text(first.read_text() + "#")
    refused(first, "bad-signature")
    first.write_text(first.read_text().removesuffix("#"))
    refused(sign(counted(folder, "2", 3.0, 6), stranger), "unknown-key")
    mixed = counted(folder, "3", 3.0, 7)
    (folder / f"{mixed.name}.sig").write_bytes(genuine)
    refused(mixed, "bad-signature")
    refused(sign(counted(folder, "4", 3.0, None), key), "missing-counter")
    refused(sign(counted(folder, "5", 3.0, 4), key), "replayed")
    refused(sign(counted(folder, "6", 3.0, 5), key), "replayed")  # the same counter, other content
    assert versions(gateway) == {"1"}
    assert "unchanged" in ask(gateway, "apply", "-f", str(first)).stdout

    second = sign(counted(folder, "2", 3.0, 6), key)
    assert ask(gateway, "apply", "-f", str(second), "--wait").exit_code == 0
    assert ask(gateway, "delete", "m").exit_code == 0
    refused(first, "replayed")  # its counter is remembered, though the deployment is gone
    assert gateway.stop() == 0
    gateway.start()
    refused(first, "replayed")
    assert versions(gateway) == set()
    assert ask(gateway, "apply", "-f", str(second), "--wait").exit_code == 0
    words = [message.split(":")[0] for message in refusals(gateway)]
    bad = ["unsigned", "bad-signature", "unknown-key", "bad-signature", "missing-counter"]
    assert words == bad + ["replayed"] * 4


def test_a_folder_of_manifests_is_held_to_the_same_rules(folder, gateway_in):
    key, trusted = key_in(folder, "release")
    manifests = folder / "manifests"
    manifests.mkdir()
    sign(counted(manifests, "1", 2.0, 1), key)
    unsigned = counted(manifests, "2", 3.0, 2)
    gateway = gateway_in({"trust": {"required": True, "keys": [trusted]}}, "--manifests", str(manifests))
    wait_for(lambda: versions(gateway) == {"1"}, 10, "the signed version")
    wait_for(lambda: refusals(gateway), 10, "the refusal of the other one")
    (refused,) = refusals(gateway)
    assert refused.startswith(f"{unsigned}: unsigned: ")
    sign(unsigned, key)
    wait_for(lambda: versions(gateway) == {"1", "2"}, 10, "the version that was signed later")


def test_stdin_takes_its_signature_from_a_file(folder, gateway_in):
    key, trusted = key_in(folder, "release")
    gateway = gateway_in({"trust": {"required": True, "keys": [trusted]}})
    path = sign(counted(folder, "1", 2.0, 1), key)
    text = path.read_text()
    assert ask(gateway, "apply", "-f", "-", text=text).exit_code == 1
    done = ask(gateway, "apply", "-f", "-", "--signature", f"{path}.sig", text=text)
    assert done.exit_code == 0, done.stderr


def test_a_gateway_with_keys_but_without_the_package_says_what_to_install(folder, gateway_in):
    (folder / "none" / "cryptography").mkdir(parents=True)
    (folder / "none" / "cryptography" / "__init__.py").write_text("raise ImportError('as if it were not installed')")
    path = {"PYTHONPATH": f"{folder / 'none'}:{os.environ.get('PYTHONPATH', '')}"}
    config = {"trust": {"keys": [{"name": "release", "publicKey": "A" * 43 + "="}]}}
    with pytest.raises(RuntimeError, match=r"edgeway: trust.keys: .* pip install 'edgeway\[trust\]'"):
        gateway_in(config, **path)
    assert gateway_in({}, **path).ready["ready"]  # nobody needs it who trusts no key


def test_sign_and_verify_say_who_and_refuse_to_overwrite_a_key(folder):
    key, trusted = key_in(folder, "release")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    again = edgeway("sign", "--new-key", key)
    assert (again.exit_code, "never overwritten" in again.stderr) == (1, True)
    path = counted(folder, "1", 2.0, 1)
    config = folder / "device.yaml"
    config.write_text(yaml.safe_dump({"trust": {"keys": [trusted]}}))
    unsigned = edgeway("verify", "-f", path, "--config", config, "-o", "json")
    assert (unsigned.exit_code, json.loads(unsigned.stdout)["reason"]) == (1, "unsigned")
    sign(path, key)
    assert "signed by release: m 1 (counter 1)" in edgeway("verify", "-f", path, "--config", config).stdout
    assert edgeway("verify", "-f", path, "--key", trusted["publicKey"]).exit_code == 0
    path.write_text(path.read_text() + "\n")
    changed = edgeway("verify", "-f", path, "--config", config, "-o", "json")
    assert (changed.exit_code, json.loads(changed.stdout)["reason"]) == (1, "bad-signature")
    assert edgeway("sign", "-f", path).exit_code == 2
    assert edgeway("sign", "-f", path, "--key", path).exit_code == 1
