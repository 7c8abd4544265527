"""Zygote and disposable workers: what kills a process kills one that is used for nothing else, and leaves nothing."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from onnx import TensorProto, helper, numpy_helper

from benchmarks.harness import (
    alive,
    descendants,
    first_line,
    identity,
    model_of,
    poisonable,
    scaled,
    slow,
    value,
    wait_for,
)
from edgeway.datatypes import BY_NAME
from edgeway.frames import TensorPlace, aligned, pack_tensors
from edgeway.tensors import datatype_of
from gateway.dispatch.disposable import Disposables, NoDisposable
from gateway.dispatch.zygote import Zygote, ZygoteUnavailable
from gateway.errors import RunError, Shed, TargetSlow, WorkerLost
from gateway.plan import Plan
from gateway.request import InputTensor
from gateway.target import LoadOrder
from workers.zygote import Zygote as ZygoteProcess

pytestmark = pytest.mark.system
LIMIT = 20.0
ENDLESS = 10**9
SETTINGS = {"threads": 1}

needs_trap = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="only x86 raises SIGFPE when a quotient does not fit"
)


@pytest_asyncio.fixture
async def zygote():
    zygote = Zygote()
    zygote.start()
    await asyncio.wait_for(zygote.ready.wait(), LIMIT)
    yield zygote
    await zygote.stop()


@pytest_asyncio.fixture
async def disposables(zygote):
    disposables = Disposables(zygote, SETTINGS, 1 << 20)
    disposables.start()
    yield disposables
    await disposables.stop()


async def eventually(condition, what):
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen within {LIMIT} s"
        await asyncio.sleep(0.005)


def order_of(folder, model, name="m"):
    content = model.SerializeToString()
    path = folder / f"{name}.onnx"
    path.write_bytes(content)
    return LoadOrder(name, "1", str(path), hashlib.sha256(content).hexdigest())


def size_of(order):
    return Path(order.path).stat().st_size


def remove(order):
    Path(order.path).unlink()


def failing():
    """y = one of three numbers; an x beyond them is an error of the run."""
    table = numpy_helper.from_array(np.arange(3, dtype=np.int32), "table")
    nodes = [helper.make_node("Gather", ["table", "x"], ["y"])]
    return model_of(nodes, [value("x", TensorProto.INT32, ["n"])], [value("y", TensorProto.INT32, ["n"])], [table])


def deadly_to_load():
    """y = -2147483648 / (2 x - 1): the zeros of a warm-up run kill the process."""
    model = poisonable()
    next(weight for weight in model.graph.initializer if weight.name == "one").CopyFrom(
        numpy_helper.from_array(np.int32(-1), "one")
    )
    return model


def tensors(*arrays):
    return [
        InputTensor(str(index), datatype_of(array), array.shape, memoryview(array.tobytes()))
        for index, array in enumerate(arrays)
    ]


def plan_for(inputs):
    """Of all outputs of a model that takes these, in the same order."""
    spans, places, offset = [], [], 0
    for index, tensor in enumerate(inputs):
        end = offset + tensor.data.nbytes
        places.append(TensorPlace(index, BY_NAME[tensor.datatype].code, tensor.shape, offset, tensor.data.nbytes))
        spans.append((offset, end))
        offset = aligned(end)
    counts = len(inputs), 0
    return Plan(offset, tuple(spans), offset, (), 1024, False, counts, pack_tensors(places, ()))


def ask(disposables, order, *arrays, seconds=LIMIT):
    last, inputs = time.monotonic() + seconds, tensors(*arrays)
    return disposables.run(order, plan_for(inputs), inputs, 1024, last, last, 5)


async def answer(disposables, order, *arrays):
    """The first output as the model gave it, and the process that did."""
    ran = await ask(disposables, order, *arrays)
    place = ran.reply.outputs[0]
    content = bytes(ran.pending.slot.view[place.offset : place.offset + place.nbytes])
    ran.release()
    return np.frombuffer(content, arrays[0].dtype), ran.pid


def int32(*numbers):
    return np.array(numbers, np.int32)


def descriptors(pid):
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def gone(pid):
    """Not even a zombie."""
    return not Path(f"/proc/{pid}").exists()


def standby(disposables):
    return disposables._idle[0].pid


async def test_a_run_gets_a_process_of_its_own_which_is_gone_afterwards(folder, disposables):
    order = order_of(folder, scaled(2.0))
    pids = []
    for number in (1.0, 2.0, 3.0):
        result, pid = await answer(disposables, order, np.array([number], np.float32))
        assert result == [2 * number]
        pids.append(pid)
    assert len(set(pids)) == 3
    await eventually(lambda: all(map(gone, pids)), "the end of the used processes")


async def test_a_standby_is_there_before_anybody_needs_it(folder, zygote, disposables, capsys):
    await eventually(lambda: disposables.idle == 1, "a standby")
    ready = standby(disposables)
    _, pid = await answer(disposables, order_of(folder, identity()), np.ones(1, np.float32))
    assert pid == ready
    began = time.monotonic()
    await eventually(lambda: disposables.idle == 1, "the next standby")
    with capsys.disabled():
        sys.stdout.write(f" [fork to hello: {(time.monotonic() - began) * 1e3:.0f} ms] ")
    assert standby(disposables) in descendants(zygote.pid)


async def test_a_prepared_file_is_loaded_before_it_is_needed(folder, disposables):
    order = order_of(folder, scaled(2.0))
    assert disposables.prepare(order)
    await eventually(lambda: disposables.idle == 1 and disposables._idle[0].has(order), "the preloaded standby")
    remove(order)
    result, _ = await answer(disposables, order, np.ones(1, np.float32))
    assert result == [2.0]


async def test_files_beyond_the_memory_budget_are_not_prepared(folder, zygote):
    first, second = order_of(folder, identity(), "first"), order_of(folder, identity(), "second")
    disposables = Disposables(zygote, SETTINGS, 1 << 20, preloaded=size_of(first))
    assert disposables.prepare(first)
    assert disposables.prepare(first), "it is already"
    assert not disposables.prepare(second)
    disposables.forget(first)
    assert disposables.prepare(second)
    assert not disposables.prepare(LoadOrder("m", "1", str(folder / "missing.onnx"), ""))


@needs_trap
async def test_a_poison_request_kills_only_the_process_it_runs_in(folder, zygote):
    disposables = Disposables(zygote, SETTINGS, 1 << 20, standby=2)
    disposables.start()
    order = order_of(folder, poisonable())
    await eventually(lambda: disposables.idle == 2, "both standbys")
    first, second = (process.pid for process in disposables._idle)
    before = zygote.pid
    with pytest.raises(WorkerLost, match="SIGFPE"):
        await ask(disposables, order, int32(3, -1))
    await eventually(lambda: gone(first), "the end of the first standby")
    assert alive(second)
    assert zygote.pid == before
    result, pid = await answer(disposables, order, int32(1))
    assert (list(result), pid) == ([-715827882], second)
    await disposables.stop()


async def test_a_runtime_error_is_no_death(folder, disposables):
    with pytest.raises(RunError):
        await ask(disposables, order_of(folder, failing()), int32(7))


async def test_an_answer_larger_than_allowed_is_refused_and_one_larger_than_expected_is_not(folder, disposables):
    order = order_of(folder, identity())
    result, _ = await answer(disposables, order, np.arange(200_000, dtype=np.float32))
    assert result[-1] == 199_999
    with pytest.raises(Shed):
        await ask(disposables, order, np.zeros(300_000, np.float32))


async def test_at_the_deadline_the_process_is_killed(folder, disposables):
    order = order_of(folder, slow(None))
    await eventually(lambda: disposables.idle == 1, "a standby")
    pid = standby(disposables)
    with pytest.raises(TargetSlow):
        await ask(disposables, order, np.ones(1, np.float32), np.array(ENDLESS), seconds=0.5)
    await eventually(lambda: gone(pid), "its end")


async def test_a_load_that_takes_longer_than_the_time_there_is_ends_with_it(folder, disposables):
    """Warming up is part of loading."""
    with pytest.raises(TargetSlow):
        await ask(disposables, order_of(folder, slow(ENDLESS)), np.ones(1, np.float32), seconds=0.5)
    await eventually(lambda: disposables.idle == 1, "the next standby")


async def test_a_cancelled_caller_frees_the_process_and_its_place(folder, zygote):
    disposables = Disposables(zygote, SETTINGS, 1 << 20, max_at_once=1)
    disposables.start()
    order = order_of(folder, slow(None))
    await eventually(lambda: disposables.idle == 1, "a standby")
    pid = standby(disposables)
    endless = asyncio.create_task(ask(disposables, order, np.ones(1, np.float32), np.array(ENDLESS)))
    await eventually(lambda: disposables.idle == 0, "its start")
    endless.cancel()
    with pytest.raises(asyncio.CancelledError):
        await endless
    result, _ = await answer(disposables, order, np.ones(1, np.float32), np.array(1))
    assert result == [1.0]
    await eventually(lambda: gone(pid), "the end of the cancelled run's process")
    await disposables.stop()


async def test_more_runs_than_allowed_wait_for_their_turn(folder, zygote):
    disposables = Disposables(zygote, SETTINGS, 1 << 20, max_at_once=1)
    disposables.start()
    order = order_of(folder, identity())
    first = await ask(disposables, order, np.ones(1, np.float32))
    with pytest.raises(TargetSlow, match="free"):
        await ask(disposables, order, np.ones(1, np.float32), seconds=0.05)
    second = asyncio.create_task(answer(disposables, order, np.ones(1, np.float32)))
    first.release()
    first.release()
    assert (await second)[0] == [1.0]
    third = await ask(disposables, order, np.ones(1, np.float32))
    with pytest.raises(TargetSlow, match="free"):  # releasing twice gave one place, not two
        await ask(disposables, order, np.ones(1, np.float32), seconds=0.05)
    third.release()
    await disposables.stop()


async def test_a_standby_that_dies_is_noticed_and_replaced_and_no_zombie(disposables):
    await eventually(lambda: disposables.idle == 1, "a standby")
    pid = standby(disposables)
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: disposables.idle == 1 and standby(disposables) != pid, "another standby")
    await eventually(lambda: gone(pid), "the end of the zombie")


@needs_trap
async def test_a_file_that_kills_the_standby_that_loads_it_is_not_prepared_again(folder, disposables):
    order = order_of(folder, deadly_to_load())
    await eventually(lambda: disposables.idle == 1, "a standby")
    pid = standby(disposables)
    assert disposables.prepare(order)
    await eventually(lambda: disposables.idle == 1 and standby(disposables) != pid, "another standby")
    result, _ = await answer(disposables, order_of(folder, identity(), "other"), np.ones(1, np.float32))
    assert result == [1.0]
    assert "0 models prepared" in repr(disposables)
    with pytest.raises(NoDisposable):
        await ask(disposables, order, int32(1))


async def test_a_file_that_can_not_be_loaded_says_nothing_about_the_request(folder, disposables):
    order = order_of(folder, identity())
    order = replace(order, sha256=hashlib.sha256(b"another file").hexdigest())
    with pytest.raises(NoDisposable, match="checksum"):
        await ask(disposables, order, np.ones(1, np.float32))


async def test_the_zygotes_death_ends_its_children_and_is_followed_by_another(folder, zygote, disposables):
    await eventually(lambda: disposables.idle == 1, "a standby")
    first, child = zygote.pid, standby(disposables)
    os.kill(first, signal.SIGKILL)
    await eventually(lambda: zygote.ready.is_set() and zygote.pid != first, "another zygote")
    await eventually(lambda: disposables.idle == 1 and standby(disposables) != child, "another standby")
    await eventually(lambda: gone(first) and not alive(child), "the end of the first ones")
    result, _ = await answer(disposables, order_of(folder, identity()), np.ones(1, np.float32))
    assert result == [1.0]


async def test_a_run_that_ends_with_the_zygote_is_not_blamed_for_it(folder, zygote, disposables):
    order = order_of(folder, slow(None))
    await eventually(lambda: disposables.idle == 1, "a standby")
    pid = standby(disposables)
    endless = asyncio.create_task(ask(disposables, order, np.ones(1, np.float32), np.array(ENDLESS)))
    await eventually(lambda: disposables.idle == 0 and _computes(pid), "its run")
    os.kill(zygote.pid, signal.SIGKILL)
    with pytest.raises(NoDisposable, match="zygote"):
        await asyncio.wait_for(endless, LIMIT)


def _computes(pid):
    """It has used the processor for 0.2 s, which loading does not take."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12]) > 0.2 * os.sysconf("SC_CLK_TCK")


