"""Tensors in memory that clients share: with stock clients, and what hostile ones can't do."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.utils.shared_memory as shm
from onnx import TensorProto

from benchmarks.harness import Gateway, identity, put, scaled, scratch

pytestmark = pytest.mark.system
SHM = Path("/dev/shm")


@pytest.fixture(scope="module")
def serving() -> Iterator[Gateway]:
    with scratch() as made:
        put(made / "models", "identity", identity())
        put(made / "models", "double", scaled(2.0))
        put(made / "models", "text", identity(TensorProto.STRING))
        with Gateway(made, flags=["--model-repository", str(made / "models")]) as gateway:
            yield gateway


@pytest.fixture
def client(serving: Gateway) -> Iterator[triton.InferenceServerClient]:
    made = triton.InferenceServerClient(serving.unix)
    yield made
    made.unregister_system_shared_memory()
    made.close()


@pytest.fixture
def region(client: triton.InferenceServerClient) -> Iterator[Any]:
    """A region ``r`` of 64 kB, made and registered by the stock client."""
    key = f"edgeway-test-{uuid.uuid4().hex}"
    handle = shm.create_shared_memory_region("r", key, 65536)
    client.register_system_shared_memory("r", key, 65536)
    yield handle
    client.unregister_system_shared_memory("r")
    with contextlib.suppress(Exception):
        shm.destroy_shared_memory_region(handle)


def asked(
    client: triton.InferenceServerClient,
    model: str,
    shape: list[int],
    size: int,
    offset: int = 0,
    region: str = "r",
    into: tuple[str, int, int] | None = None,
    datatype: str = "FP32",
) -> triton.InferResult:
    tensor = triton.InferInput("x", shape, datatype)
    tensor.set_shared_memory(region, size, offset)
    output = triton.InferRequestedOutput("y")
    if into is not None:
        output.set_shared_memory(*into)
    return client.infer(model, [tensor], outputs=[output])


def test_a_stock_client_has_inputs_and_outputs_in_its_region(client, region):
    x = np.arange(1000, dtype=np.float32)
    shm.set_shared_memory_region(region, [x])
    result = asked(client, "double", [1000], 4000, into=("r", 8000, 4096))
    output = result.get_output("y")
    assert output.parameters["shared_memory_region"].string_param == "r"
    assert output.parameters["shared_memory_byte_size"].int64_param == 4000
    assert output.parameters["shared_memory_offset"].int64_param == 4096
    assert shm.get_contents_as_numpy(region, np.float32, [1000], 4096).tolist() == (2 * x).tolist()


def test_an_input_in_a_region_gives_an_answer_in_the_message(client, region):
    x = np.arange(16, dtype=np.float32)
    shm.set_shared_memory_region(region, [x], offset=64)
    assert asked(client, "double", [16], 64, 64).as_numpy("y").tolist() == (2 * x).tolist()


def test_text_lies_in_a_region_with_lengths_before_its_elements(client, region):
    elements = [b"edge", "wäy".encode(), b""]
    raw = b"".join(len(each).to_bytes(4, "little") + each for each in elements)
    region._mpsm_handle.buf[: len(raw)] = raw
    result = asked(client, "text", [3], len(raw), into=("r", 100, 1024), datatype="BYTES")
    assert result.get_output("y").parameters["shared_memory_byte_size"].int64_param == len(raw)
    assert shm.get_contents_as_numpy(region, np.object_, [3], 1024).tolist() == elements


def test_the_extension_is_announced_and_regions_are_shown(client, region):
    assert "system_shared_memory" in client.get_server_metadata().extensions
    status = client.get_system_shared_memory_status("r").regions["r"]
    assert (status.name, status.offset, status.byte_size) == ("r", 0, 65536)
    client.unregister_system_shared_memory("r")
    client.unregister_system_shared_memory("r")  # a second time does no harm
    assert not client.get_system_shared_memory_status().regions


def test_over_tcp_shared_memory_is_refused_by_default(serving, region):
    with triton.InferenceServerClient(serving.address) as client:
        assert "system_shared_memory" not in client.get_server_metadata().extensions
        for call in (
            lambda: client.register_system_shared_memory("t", "t", 64),
            lambda: client.get_system_shared_memory_status(),
            lambda: client.unregister_system_shared_memory("r"),
            lambda: asked(client, "identity", [4], 16),
        ):
            with pytest.raises(triton.InferenceServerException) as refused:
                call()
            assert refused.value.status() == "StatusCode.PERMISSION_DENIED"
