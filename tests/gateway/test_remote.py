"""Remote targets without a network: options, agreement, messages, and the link over a scripted endpoint."""

from __future__ import annotations

import asyncio
import re
import struct
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec
import numpy as np
import pytest

from edgeway import frames
from edgeway.v1 import open_inference_pb2 as oip
from edgeway.v1 import worker_pb2
from gateway.config import WorkerConfig, parse_device_config
from gateway.dispatch.remote.keeper import RemoteKeeper
from gateway.dispatch.remote.pauses import delay_after
from gateway.dispatch.remote.worker import RemoteWorker
from gateway.errors import Busy, Looped, RefusedThere, TargetSlow, WorkerLost
from gateway.remote.agreement import mismatch
from gateway.remote.failure import NotServing, RemoteFailure
from gateway.remote.golden import Comparison, Disagrees, Unusable, numbers, read_samples
from gateway.remote.messages import BadAnswer, infer_request, read_answer
from gateway.request import InputTensor, Request, Signature, TensorSpec
from gateway.strict_yaml import ConfigError
from gateway.target import Golden, LoadOrder, Target, Version


def spec(name: str = "x", datatype: str = "FP32", *shape: int) -> TensorSpec:
    return TensorSpec(name, datatype, shape or (-1,))


DOUBLE = Signature("onnx", (spec(),), (spec("y"),))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ("url: '192.0.2.7:8001'", "beyond loopback"),
        ("url: 'box:8001', tls: {}, insecure: true", "contradicts tls"),
        ("url: 'unix:/x', tls: {}", "no effect on a Unix socket"),
        ("url: 'unix:x'", "must be absolute"),
        ("url: 'http://box:8001'", "expected HOST:PORT"),
        ("url: '127.0.0.1:0'", "a port is 1 to 65535"),
        ("url: '127.0.0.1:1', tls: {cert: a}", "belong together"),
        ("url: '127.0.0.1:1', maxInFlight: 0", "expected `int` >= 1"),
        ("url: '127.0.0.1:1', speed: 3", "unknown field; known are url"),
        ("model: m", "options.url: is missing"),
    ],
)
def test_options_that_cannot_be_are_refused_by_name(options, problem):
    with pytest.raises(ConfigError, match=problem):
        parse_device_config(f"workers: [{{name: far, backend: remote, options: {{{options}}}}}]", "device.yaml")


@pytest.mark.parametrize("setting", ["python: /usr/bin/python3", "threads: 2", "instances: 3", "env: {A: b}"])
def test_what_is_of_a_process_is_refused_where_there_is_none(setting):
    with pytest.raises(ConfigError, match="of worker processes"):
        parse_device_config(
            f"workers: [{{name: f, backend: remote, {setting}, options: {{url: 'a:1', insecure: true}}}}]", "d"
        )


@pytest.mark.parametrize(
    ("theirs", "problem"),
    [
        (DOUBLE, ""),
        (Signature("other", (spec(),), (spec("more"), spec("y"))), ""),
        (Signature("other", (), ()), "does not say what inputs"),
        (Signature("other", (spec("z"),), (spec("y"),)), "no input 'x', but 'z'"),
        (Signature("other", (spec("x", "FP64"),), (spec("y"),)), "is FP64, the local model's FP32"),
        (Signature("other", (spec("x", "FP32", 4),), (spec("y"),)), r"shape \[4\], the local model's \[-1\]"),
        (Signature("other", (spec("x", "FP32", -1, -1),), (spec("y"),)), "shape"),
        (Signature("other", (spec(), spec("w")), (spec("y"),)), "wants the further input 'w'"),
        (Signature("other", (spec(),), (spec("y", "INT8"),)), "output 'y' is INT8"),
    ],
)
def test_a_remote_model_must_take_and_give_what_the_local_one_does(theirs, problem):
    assert re.search(problem or "^$", mismatch(DOUBLE, theirs))


def test_a_local_model_of_fixed_shape_fits_a_remote_one_of_any():
    fixed = Signature("onnx", (spec("x", "FP32", 4),), (spec("y", "FP32", 4),))
    assert mismatch(fixed, DOUBLE) == ""
    assert mismatch(DOUBLE, fixed) != ""


