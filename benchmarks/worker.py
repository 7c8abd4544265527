"""One worker process, spoken to over its link without a gateway: models in, tensors in, tensors out."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeway import frames
from edgeway.datatypes import BY_NAME
from edgeway.frames import Infer, Reply, TensorPlace
from edgeway.tensors import to_array, to_bytes
from edgeway.v1 import worker_pb2
from gateway.dispatch.launch import PROGRAM, source_roots
from gateway.dispatch.memory import Slot, SlotPool

FAR = 600.0
"""Seconds in which a run must begin."""
LIMIT = 120.0
"""Seconds without a word after which a worker is given up; an accelerator's compiler may take its time."""
ROOM = 1 << 16
"""Bytes for outputs whose shapes are open, before the worker asks for more."""


class NotStarted(Exception):
    """The process ended before it said hello; the message is its last word."""


class Refused(Exception):
    """A load that failed. ``reason`` is the name of a ``LoadFailed.Reason``."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Failed(Exception):
    """A run that failed. ``status`` is one of the link's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Gone(Exception):
    """The process has ended."""


class Worker:
    """A worker process and our end of its link. For one thread."""

    def __init__(
        self,
        backend: str,
        python: str = sys.executable,
        options: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        program: Sequence[str] = PROGRAM,
        **settings: Any,
    ) -> None:
        """``program``: what the interpreter runs; ``settings``: as the gateway tells them. Raises NotStarted."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(LIMIT)
        self._socket = ours
        self._folder = tempfile.TemporaryDirectory(prefix="edgeway-")
        cache = str(Path(self._folder.name) / "cache")
        told = {"instances": 1, "cache": cache, "options": dict(options or {}), "parentPid": os.getpid(), **settings}
        command = [python, *program, "--backend", backend, "--link-fd", str(theirs.fileno())]
        self._errors = (Path(self._folder.name) / "stderr").open("w+")
        self.process = subprocess.Popen(
            [*command, "--settings", json.dumps(told)],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            env={**os.environ, **(environment or {}), "PYTHONPATH": os.pathsep.join(source_roots())},
        )
        theirs.close()
        self._pool = SlotPool(
            lambda slot, fd: socket.send_fds(ours, [frames.pack_slot(slot.number, slot.size)], [fd]), lambda slot: None
        )
        self._numbers = 0
        self._runs: dict[int, tuple[worker_pb2.Loaded, Slot]] = {}
        self._replies: dict[int, Reply] = {}
        try:
            self.hello = self._told("hello")
        except Gone as ended:
            self.end()
            raise NotStarted(str(ended)) from None

    @property
    def resident(self) -> int:
        """Bytes of memory that the process holds."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    @property
    def said(self) -> str:
        """What it wrote on its error stream."""
        self._errors.seek(0)
        return self._errors.read()

    def load(self, content: bytes, suffix: str, warmup: int = 1) -> worker_pb2.Loaded:
        """Load a model from the bytes of its file. Raises Refused, Gone."""
        self._numbers += 1
        path = Path(self._folder.name) / f"{self._numbers}{suffix}"
        path.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        order = worker_pb2.Load(model=self._numbers, name="m", path=str(path), sha256=digest, warmup_runs=warmup)
        self._order(worker_pb2.ToWorker(load=order))
        answer = self._told("loaded", "load_failed")
        path.unlink()
        if isinstance(answer, worker_pb2.LoadFailed):
            raise Refused(worker_pb2.LoadFailed.Reason.Name(answer.reason), answer.message)
        return answer

    def unload(self, model: worker_pb2.Loaded) -> None:
        """Returns when the worker says that the memory is given back. Raises Gone."""
        self._order(worker_pb2.ToWorker(unload=worker_pb2.Unload(model=model.model)))
        self._told("unloaded")

    def run(self, model: worker_pb2.Loaded, *inputs: np.ndarray) -> list[np.ndarray]:
        """All outputs, for inputs in the model's order; BYTES are arrays of bytes objects. Raises Failed, Gone."""
        return self.answer(self.begin(model, *inputs))

    def begin(self, model: worker_pb2.Loaded, *inputs: np.ndarray) -> int:
        """Ask for a run; its number."""
        pairs = zip(model.inputs, inputs, strict=True)
        return self.begin_raw(model, *[(tuple(array.shape), to_bytes(array)) for _, array in pairs])

    def begin_raw(self, model: worker_pb2.Loaded, *inputs: tuple[tuple[int, ...], bytes | memoryview]) -> int:
        """The same with the shapes and the bytes as they travel."""
        places, offset = [], 0
        for index, (spec, (shape, data)) in enumerate(zip(model.inputs, inputs, strict=True)):
            places.append(TensorPlace(index, BY_NAME[spec.datatype].code, shape, offset, len(data)))
            offset = frames.aligned(offset + len(data))
        slot = self._pool.take(offset + ROOM)
        slot.clear_mark()
        for place, (_, data) in zip(places, inputs, strict=True):
            slot.view[place.offset : place.offset + place.nbytes] = data
        self._numbers += 1
        self._runs[self._numbers] = model, slot
        self._send(
            frames.pack_infer(
                Infer(self._numbers, model.model, slot.number, offset, time.monotonic() + FAR, 5, places, [])
            )
        )
        return self._numbers

    def cancel(self, number: int) -> None:
        self._send(frames.pack_cancel(number))

    def answer(self, number: int) -> list[np.ndarray]:
        """Wait for the outputs of a run. Raises Failed, Gone."""
        while number not in self._replies:
            self._receive()
        reply = self._replies.pop(number)
        model, slot = self._runs.pop(number)
        try:
            if reply.status != frames.OK:
                raise Failed(reply.status, reply.message)
            outputs = []
            for place in reply.outputs:
                data = bytes(slot.view[place.offset : place.offset + place.nbytes])
                outputs.append(to_array(model.outputs[place.index].datatype, place.shape, memoryview(data)))
            return outputs
        finally:
            self._pool.give(slot, time.monotonic())

    def begun(self, number: int) -> bool:
        """Whether the worker has begun a run that is under way."""
        return self._runs[number][1].begun

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self._socket.close()
        self._errors.close()
        self._folder.cleanup()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def _order(self, message: worker_pb2.ToWorker) -> None:
        self._send(frames.pack_control(message.SerializeToString()))

    def _send(self, frame: bytes) -> None:
        try:
            self._socket.send(frame)
        except OSError as broken:
            raise Gone(f"the worker closed its link: {self.said.strip()}") from broken

    def _told(self, *kinds: str) -> Any:
        """The next control message of one of these kinds."""
        while True:
            message = self._receive()
            which = message and message.WhichOneof("message")
            if which in kinds:
                return getattr(message, which)

    def _receive(self) -> worker_pb2.ToGateway | None:
        """Take one frame: a control message, or None where it was the reply to a run, which is kept."""
        try:
            frame = self._socket.recv(frames.MAX_FRAME)
        except ConnectionError:
            frame = b""
        if not frame:
            self.process.wait(LIMIT)
            raise Gone(self.said.strip() or f"it ended with {self.process.returncode}")
        if frames.kind(frame) == frames.CONTROL:
            return worker_pb2.ToGateway.FromString(frames.unpack_control(frame))
        reply = frames.unpack_reply(frame)
        if reply.status == frames.NEEDS_SLOT:
            model, slot = self._runs[reply.request_id]
            larger = self._pool.take(reply.needed)
            self._pool.give(slot, time.monotonic())
            self._runs[reply.request_id] = model, larger
            self._send(frames.pack_fetch(reply.request_id, larger.number, 0))
        else:
            self._replies[reply.request_id] = reply
        return None
