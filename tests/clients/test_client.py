"""The Python client against a real gateway: results, errors, deadlines, and what happens when the gateway goes away."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from benchmarks.harness import put, scaled, slow_for, wait_for
from edgeway.client import AsyncClient, BadRequest, Client, InferenceError, Late, NotFound, Unavailable

pytestmark = pytest.mark.system
ONE = {"x": np.ones(1, np.float32)}


def test_numpy_goes_in_and_comes_out_with_the_facts(serving):
    with Client(serving.unix) as client:
        result = client.infer("double", {"x": np.arange(4, dtype=np.float32)}, budget_ms=500, request_id="r-1")
    assert result["y"].tolist() == [0, 2, 4, 6]
    assert (result.model, result.version, result.id) == ("double", "1", "r-1")
    assert (result.served_by, result.kind, result.degraded, result.reason) == ("cpu", "cpu", False, "")
    assert 0 < result.compute_ms <= result.total_ms <= result.wall_ms
    assert 0 < result.budget_left_ms < 500


def test_tcp_serves_like_the_unix_socket(serving):
    with Client(serving.address) as client:
        assert client.infer("identity", ONE)["y"].tolist() == [1.0]


async def test_the_async_client_does_the_same(serving):
    async with AsyncClient(serving.unix) as client:
        assert await client.ready("double")
        result = await client.infer("double", ONE, budget_ms=500)
        metadata = await client.metadata("double")
        with pytest.raises(NotFound):
            await client.infer("nobody", ONE)
    assert result["y"].tolist() == [2.0]
    assert [(spec.name, spec.datatype, spec.shape) for spec in metadata.inputs] == [("x", "FP32", (-1,))]


def test_a_wrong_request_raises_with_the_name_of_the_tensor(serving):
    with Client(serving.unix) as client:
        with pytest.raises(BadRequest, match=r"'x'.*FP64"):
            client.infer("identity", {"x": np.ones(1)})
        with pytest.raises(NotFound, match="nobody"):
            client.infer("nobody", ONE)
        with pytest.raises(ValueError, match=r"'x'.*complex"):
            client.infer("identity", {"x": np.ones(1, complex)})


def test_a_call_without_a_budget_still_ends(folder, gateway_in):
    put(folder / "models", "slow", slow_for(1.0))
    gateway = gateway_in({}, "--model-repository", str(folder / "models"))
    with Client(gateway.unix, deadline_ms=100) as client:
        began = time.monotonic()
        with pytest.raises(Late):
            client.infer("slow", ONE)
        assert time.monotonic() - began < 0.5


def test_without_a_gateway_the_error_names_the_address_within_the_budget(folder):
    with Client(f"unix:{folder}/none.sock") as client:
        began = time.monotonic()
        with pytest.raises(Unavailable, match=r"none\.sock.*edgeway serve"):
            client.infer("m", ONE, budget_ms=150)
        assert time.monotonic() - began < 0.5


async def test_the_async_client_also_names_the_address(folder):
    async with AsyncClient(f"unix:{folder}/none.sock") as client:
        with pytest.raises(Unavailable, match=r"none\.sock"):
            await client.infer("m", ONE, budget_ms=100)


def test_a_gateway_that_comes_late_is_found_within_the_budget(folder, gateway_in):
    put(folder / "models", "double", scaled(2.0))
    answers: list[object] = []

    def ask() -> None:
        with Client(f"unix:{folder}/infer.sock") as client:
            answers.append(client.infer("double", ONE, budget_ms=20_000))

    thread = threading.Thread(target=ask)
    thread.start()
    gateway_in({}, "--model-repository", str(folder / "models"))
    thread.join(20)
    assert [answer["y"].tolist() for answer in answers] == [[2.0]]


def test_no_request_fails_while_the_gateway_is_restarted(folder, gateway_in):
    put(folder / "models", "double", scaled(2.0))
    gateway = gateway_in({}, "--model-repository", str(folder / "models"))
    stop, counts, failures = threading.Event(), [0], []

    def ask() -> None:
        with Client(gateway.unix, deadline_ms=15_000) as client:
            while not stop.wait(0.005):
                try:
                    client.infer("double", ONE)
                    counts[0] += 1
                except InferenceError as failed:
                    failures.append(failed)

    thread = threading.Thread(target=ask)
    thread.start()
    wait_for(lambda: counts[0] > 20, 5, "the first answers")
    gateway.stop()
    before = counts[0]
    gateway_in({}, "--model-repository", str(folder / "models"))
    wait_for(lambda: counts[0] > before + 20, 10, "answers of the new gateway")
    stop.set()
    thread.join()
    assert failures == []


def test_infer_on_the_command_line_reads_npy_files(folder, serving):
    np.save(folder / "x.npy", np.array([1.5, 2], np.float32))
    done = serving.run("infer", "double", "--input", f"x=@{folder}/x.npy", "--budget-ms", "500")
    assert done.returncode == 0, done.stderr
    assert "3, 4" in done.stdout
    wrong = serving.run("infer", "double", "--input", "x=@/nowhere.npy")
    assert (wrong.returncode, "nowhere.npy" in wrong.stderr) == (1, True)
    usage = serving.run("infer", "double", "--budget-ms", "-3")
    assert usage.returncode == 2
