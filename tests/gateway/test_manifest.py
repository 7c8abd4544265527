"""Manifests and device configs: what is accepted, and how a mistake is told."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from gateway.cli.models import schema as schema_command
from gateway.config import load_device_config
from gateway.models.manifest_files import content_hash, from_json, load_manifests, parse_manifests, to_plain
from gateway.schemas import schema
from gateway.strict_yaml import ConfigError, parse_all

SHA = "a" * 64
FOUNDING = f"""
apiVersion: edge.ai/v1
kind: ModelDeployment
metadata:
  name: object-detector
spec:
  model:
    uri: s3://models/yolov8-int8-v2.3.onnx
    version: "2.3"
    checksum: "sha256:{SHA}"
  rollback:
    previousVersion: "2.2"
    autoRollbackOnError: true
    errorThreshold: 5
  hardware:
    accelerator: jetson-orin
    minMemoryMB: 2048
"""
FULL = (
    FOUNDING
    + f"""
  artifacts: [{{accelerator: edgetpu, uri: file:/m.tflite, checksum: sha256:{SHA}}}]
  targets: [tensorrt, edgetpu, cpu]
  latency: {{budgetMs: 20, whenInfeasible: reject, degrade: never}}
  traffic: {{percent: 10, stickyBy: route-key, shadow: false, steps: [1, 10, 50, 100], stepSeconds: 300}}
  golden: {{uri: file:/golden.npz, checksum: sha256:{SHA}, tolerance: {{rtol: 1e-2, atol: 1e-3}}}}
  batching: {{maxSize: 8, maxDelayMs: 2}}
  drift: {{reference: file:/outputs.npz, output: y, window: 500}}
  feedback: {{output: y, window: 100}}
  samples: {{every: 10, maxMB: 50}}
"""
)
FULL = FULL.replace("name: object-detector", "name: object-detector\n  counter: 7").replace(
    "errorThreshold: 5",
    'errorThreshold: "5%"\n    errorWindowSeconds: 30\n    maxLatencyRatio: 2\n    minAgreement: 0.9\n    maxDrift: 0.2',
)


def refusal(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse_manifests(text, "m.yaml")
    return caught.value


def test_the_founding_example_is_accepted_as_it_stands():
    (manifest,) = parse_manifests(FOUNDING, "m.yaml")
    assert (manifest.name, manifest.version) == ("object-detector", "2.3")
    assert list(manifest.target_order()) == ["tensorrt", "cpu"]


def test_every_optional_part_is_accepted_and_survives_the_way_through_json():
    (manifest,) = parse_manifests(FULL, "m.yaml")
    assert list(manifest.target_order()) == ["tensorrt", "edgetpu", "cpu"]
    again = from_json(json.dumps(to_plain(manifest)), "json")
    assert (again, content_hash(again)) == (manifest, content_hash(manifest))


@pytest.mark.parametrize(
    ("old", "new", "line", "path"),
    [
        ('version: "2.3"', "version: 2.30", 9, "spec.model.version"),
        ('version: "2.3"', "version: 2024-01-01\n    version: x", 10, "spec.model.version"),
        ("  name: object-detector", "  name: object-detector\n  nmae: x", 6, "metadata.nmae"),
        ("minMemoryMB: 2048", 'minMemoryMB: "512MB"', 17, "spec.hardware.minMemoryMB"),
        ("errorThreshold: 5", "errorThreshold: 5 percent", 14, "spec.rollback.errorThreshold"),
        (f"sha256:{SHA}", "md5:123", 10, "spec.model.checksum"),
        ("s3://models", "ftp://models", 8, "spec.model.uri"),
        ("edge.ai/v1", "edge.ai/v2", 2, "apiVersion"),
        ('"2.3"', "current", 9, "spec.model.version"),
    ],
)
def test_a_mistake_is_told_with_line_and_path(old, new, line, path):
    assert old in FOUNDING
    error = refusal(FOUNDING.replace(old, new, 1))
    assert (error.line, error.path) == (line, path)
    assert str(error).startswith(f"m.yaml:{line}: {path}: ")


def test_an_unknown_field_suggests_the_one_that_was_meant():
    assert "accelerator" in str(refusal(FOUNDING.replace("accelerator:", "accelrator:")))


@pytest.mark.parametrize(
    "text",
    ["a: 1\na: 2", "a: &x 1\nb: *x", "a: !!python/object:os.system 1", "{a: 1", "? [a]\n: 1", "\x00", "a: 1\n b: 2"],
)
def test_what_strict_yaml_refuses_has_a_place(text):
    with pytest.raises(ConfigError) as caught:
        parse_all(text, "x.yaml")
    assert str(caught.value).startswith("x.yaml")


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=8), plain, max_size=3))
def test_every_json_is_yaml_that_means_the_same(data):
    (document,) = parse_all(json.dumps(data), "x.json")
    assert document.data == data


@given(st.text(max_size=300))
def test_no_text_crashes_the_parser(text):
    try:
        parse_all(text, "x.yaml")
    except ConfigError as refused:
        assert refused.source == "x.yaml"


def test_a_folder_is_read_and_relative_uris_are_relative_to_it(folder):
    (folder / "a.yaml").write_text(FOUNDING.replace("s3://models/", "file:"))
    (folder / ".hidden.yaml").write_text("broken: [")
    (manifest,) = load_manifests(folder)
    assert manifest.spec.model.uri == (folder / "yolov8-int8-v2.3.onnx").as_uri()


def test_a_version_declared_twice_is_refused(folder):
    (folder / "a.yaml").write_text(FOUNDING)
    (folder / "b.yaml").write_text(FOUNDING)
    with pytest.raises(ConfigError, match="declared twice"):
        load_manifests(folder)


DEVICE = """
listen: [unix:/run/edgeway/infer.sock, 127.0.0.1:8001]
budget: {defaultMs: 1000, marginMs: 1}
workers:
  - {name: cpu, backend: cpu, threads: 1, instances: 1, python: /opt/venv/bin/python, nice: 0, cpus: [0, 1]}
  - {name: sim, backend: simulated, options: {serviceMs: 4, residentMB: 0, seed: 1}}
