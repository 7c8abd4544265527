"""External data of ONNX models: only what is listed, verified and nobody else's is used."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper

from benchmarks.harness import model_of, scaled, slow, value
from edgeway import wire
from edgeway.v1 import worker_pb2
from workers.backend import ModelRejected, Settings, Tensor
from workers.backends.cpu import CpuBackend
from workers.external import external_names
from workers.loaded import NeverCancelled
from workers.loading import LoadError, load

VALUES = np.arange(64, dtype=np.float32)
DATA = VALUES.tobytes()


def outside(location: str, name: str = "weights") -> TensorProto:
    """A tensor of 64 floats that lie in another file."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[64], data_location=TensorProto.EXTERNAL)
    for key, text in (("location", location), ("offset", "0"), ("length", str(len(DATA)))):
        tensor.external_data.add(key=key, value=text)
    return tensor


def adding(location: str) -> ModelProto:
    """y = x + weights, which lie in another file."""
    nodes = [helper.make_node("Add", ["x", "weights"], ["y"])]
    tensors = [value("x", TensorProto.FLOAT, [64])], [value("y", TensorProto.FLOAT, [64])]
    return model_of(nodes, *tensors, [outside(location)])


def order(folder: Path, location: str, listed: str | None = None, sha256: str = "") -> worker_pb2.Load:
    """A load of a model that names ``location``; ``listed``: as what the manifest lists it."""
    path = folder / "model.onnx"
    path.write_bytes(adding(location).SerializeToString())
    made = worker_pb2.Load(model=1, path=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    if listed is not None:
        made.external.add(name=listed, sha256=sha256 or hashlib.sha256(DATA).hexdigest())
    return made


def test_listed_external_data_is_used(tmp_path):
    (tmp_path / "weights.bin").write_bytes(DATA)
    model, rule = load(CpuBackend(Settings()), order(tmp_path, "weights.bin", "weights.bin"))
    x = np.ones(64, np.float32)
    tensor = Tensor("FP32", (64,), memoryview(x.tobytes()))
    (y,) = model.run({"x": tensor}, ["y"], NeverCancelled())
    assert np.frombuffer(y.data, np.float32).tolist() == (VALUES + 1).tolist()
    assert rule is None


def test_the_verified_bytes_are_used_whatever_lies_in_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "weights.bin").write_bytes(DATA)
    (tmp_path / "weights.bin").write_bytes(bytes(len(DATA)))
    monkeypatch.chdir(tmp_path)
    model, _ = load(CpuBackend(Settings()), order(tmp_path / "store", "weights.bin", "weights.bin"))
    (y,) = model.run({"x": Tensor("FP32", (64,), memoryview(bytes(256)))}, ["y"], NeverCancelled())
    assert np.frombuffer(y.data, np.float32).tolist() == VALUES.tolist()


def hardlink(folder: Path) -> worker_pb2.Load:
    (folder / "secret").write_bytes(DATA)
    os.link(folder / "secret", folder / "weights.bin")
    return order(folder, "weights.bin", "weights.bin")


def symlink(folder: Path) -> worker_pb2.Load:
    (folder / "secret").write_bytes(DATA)
    (folder / "weights.bin").symlink_to("secret")
    return order(folder, "weights.bin", "weights.bin")


def parent(folder: Path) -> worker_pb2.Load:
    (folder / "secret").write_bytes(DATA)
    (folder / "store").mkdir()
    return order(folder / "store", "../secret", "../secret")


def absolute(folder: Path) -> worker_pb2.Load:
    (folder / "secret").write_bytes(DATA)
    return order(folder, str(folder / "secret"), str(folder / "secret"))


def fifo(folder: Path) -> worker_pb2.Load:
    os.mkfifo(folder / "weights.bin")
    return order(folder, "weights.bin", "weights.bin")


def device(folder: Path) -> worker_pb2.Load:
    return order(folder, "/dev/zero", "/dev/zero")


def unlisted(folder: Path) -> worker_pb2.Load:
    (folder / "weights.bin").write_bytes(DATA)
    return order(folder, "weights.bin")


def wrong_checksum(folder: Path) -> worker_pb2.Load:
    (folder / "weights.bin").write_bytes(DATA[::-1])
    return order(folder, "weights.bin", "weights.bin")


FORMS = (hardlink, symlink, parent, absolute, fifo, device, unlisted, wrong_checksum)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_external_data_that_is_not_ours_is_refused(form, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LoadError) as refused:
        load(CpuBackend(Settings()), form(tmp_path))
    assert any(word in str(refused.value) for word in ("external data", "weights.bin")), refused.value


@pytest.mark.parametrize("location", ["../secret", "x/../../secret", "/etc/passwd", "/dev/zero", "/proc/self/mem", ""])
def test_a_path_that_is_not_listed_is_refused_before_the_runtime_sees_it(location):
    with pytest.raises(ModelRejected, match="external data that the manifest does not list"):
        CpuBackend(Settings()).load(adding(location).SerializeToString(), "m", {"weights.bin": DATA})


def hidden_in(place: str) -> ModelProto:
    """A model with a tensor outside in an unusual place."""
    model = slow(2)
    loop = next(node for node in model.graph.node if node.op_type == "Loop")
    body = next(a for a in loop.attribute if a.name == "body").g
    tensor = outside("hidden.bin")
    if place == "constant":
        model.graph.node.append(helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(VALUES)))
        model.graph.node[-1].attribute[0].t.CopyFrom(tensor)
    elif place == "tensors":
        model.graph.node[0].attribute.append(AttributeProto(name="ts", type=AttributeProto.TENSORS, tensors=[tensor]))
    elif place == "body":
        body.initializer.append(tensor)
    elif place == "sparse":
        model.graph.sparse_initializer.add(values=tensor)
    elif place == "function":
        model.functions.add(name="f").node.append(helper.make_node("Constant", [], ["c"]))
        model.functions[0].node[0].attribute.add(name="value", t=tensor)
    elif place == "training":
        model.training_info.add().algorithm.initializer.append(tensor)
    return model


@pytest.mark.parametrize("place", ["constant", "tensors", "body", "sparse", "function", "training"])
def test_names_are_found_wherever_a_model_has_tensors(place):
    assert external_names(hidden_in(place).SerializeToString()) == {"hidden.bin"}


def test_a_message_in_two_parts_counts_as_one():
    parts = scaled(2.0).SerializeToString() + adding("second.bin").SerializeToString()
    assert external_names(parts) == {"second.bin"}


@given(st.one_of(st.integers(0, 40), st.integers((1 << 21) - 150, (1 << 21) + 20)))
def test_a_name_is_found_wherever_it_lies(before):
    skipped = wire.field(2000, bytes(before))  # no field of a model: all that follows lies that much further back
    assert external_names(skipped + adding("second.bin").SerializeToString()) == {"second.bin"}


def test_models_without_external_data_name_none():
    assert external_names(scaled(2.0).SerializeToString()) == frozenset()
    named = scaled(2.0)
    named.doc_string = named.graph.node[0].name = "location"
    assert external_names(named.SerializeToString()) == frozenset()


@pytest.mark.parametrize(
    "content", [b"location", b"\x3a\xff\x01location", b"\x0blocation\x0c" * 3, b"\x3a\x80location"]
)
def test_bytes_that_are_no_model_are_refused(content):
    with pytest.raises(ModelRejected):
        CpuBackend(Settings()).load(content, "m")