def test_a_request_is_what_protobuf_reads_and_its_bytes_are_untouched():
    inputs = [
        InputTensor("x", "FP32", (2, 2), memoryview(np.arange(4, dtype=np.float32).tobytes())),
        InputTensor("s", "BYTES", (1,), memoryview(b"\x02\0\0\0ab")),
        InputTensor("none", "INT8", (0,), memoryview(b"")),
    ]
    message = oip.ModelInferRequest.FromString(infer_request("m", "3", inputs, ["y"], 0.25, 4))
    assert (message.model_name, message.model_version) == ("m", "3")
    assert message.parameters["timeout"].int64_param == 250_000
    assert message.parameters["priority"].int64_param == 4
    assert [(i.name, i.datatype, list(i.shape)) for i in message.inputs] == [
        ("x", "FP32", [2, 2]),
        ("s", "BYTES", [1]),
        ("none", "INT8", [0]),
    ]
    assert list(message.raw_input_contents) == [bytes(i.data) for i in inputs]
    assert [output.name for output in message.outputs] == ["y"]


def response(*outputs: tuple[str, str, list[int], bytes], typed: bool = False) -> bytes:
    message = oip.ModelInferResponse(model_name="m")
    for name, datatype, shape, content in outputs:
        output = message.outputs.add(name=name, datatype=datatype, shape=shape)
        if typed:
            output.contents.fp32_contents.extend(struct.unpack(f"<{len(content) // 4}f", content))
        else:
            message.raw_output_contents.append(content)
    return message.SerializeToString()


TWO = Signature("onnx", (spec(),), (spec("y"), spec("z")))
ONE, OTHER = struct.pack("<2f", 1, 2), struct.pack("<f", 3)


@pytest.mark.parametrize("typed", [False, True])
def test_an_answer_is_read_by_name_whatever_its_order_and_form(typed):
    message = response(("z", "FP32", [1], OTHER), ("y", "FP32", [2], ONE), typed=typed)
    view, places = read_answer(message, TWO, ())
    assert [place.index for place in places] == [0, 1]
    assert [bytes(view[p.offset : p.offset + p.nbytes]) for p in places] == [ONE, OTHER]
    view, places = read_answer(message, TWO, (1,))
    assert [(p.index, bytes(view[p.offset : p.offset + p.nbytes])) for p in places] == [(1, OTHER)]


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xff",
        response(("y", "FP32", [2], ONE)),
        response(("y", "FP32", [3], ONE), ("z", "FP32", [1], OTHER)),
        response(("y", "FP64", [1], ONE), ("z", "FP32", [1], OTHER)),
        response(("y", "FP32", [-1], ONE), ("z", "FP32", [1], OTHER)),
        response(("y", "FP32", [2], ONE), ("z", "FP32", [1], OTHER))[:-3],
        response(("y", "FP32", [2], ONE), ("z", "WHAT", [1], OTHER)),
    ],
)
def test_an_answer_that_makes_no_sense_is_none(content):
    with pytest.raises(BadAnswer):
        read_answer(content, TWO, ())


def test_tries_come_at_once_and_then_ever_more_rarely():
    assert [delay_after(n) for n in (0, 1, 2, 3, 50)] == [0.0, 0.2, 0.4, 0.8, 30.0]


class Endpoint:
    """Says and does what the test wants."""

    def __init__(self) -> None:
        self.reachable = True
        self.signature = DOUBLE
        self.failure: RemoteFailure | None = None
        self.held: list[asyncio.Future[None]] = []
        self.hold = False
        self.seen: list[tuple[oip.ModelInferRequest, float, dict[str, str]]] = []
        self.cancelled = 0

    async def introduce(self, seconds: float) -> str:
        await self.check(seconds)
        return "scripted 1"

    async def check(self, seconds: float) -> None:
        if not self.reachable:
            raise RemoteFailure(14, "Connection refused")

    async def model(self, name: str, version: str, seconds: float) -> Signature:
        return self.signature

    async def infer(self, message: bytes, seconds: float, metadata: Any) -> bytes:
        request = oip.ModelInferRequest.FromString(message)
        if request.parameters["priority"].int64_param == 9:
            return response(("y", "FP32", list(request.inputs[0].shape), request.raw_input_contents[0]))
        self.seen.append((request, seconds, dict(metadata)))
        if self.hold:
            self.held.append(asyncio.get_running_loop().create_future())
            try:
                await self.held[-1]
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        if self.failure is not None:
            raise self.failure
        return response(("y", "FP32", list(request.inputs[0].shape), request.raw_input_contents[0]))

    async def close(self) -> None:
        pass