heat: {sysfsRoot: /sys, bands: {warm: [65, 60], hot: [75, 70], critical: [85, 80]}, dwellSeconds: 5}
sharedMemory: {clients: unix, maxMB: 512}
modelControl: poll
limits: {maxMessageMB: 128, maxInFlight: 1024, maxInFlightMB: 512}
telemetry: {otlp: "http://127.0.0.1:4317", spoolMB: 64, sampleRatio: 0.01}
fetch: {schemes: [https, s3], hosts: [models.example.com], maxMBPerSecond: 2, objectStore: {region: eu-1}}
store: {maxMB: 4096, reserveMB: 256}
trust: {required: true, keys: [{name: release, publicKey: "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}]}
"""


def test_the_device_config_of_the_documentation_is_accepted(folder):
    (folder / "device.yaml").write_text(DEVICE)
    config = load_device_config(folder / "device.yaml")
    assert [worker.name for worker in config.workers] == ["cpu", "sim"]
    assert config.limits.max_message_mb == 128


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("name: sim", "name: cpu", "cpu"),
        ("warm: [65, 60]", "warm: [60, 65]", "heat.bands.warm"),
        ("defaultMs: 1000", "defaultMs: fast", "budget.defaultMs"),
        ("127.0.0.1:8001", "127.0.0.1", "listen"),
        ("AAAA=", "AAAA", r"device.yaml:14: trust.keys\[0\].publicKey: .*edgeway sign --show-key"),
        ("keys: [", "kyes: [", "trust.kyes: unknown field; did you mean keys"),
        ("maxMBPerSecond: 2", "maxMBPerSecond: fast", "fetch.maxMBPerSecond: expected"),
    ],
)
def test_a_wrong_device_config_is_refused_with_the_path(folder, old, new, said):
    (folder / "device.yaml").write_text(DEVICE.replace(old, new, 1))
    with pytest.raises(ConfigError, match=said):
        load_device_config(folder / "device.yaml")


def plain_of(text: str):
    (document,) = parse_all(text, "text")
    return document.data


def test_the_schemas_accept_what_the_parsers_accept():
    Draft202012Validator(schema("manifest")).validate(plain_of(FULL))
    Draft202012Validator(schema("device")).validate(plain_of(DEVICE))
    wrong = plain_of(FULL)
    wrong["spec"]["speed"] = 1
    assert not Draft202012Validator(schema("manifest")).is_valid(wrong)
    assert schema_command.name == "schema"
