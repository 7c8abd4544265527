"""What deploy/ holds, checked by the schema or the offline verifier of the tool that will read it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import kubernetes_validate
import msgspec
import pytest
import yaml
from dockerfile_parse import DockerfileParser

from benchmarks.harness import Gateway
from gateway.config import DeviceConfig, load_device_config

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
UNIT = DEPLOY / "systemd" / "edgeway.service"
EXPOSURE = 2.0


def needs(tool: str) -> str:
    found = shutil.which(tool)
    if found is None:
        pytest.skip(f"{tool} is not installed here")
    return found


def test_the_unit_is_hardened_beyond_what_the_documentation_states():
    tool = needs("systemd-analyze")
    done = subprocess.run([tool, "security", "--offline=true", str(UNIT)], capture_output=True, text=True, timeout=60)
    found = re.search(r"exposure level for edgeway\.service: ([0-9.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) <= EXPOSURE
    assert f"rates it {found[1]} of 10" in (ROOT / "docs" / "operating.md").read_text()


def test_systemd_accepts_the_unit(tmp_path):
    tool = needs("systemd-analyze")
    unit = tmp_path / "edgeway.service"
    unit.write_text(UNIT.read_text().replace("/opt/edgeway/bin/edgeway", sys.executable))
    done = subprocess.run([tool, "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=60)
    ours = [line for line in done.stderr.splitlines() if "edgeway.service" in line]
    assert ours == []


def test_every_flag_of_the_unit_and_the_containers_exists():
    from gateway.cli.serve import serve

    known = {option for parameter in serve.params for option in parameter.opts}
    texts = [path.read_text() for path in (UNIT, DEPLOY / "docker" / "Dockerfile", DEPLOY / "docker" / "compose.yaml")]
    texts.append((DEPLOY / "manifests" / "daemonset.yaml").read_text())
    own = {"--listen", "--config", "--metrics", "--manifests", "--log-format", "--control"}
    used = {flag for text in texts for flag in re.findall(r"--[a-z][a-z-]+", text)}
    assert used & own <= known
    assert {"--listen", "--log-format"} <= used


def test_compose_follows_the_compose_specification():
    tool = str(Path(sys.executable).with_name("check-jsonschema"))
    done = subprocess.run(
        [tool, "--builtin-schema", "vendor.compose-spec", str(DEPLOY / "docker" / "compose.yaml")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def documents() -> list[dict]:
    return list(yaml.safe_load_all((DEPLOY / "manifests" / "daemonset.yaml").read_text()))


@pytest.mark.parametrize("document", documents(), ids=lambda d: f"{d['kind']} {d['metadata']['name']}")
def test_kubernetes_accepts_every_object(document):
    kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_the_daemonset_puts_the_socket_on_the_host_and_runs_without_privileges():
    pod = next(d for d in documents() if d["kind"] == "DaemonSet")["spec"]["template"]["spec"]
    assert {"name": "sockets", "hostPath": {"path": "/run/edgeway", "type": "DirectoryOrCreate"}} in pod["volumes"]
    (gateway,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert gateway["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert gateway["securityContext"]["readOnlyRootFilesystem"] is True


def copied() -> list[str]:
    """What the Dockerfile takes from the repository."""
    lines = DockerfileParser(str(DEPLOY / "docker" / "Dockerfile")).structure
    copies = [line["value"].split() for line in lines if line["instruction"] == "COPY"]
    return [source for words in copies if not words[0].startswith("--from") for source in words[:-1]]


def test_what_the_dockerfile_copies_is_enough_for_a_whole_wheel(tmp_path):
    for source in copied():
        target = tmp_path / "src" / source
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / source, target)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--no-deps",
            "--no-build-isolation",
            "-q",
            "-w",
            str(tmp_path),
            str(tmp_path / "src"),
        ],
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    needed = {"edgeway/v1/control_pb2.py", "edgeway/client/py.typed", "workers/backends/cpu.py", "gateway/pipeline.py"}
    needed |= {"gateway/demo/digits/camera.py", "gateway/demo/digits/models/digits-1.0.onnx"}
    needed |= {"gateway/demo/scenarios/failover.yaml", "workers/zygote.py"}
    assert needed <= names
    assert not any(name.startswith(("tests/", "benchmarks/", "protos/")) for name in names)


@pytest.mark.parametrize("path", sorted((DEPLOY / "examples").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_example_configs_start_a_gateway_and_missing_accelerators_are_lost(path, folder):
    config = load_device_config(path)
    with Gateway(folder, yaml.safe_load(path.read_text())) as gateway:
        states = {worker["worker"]: worker["state"] for worker in gateway.get("accelerators")}
    assert set(states) == {worker.name for worker in config.workers}
    for worker in config.workers:
        assert states[worker.name] == ("ready" if worker.backend in ("cpu", "simulated") else "lost")


def test_the_example_with_every_setting_is_one_with_the_defaults_where_it_does_not_say_otherwise():
    config = load_device_config(DEPLOY / "device.yaml.example")
    usual = DeviceConfig()
    for section in (
        "budget",
        "process",
        "limits",
        "failover",
        "heat",
        "memory",
        "shared_memory",
        "fetch",
        "store",
        "trust",
        "telemetry",
    ):
        assert getattr(config, section) == getattr(usual, section), section
    written = yaml.safe_load((DEPLOY / "device.yaml.example").read_text())
    schema = msgspec.json.schema(DeviceConfig)["$defs"]
    assert set(written["process"]) == set(schema["ProcessSettings"]["properties"])
    worker = set(schema["WorkerConfig"]["properties"])
    assert worker - set(written["workers"][0]) == {"python", "zones"}