async def test_a_death_before_the_run_began_is_not_blamed_on_the_request(folder, disposables):
    order = order_of(folder, identity())
    assert disposables.prepare(order)
    await eventually(lambda: disposables.idle == 1 and disposables._idle[0].has(order), "the preloaded standby")
    pid = standby(disposables)
    os.kill(pid, signal.SIGSTOP)
    waiting = asyncio.create_task(ask(disposables, order, np.ones(1, np.float32)))
    await eventually(lambda: disposables.idle == 0, "its start")
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(NoDisposable, match="before its run"):
        await waiting


async def test_a_stopped_zygote_is_replaced(zygote, monkeypatch):
    monkeypatch.setattr("gateway.dispatch.zygote.FORK_LIMIT", 0.2)
    first = zygote.pid
    os.kill(first, signal.SIGSTOP)
    with pytest.raises(ZygoteUnavailable, match="within"):
        await zygote.fork(SETTINGS)
    await eventually(lambda: zygote.ready.is_set() and zygote.pid != first, "another zygote")
    child = await zygote.fork(SETTINGS)
    child.connection.close()
    assert await asyncio.wait_for(child.ended, LIMIT) == 0, "the end of its link ends a worker"
    child.kill()


async def test_without_a_zygote_there_is_no_second_try(folder):
    disposables = Disposables(Zygote(), SETTINGS, 1 << 20)
    began = time.monotonic()
    with pytest.raises(NoDisposable, match="not started"):
        await ask(disposables, order_of(folder, identity()), np.ones(1, np.float32))
    assert time.monotonic() - began < 1.0