class Remote:
    """A remote worker with one model, on a scripted endpoint."""

    def __init__(self, **options: Any) -> None:
        config = {"name": "far", "backend": "remote", "options": {"url": "127.0.0.1:1", **options}}
        self.endpoint = Endpoint()
        self.events: list[str] = []
        self.worker = RemoteWorker(
            msgspec.convert(config, WorkerConfig), lambda kind, *_, **__: self.events.append(kind), lambda: None
        )
        self.keeper = RemoteKeeper(self.worker, lambda *_: self.endpoint, 1 << 20)
        self.target = Target("far", 0, self.worker)
        self.version = Version("1", DOUBLE, (self.target,))
        self.ended: list[frames.Reply | None] = []

    async def __aenter__(self) -> Remote:
        self.keeper.start()
        await asyncio.wait_for(self.worker.want(self.target, LoadOrder("m", "1", "", "")), 5)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.keeper.stop()

    def infer(self, seconds: float = 1.0, hops: int = 0, priority: int = 5) -> Any:
        inputs = [InputTensor("x", "FP32", (2,), memoryview(ONE))]
        request = Request("m", "", "", inputs, (), monotonic(), 8, hops=hops)
        end = monotonic() + seconds
        pending = self.worker.require_link().infer(
            self.target.handle,
            self.version.plan(request),
            inputs,
            64,
            start_by=end,
            expire_at=None,
            priority=priority,
            hang_limit=30.0,
            budget_end=end,
            request=request,
        )
        pending.on_end = self.ended.append
        return pending


async def until(condition: Callable[[], object], limit: float = 5.0) -> None:
    """Raises TimeoutError."""

    async def looked() -> None:
        while not condition():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)

    await asyncio.wait_for(looked(), limit)


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_the_budget_of_the_attempt_goes_along_as_deadline_and_parameter():
    async with Remote() as remote:
        reply = await remote.infer(0.3).reply
    request, seconds, metadata = remote.endpoint.seen[0]
    assert reply.status == frames.OK
    assert 0 < seconds <= 0.3
    assert 0 < request.parameters["timeout"].int64_param <= 300_000
    assert metadata == {"edgeway-hops": "1"}


async def test_no_more_are_sent_than_it_is_given_at_a_time_and_the_rest_wait_by_priority():
    async with Remote(maxInFlight=1) as remote:
        remote.endpoint.hold = True
        first, low, high = remote.infer(), remote.infer(priority=7), remote.infer(priority=2)
        await settle()
        assert [run.begun for run in (first, low, high)] == [True, False, False]
        remote.endpoint.held[0].set_result(None)
        await first.reply
        await settle()
        assert [run.begun for run in (low, high)] == [False, True]
        link = remote.worker.require_link()
        link.expire(low)
        assert (await low.reply).status == frames.EXPIRED
        link.abandon(high)
        await settle()
        assert remote.endpoint.cancelled == 1
        assert [reply.status for reply in remote.ended] == [frames.OK, frames.EXPIRED, frames.CANCELLED]


async def test_what_waits_is_dropped_when_it_can_no_longer_begin():
    async with Remote(maxInFlight=1) as remote:
        remote.endpoint.hold = True
        remote.infer()
        assert (await asyncio.wait_for(remote.infer(0.05).reply, 2)).status == frames.EXPIRED
        assert len(remote.endpoint.seen) == 1


@pytest.mark.parametrize(
    ("code", "error", "status"),
    [
        (3, RefusedThere, frames.RUNTIME_ERROR),
        (4, TargetSlow, frames.EXPIRED),
        (5, WorkerLost, frames.UNKNOWN_MODEL),
        (8, Busy, frames.EXPIRED),
        (9, WorkerLost, frames.UNKNOWN_MODEL),
    ],
)
async def test_each_code_of_a_refusal_means_something_of_its_own(code, error, status):
    async with Remote() as remote:
        remote.endpoint.failure = RemoteFailure(code, "because")
        with pytest.raises(error, match="because"):
            await remote.infer().reply
        assert [reply.status for reply in remote.ended] == [status]


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (RemoteFailure(14, "Socket closed"), frames.DEVICE_FAULT),
        (RemoteFailure(13, "Received RST_STREAM with error code 2"), frames.DEVICE_FAULT),
        (RemoteFailure(13, "the runtime raised"), frames.RUNTIME_ERROR),
        (RemoteFailure(2, "what"), frames.RUNTIME_ERROR),
    ],
)
async def test_a_broken_connection_is_told_from_a_run_that_failed(failure, status):
    async with Remote() as remote:
        remote.endpoint.failure = failure
        assert (await remote.infer().reply).status == status


async def test_a_lost_connection_is_found_out_at_once_and_fails_all_that_is_under_way():
    async with Remote() as remote:
        remote.endpoint.hold = True
        waiting = remote.infer()
        await settle()
        remote.endpoint.hold, remote.endpoint.reachable = False, False
        remote.endpoint.failure = RemoteFailure(14, "Socket closed")
        await remote.infer().reply
        with pytest.raises(WorkerLost) as lost:
            await asyncio.wait_for(waiting.reply, 0.5)
        assert not lost.value.began
        assert (remote.worker.state, remote.target.handle) == ("lost", 0)
        assert "Connection refused" in remote.worker.reason
        remote.endpoint.reachable, remote.endpoint.failure = True, None
        await until(lambda: remote.target.handle)
        assert (await remote.infer().reply).status == frames.OK


