"""Regions that the gateway makes: what a client has of them, and that nothing is left when it is gone."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from benchmarks.harness import Gateway, identity, put, scaled, scratch, slow_for, wait_for
from edgeway.client import AsyncClient, BadRequest, Client, InferenceError
from edgeway.v1 import regions_pb2

pytestmark = pytest.mark.system
MB = 1 << 20


@pytest.fixture(scope="module")
def serving() -> Iterator[Gateway]:
    with scratch() as made:
        put(made / "models", "double", scaled(2.0))
        put(made / "models", "identity", identity())
        put(made / "models", "slow", slow_for(0.3))
        config = {"sharedMemory": {"maxMB": 16}}
        with Gateway(made, config, ["--model-repository", str(made / "models")]) as gateway:
            yield gateway


def shared_files(pid: int, name: str = "edgeway-region") -> int:
    """How many such regions a process has open or mapped."""
    opened = 0
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            opened += name in str(fd.readlink())
    return opened + Path(f"/proc/{pid}/maps").read_text().count(name)


def everywhere(gateway: Gateway) -> int:
    assert gateway.process is not None
    return sum(shared_files(pid) for pid in (gateway.process.pid, *gateway.children()))


def test_arrays_of_a_region_do_not_travel(serving):
    x = np.arange(MB, dtype=np.float32)
    with Client(serving.unix) as client, client.region(9 * MB) as region:
        assert region.shared
        assert not region.reason
        frame, out = region.array(x.shape), region.array(x.shape)
        frame[:] = x
        infer, travelled = client._infer, []

        def counted(message: bytes, **options: Any) -> bytes:
            answer: bytes = infer(message, **options)
            travelled.append(len(message) + len(answer))
            return answer

        client._infer = counted
        client.infer("double", {"x": x})
        assert travelled.pop() > 2 * x.nbytes
        for _ in range(3):
            out[:] = 0
            result = client.infer("double", {"x": frame}, into={"y": out})
            assert travelled.pop() < 2000
            assert (result["y"] == 2 * x).all()
            assert (out == 2 * x).all()
            assert np.shares_memory(result["y"], out)


async def test_the_async_client_does_the_same(serving):
    async with AsyncClient(serving.unix) as client:
        with await client.region(MB) as region:
            frame = region.array(1000)
            frame[:] = 3
            result = await client.infer("double", {"x": frame}, into={"y": frame})
            assert (frame == 6).all()
            assert np.shares_memory(result["y"], frame)


def test_other_arrays_travel_beside_those_of_a_region(folder, gateway_in):
    from onnx import TensorProto, helper

    from benchmarks.harness import model_of, value

    value_of = [value(name, TensorProto.FLOAT, ["n"]) for name in ("a", "b")]
    outputs = [value(name, TensorProto.FLOAT, ["n"]) for name in ("sum", "difference")]
    nodes = [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Sub", ["a", "b"], ["difference"])]
    put(folder / "models", "both", model_of(nodes, value_of, outputs))
    gateway = gateway_in({}, "--model-repository", str(folder / "models"))
    with Client(gateway.unix) as client, client.region(4 * MB) as region:
        a, b, out = region.array(100_000), np.full(100_000, 2, np.float32), region.array(100_000)
        a[:] = 5
        for inputs in ({"a": a, "b": b}, {"a": b, "b": a}):
            result = client.infer("both", inputs, into={"sum": out}, outputs=["difference"])
            assert (result["sum"] == 7).all()
            assert (out == 7).all()
            assert (result["difference"] == inputs["a"] - inputs["b"]).all()
            assert not np.shares_memory(result["difference"], region._memory)


def test_an_array_that_is_too_small_for_the_output_is_refused(serving):
    with Client(serving.unix) as client, client.region(MB) as region:
        frame, small = region.array(1000), region.array(10)
        with pytest.raises(BadRequest, match=r"4000 bytes.*40"):
            client.infer("double", {"x": frame}, into={"y": small})
        with pytest.raises(ValueError, match=r"4000 bytes.*40"):  # the same without a region
            client.infer("double", {"x": frame}, into={"y": np.zeros(10, np.float32)})
        assert client.infer("double", {"x": frame})["y"].shape == (1000,)


def test_over_tcp_arrays_travel_and_the_region_says_why(serving):
    with Client(serving.address) as client, client.region(MB) as region:
        assert not region.shared
        assert "Unix socket" in region.reason
        frame, out = region.array(4), region.array(4)
        frame[:] = 1
        assert client.infer("double", {"x": frame}, into={"y": out})["y"].tolist() == [2] * 4 == out.tolist()


def test_beyond_the_limit_arrays_travel_and_the_region_says_why(serving):
    with Client(serving.unix) as client, client.region(15 * MB) as first, client.region(2 * MB) as second:
        assert first.shared
        assert not second.shared
        assert "maxMB" in second.reason
        frame = second.array(4)
        assert client.infer("identity", {"x": frame})["y"].tolist() == [0] * 4


def test_a_region_outlives_its_gateway_as_ordinary_memory(folder, gateway_in):
    put(folder / "models", "double", scaled(2.0))
    gateway = gateway_in({}, "--model-repository", str(folder / "models"))
    with Client(gateway.unix, deadline_ms=10_000) as client, client.region(MB) as region:
        frame, out = region.array(4), region.array(4)
        frame[:] = 1
        assert client.infer("double", {"x": frame}, into={"y": out})["y"].tolist() == [2] * 4
        os.kill(gateway.process.pid, signal.SIGKILL)
        gateway.process.wait()
        gateway.start()
        out[:] = 0
        assert client.infer("double", {"x": frame}, into={"y": out})["y"].tolist() == [2] * 4 == out.tolist()
        assert not region.shared
        assert "ended" in region.reason


def test_what_a_killed_client_had_is_free_in_all_processes(serving):
    program = textwrap.dedent("""
        import sys
        import numpy as np
        from edgeway.client import Client
        client = Client(sys.argv[1])
        regions = [client.region(1 << 20) for _ in range(4)]
        for region in regions:
            frame = region.array(100_000)
            client.infer("double", {"x": frame}, into={"y": frame})
        print("ready", flush=True)
        client.infer("slow", {"x": regions[0].array(1)})
        sys.stdin.read()
    """)
    command = [sys.executable, "-c", program, serving.unix]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout.readline() == "ready\n"
        assert everywhere(serving) >= 8  # four in the gateway, four in the worker
        client.kill()
        client.wait()
    wait_for(lambda: everywhere(serving) == 0, 10, "the end of the regions")
    with Client(serving.unix) as again, again.region(15 * MB) as region:  # the limit is all ours again
        assert region.shared


def test_a_region_is_free_as_soon_as_its_client_lets_go(serving):
    with Client(serving.unix) as client:
        with client.region(MB) as region:
            client.infer("double", {"x": region.array(100_000)})
            assert everywhere(serving) > 0
        wait_for(lambda: everywhere(serving) == 0, 5, "the end of the region")
        frame = region.array(4)  # it is still memory, and travels
        assert client.infer("double", {"x": frame})["y"].shape == (4,)


def test_a_region_that_nobody_fetches_is_taken_back(serving, monkeypatch):
    with grpc.insecure_channel(serving.unix) as channel:
        create = channel.unary_unary("/edgeway.v1.Regions/Create")
        created = regions_pb2.CreateRegionResponse.FromString(
            create(regions_pb2.CreateRegionRequest(byte_size=MB).SerializeToString(), timeout=5)
        )
        assert everywhere(serving) == 1
        from edgeway.client.region import attach

        created.token = bytes(16)
        assert not attach(MB, created, serving.unix).shared
        wait_for(lambda: everywhere(serving) == 0, 10, "the end of the region")


@pytest.mark.parametrize("size", [0, 1 << 63, (1 << 64) - 1])
def test_sizes_that_are_none_are_refused(serving, size):
    with grpc.insecure_channel(serving.unix) as channel:
        create = channel.unary_unary("/edgeway.v1.Regions/Create")
        with pytest.raises(grpc.RpcError) as refused:
            create(regions_pb2.CreateRegionRequest(byte_size=size).SerializeToString(), timeout=5)
    expected = grpc.StatusCode.RESOURCE_EXHAUSTED if size else grpc.StatusCode.INVALID_ARGUMENT
    assert refused.value.code() is expected


def test_there_is_no_door_where_shared_memory_is_off(folder, gateway_in):
    put(folder / "models", "double", scaled(2.0))
    gateway = gateway_in({}, "--model-repository", str(folder / "models"), "--client-shared-memory", "off")
    assert not list(folder.glob("*.regions"))
    with Client(gateway.unix) as client, client.region(MB) as region:
        assert not region.shared
        assert "off" in region.reason
        with pytest.raises(InferenceError):
            client.infer("nobody", {"x": region.array(1)})


def test_the_door_is_gone_with_the_gateway(folder, gateway_in):
    gateway = gateway_in({})
    assert (folder / "infer.sock.regions").is_socket()
    assert gateway.stop() == 0
    assert not [path for path in folder.iterdir() if path.is_socket()]


def test_the_runtime_that_was_bound_to_a_region_lets_go_of_it_when_it_ends(serving):
    before = everywhere(serving)
    x = np.arange(MB, dtype=np.float32)
    with Client(serving.unix) as client:
        with client.region(x.nbytes) as region:
            frame = region.array(x.shape)
            for number in range(1, 6):  # from the third run on, its outputs are where those before were
                frame[:] = number * x
                assert np.array_equal(client.infer("double", {"x": frame})["y"], 2 * number * x)
            assert everywhere(serving) > before
            del frame
        wait_for(lambda: everywhere(serving) == before, 10, "the end of the region")