async def test_a_zygote_that_can_not_start_says_why_and_is_tried_again_ever_later(monkeypatch):
    delays = []
    monkeypatch.setattr("gateway.dispatch.zygote.restart_delay", lambda deaths: delays.append(deaths) or 0.0)
    zygote = Zygote("no-such-backend")
    zygote.start()
    await eventually(lambda: len(delays) >= 2, "two deaths")
    with pytest.raises(ZygoteUnavailable):
        await zygote.fork(SETTINGS)
    await zygote.stop()
    assert delays[:2] == [1, 2]


async def test_twenty_runs_leave_no_descriptor_and_no_process(folder, zygote):
    def held():
        gc.collect()  # a link is full of cycles, and holds the memory of its slots
        return descriptors(os.getpid()), descriptors(zygote.pid), descendants(zygote.pid)

    before = held()
    disposables = Disposables(zygote, SETTINGS, 1 << 20)
    disposables.start()
    order = order_of(folder, identity())
    for _ in range(20):
        await answer(disposables, order, np.ones(1, np.float32))
    await disposables.stop()
    await eventually(lambda: held() == before, f"the return to {before}")


async def test_stopping_leaves_no_process(zygote):
    disposables = Disposables(zygote, SETTINGS, 1 << 20, standby=2)
    disposables.start()
    await eventually(lambda: disposables.idle == 2, "the standbys")
    pids = [zygote.pid, *descendants(zygote.pid)]
    assert len(pids) == 3
    await zygote.stop()  # without stopping them first
    await disposables.stop()
    assert all(map(gone, pids))