async def test_a_model_that_changed_its_form_is_kept_out_until_it_fits_again():
    async with Remote() as remote:
        remote.target.signature = DOUBLE
        remote.endpoint.signature = Signature("onnx", (spec("x", "FP64"),), (spec("y"),))
        remote.endpoint.failure = RemoteFailure(3, "input x is FP64")
        with pytest.raises(RefusedThere):
            await remote.infer().reply
        await settle()
        assert "is FP64, the local model's FP32" in remote.target.failure
        assert remote.target.handle == 0
        remote.endpoint.signature, remote.endpoint.failure = DOUBLE, None
        await until(lambda: remote.target.handle)
        assert remote.target.failure == ""


async def test_one_that_drains_gets_no_new_runs_and_finishes_what_it_has(monkeypatch):
    async with Remote() as remote:
        remote.endpoint.hold = True
        running = remote.infer()
        await settle()

        async def draining(seconds: float) -> None:
            raise NotServing("it says that it is not serving")

        monkeypatch.setattr(remote.endpoint, "check", draining)
        await until(lambda: remote.worker.state == "lost")
        remote.endpoint.held[0].set_result(None)
        assert (await asyncio.wait_for(running.reply, 1)).status == frames.OK


async def test_what_came_from_another_gateway_is_not_sent():
    async with Remote() as remote:
        with pytest.raises(Looped):
            remote.infer(hops=1)
        assert remote.endpoint.seen == []


async def test_an_order_to_unload_ends_what_is_asked_of_the_model():
    async with Remote() as remote:
        link = remote.worker.require_link()
        handle = remote.target.handle
        link.control(worker_pb2.ToWorker(unload=worker_pb2.Unload(model=handle)))
        remote.target.handle = handle
        with pytest.raises(WorkerLost, match="does not have the model"):
            remote.infer()


def npz(folder: Path, **arrays: np.ndarray) -> str:
    np.savez_compressed(folder / "golden.npz", **arrays)
    return str(folder / "golden.npz")


@pytest.mark.parametrize("kind", ["f4", "f8", "f2", "?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"])
def test_samples_are_read_as_numpy_reads_them(tmp_path, kind):
    array = np.array([[0, 1, 1], [1, 0, 1]]).astype(kind)
    samples = read_samples(npz(tmp_path, x=array))["x"]
    assert (samples.shape, samples.count) == ((3,), 2)
    assert [numbers(samples.datatype, samples.sample(i)) for i in (0, 1)] == array.astype(float).tolist()


@pytest.mark.parametrize(
    "array",
    [
        np.array(["a"]),
        np.zeros((2, 2), ">f4"),
        np.asfortranarray(np.zeros((2, 3))),
        np.float32(1),
        np.zeros((2, 1), "c8"),
    ],
)
def test_samples_that_cannot_be_asked_are_refused(tmp_path, array):
    with pytest.raises(Unusable):
        read_samples(npz(tmp_path, x=array))


def test_samples_with_objects_are_not_run(tmp_path):
    np.savez(tmp_path / "golden.npz", x=np.array([{}], object))
    with pytest.raises(Unusable, match=r"'\|O'"):
        read_samples(str(tmp_path / "golden.npz"))


@pytest.mark.parametrize(
    ("rule", "quantised", "got", "problem"),
    [
        ({}, False, [1.0, 2.0], ""),
        ({}, False, [1.0, 2.2], "off by 0.2"),
        ({"tolerance": (0.2, 0.0)}, False, [1.0, 2.2], ""),
        ({"tolerance": (0.0, 1.0)}, False, [float("nan"), 2.0], "is nan"),
        ({}, True, [1.1, 2.2], ""),
        ({}, True, [2.0, 1.0], "cosine"),
        ({"cosine": 0.5}, False, [2.0, 1.0], ""),
        ({"top1": 1.0}, False, [2.0, 1.0], "largest value elsewhere"),
        ({"top1": 1.0}, False, [-9.0, 1.0], ""),
        ({}, False, [1.0], "has 1 elements"),
    ],
)
def test_agreeing_means_what_the_manifest_says(rule, quantised, got, problem):
    comparison = Comparison(Golden("", "", **rule), quantised)

    def compare() -> None:
        comparison.compare("y", got, [1.0, 2.0], 2)
        comparison.end()

    if not problem:
        return compare()
    with pytest.raises(Disagrees, match=problem):
        compare()
    return None
