"""Core ML: what it is told, and why it is not here. On macOS it has never been run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.backends.nets import net
from workers.backend import BackendUnavailable, Settings
from workers.backends.coreml import CoreMlBackend, provider_options, read_options
from workers.registry import probe_all


@pytest.mark.skipif(sys.platform == "darwin", reason="this is macOS")
def test_elsewhere_than_on_macos_it_is_unsupported_and_says_so():
    kind, probe = probe_all("coreml")["coreml"]
    assert (kind, probe.available, probe.code) == ("hardware", False, "unsupported")
    assert "macOS" in probe.reason
    assert probe.remedy
    with pytest.raises(BackendUnavailable, match="macOS"):
        CoreMlBackend(Settings())


def test_a_macos_whose_onnxruntime_has_no_core_ml_says_so(monkeypatch: Any):
    if sys.platform == "darwin":
        pytest.skip("this is macOS")
    monkeypatch.setattr("workers.backends.coreml.sys.platform", "darwin")
    probe = CoreMlBackend.probe()
    assert (probe.available, probe.code) == (False, "missing-library")
    assert "no Core ML" in probe.reason


def test_options_reach_the_provider_in_its_words(tmp_path: Path):
    cache = str(tmp_path / "cache")
    told = provider_options(read_options({"computeUnits": "cpuAndNeuralEngine", "modelFormat": "neuralNetwork"}), cache)
    assert told["MLComputeUnits"] == "CPUAndNeuralEngine"
    assert told["ModelFormat"] == "NeuralNetwork"
    assert told["ModelCacheDirectory"] == cache
    assert Path(cache).is_dir()
    told = provider_options(read_options({}), "")
    assert (told["MLComputeUnits"], told["ModelFormat"]) == ("ALL", "MLProgram")
    assert "ModelCacheDirectory" not in told


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"speed": 9}, "speed"),
        ({"computeUnits": "gpu"}, "computeUnits"),
        ({"computeUnits": ["all"]}, "computeUnits"),
        ({"modelFormat": 1}, "modelFormat"),
        ({"minShare": -1}, "minShare"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_by_name(options: dict[str, Any], named: str):
    with pytest.raises(BackendUnavailable, match=rf"options\.{named}"):
        read_options(options)


@pytest.mark.hardware
def test_a_graph_is_computed_by_core_ml(tmp_path: Path):
    if sys.platform != "darwin":
        pytest.skip(f"Core ML is a part of macOS; this is {sys.platform}")
    made = CoreMlBackend(Settings("apple", cache=str(tmp_path)))
    assert "nodes on CoreMLExecutionProvider" in made.load(net().SerializeToString(), "net").provenance