GATEWAY = """
import asyncio, json, os
from gateway.dispatch.disposable import Disposables
from gateway.dispatch.zygote import Zygote

async def main():
    zygote = Zygote()
    disposables = Disposables(zygote, {}, 1 << 20)
    zygote.start()
    disposables.start()
    while not disposables.idle:
        await asyncio.sleep(0.01)
    print("up", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


def test_the_gateways_end_ends_all():
    gateway = subprocess.Popen([sys.executable, "-c", GATEWAY], stdout=subprocess.PIPE, text=True)
    try:
        assert first_line(gateway, LIMIT) == "up\n"
        pids = descendants(gateway.pid)
        assert len(pids) == 2
    finally:
        gateway.kill()
        gateway.communicate()
    wait_for(lambda: not any(map(alive, pids)), LIMIT, "the end of the zygote and its child")


def test_a_process_with_threads_refuses_to_fork():
    """The zygote's loop runs in a thread here, beside the one that waits for it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    zygote = threading.Thread(target=ZygoteProcess(theirs, lambda *_: 0).run)
    zygote.start()
    with contextlib.closing(ours), socket.socket() as any_descriptor:
        ours.settimeout(LIMIT)
        assert json.loads(ours.recv(1024)) == {"ready": True}
        request = {"id": 1, "backend": "cpu", "settings": {}}
        socket.send_fds(ours, [json.dumps(request).encode()], [any_descriptor.fileno()])
        assert "threads" in json.loads(ours.recv(1024))["refused"]
    zygote.join(LIMIT)
    theirs.close()
    assert not zygote.is_alive()
