"""The gateway's parts without its front door; what benchmarks and counts touch of its inside, they touch here."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np

from benchmarks.bench.cases import Case
from edgeway import frames
from edgeway.frames import TensorPlace, aligned, pack_tensors
from edgeway.tensors import BY_NAME
from edgeway.v1 import worker_pb2
from gateway.dispatch.link import Link
from gateway.plan import Plan
from gateway.request import InputTensor

HANDLE = 1
LIMIT = 30.0
ROOM = 4096
"""Bytes kept for outputs."""
_MAX_BYTES = 64 << 20


class WorkerLink:
    """A link to a worker that has one model."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self._plans: dict[str, Plan] = {}

    async def infer(self, case: Case, data: memoryview) -> None:
        """One run, to the answer; the slot is free again.

        Raises:
            RuntimeError: the run failed.
        """
        loop = asyncio.get_running_loop()
        pending = self.link.infer(
            HANDLE,
            self._plan(case),
            [InputTensor(case.input, case.datatype, case.shape, data)],
            ROOM,
            start_by=loop.time() + LIMIT,
            expire_at=None,
            priority=5,
            hang_limit=LIMIT,
        )
        reply = await pending.reply
        if reply is None or reply.status != frames.OK:
            raise RuntimeError(f"the run failed: {reply}")
        self.link.release(pending)

    def _plan(self, case: Case) -> Plan:
        """Made once a case, as the gateway makes it once a form."""
        if case.name not in self._plans:
            place = TensorPlace(0, BY_NAME[case.datatype].code, case.shape, 0, case.nbytes)
            self._plans[case.name] = Plan(
                nbytes=case.nbytes,
                spans=((0, case.nbytes),),
                out_offset=aligned(case.nbytes),
                wanted=(),
                room=ROOM,
                exact=False,
                counts=(1, 0),
                tensors=pack_tensors([place], ()),
            )
        return self._plans[case.name]


def spawn_worker() -> tuple[subprocess.Popen[bytes], socket.socket]:
    """A CPU worker as the gateway starts one, and our end of its link."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    settings = {"threads": 1, "instances": 2, "parentPid": os.getpid()}
    command = [sys.executable, "-m", "workers", "--backend", "cpu", "--link-fd", str(theirs.fileno())]
    process = subprocess.Popen([*command, "--settings", json.dumps(settings)], pass_fds=[theirs.fileno()])
    theirs.close()
    return process, ours


def load_order(path: Path) -> worker_pb2.ToWorker:
    load = worker_pb2.Load(model=HANDLE, name="m", version="1", path=str(path), warmup_runs=3)
    load.sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return worker_pb2.ToWorker(load=load)


@contextlib.asynccontextmanager
async def worker_link(path: Path) -> AsyncIterator[WorkerLink]:
    """A worker with this model."""
    loop = asyncio.get_running_loop()
    process, ours = spawn_worker()
    ready: dict[str, asyncio.Future[None]] = {what: loop.create_future() for what in ("hello", "loaded")}

    def control(message: worker_pb2.ToGateway) -> None:
        what = message.WhichOneof("message") or ""
        if what in ready and not ready[what].done():
            ready[what].set_result(None)

    def closed(why: str) -> None:
        for each in ready.values():
            if not each.done():
                each.set_exception(RuntimeError(f"no worker: {why}"))
                each.exception()

    link = Link(ours, loop, control, closed, _MAX_BYTES)
    try:
        await asyncio.wait_for(ready["hello"], LIMIT)
        link.control(load_order(path))
        await asyncio.wait_for(ready["loaded"], LIMIT)
        yield WorkerLink(link)
    finally:
        link.close("the end")
        process.wait(LIMIT)


class ModelThread:
    """The same model on a thread of this process: no frame and no other process."""

    def __init__(self, path: Path, name: str, room: int) -> None:
        """``room``: bytes of a buffer to copy tensors into, as into a slot; 0: they are run where they lie."""
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._input = name
        self._buffer = memoryview(bytearray(room)) if room else None
        self._asked: queue.SimpleQueue[tuple[Case, memoryview, asyncio.Future[None]] | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    async def infer(self, case: Case, data: memoryview) -> None:
        answered: asyncio.Future[None] = self._loop.create_future()
        if self._buffer is not None:
            self._buffer[: data.nbytes] = data
            data = self._buffer[: data.nbytes]
        self._asked.put((case, data, answered))
        await answered

    def close(self) -> None:
        self._asked.put(None)
        self._thread.join()

    def _serve(self) -> None:
        while (asked := self._asked.get()) is not None:
            case, data, answered = asked
            dtype = BY_NAME[case.datatype].numpy
            self._session.run(None, {self._input: np.frombuffer(data, dtype).reshape(case.shape)})
            self._loop.call_soon_threadsafe(answered.set_result, None)
