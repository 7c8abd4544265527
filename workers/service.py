"""The worker's end of the link: takes frames, and hands each to whom it concerns."""

from __future__ import annotations

import array
import math
import os
import socket
import sys
import threading
import time
from typing import Dict, Hashable, List, Optional, Sequence, Tuple

from edgeway import frames
from edgeway.frames import FrameError
from edgeway.upkeep import Upkeep
from edgeway.v1 import worker_pb2
from workers.answers import Answers
from workers.backend import Backend, Settings
from workers.batching import Member
from workers.forms import Form, Forms
from workers.instances import Instances
from workers.models import Models
from workers.regions import Regions, RunRegions
from workers.reports import Reports
from workers.schedule import LONG, Company, Run, Schedule
from workers.sender import Sender
from workers.slots import Slots
from workers.spin import Spin
from workers.threads import start
from workers.turns import Turns

STEP_SECONDS = 0.1
"""Between two looks at the device, at runs that drag on, and at what there is to collect."""
INLINE = 0.0002
"""Seconds. A run that is expected to take no longer is run by the thread that reads the link, if no other is on. So is
one that takes longer, up to ``LONG``, but then another thread reads meanwhile: waking that one takes as long as waking
an instance would, 0.1 ms, but the run need not wait for it."""

_ONE_FD = socket.CMSG_SPACE(array.array("i").itemsize)


class Service:
    """One worker. Two threads take turns at the link, each instance is a thread, and loads have two more."""

    def __init__(self, connection: socket.socket, backend: Backend, settings: Settings) -> None:
        self._socket = connection
        self._kind = backend.kind
        self._spin = Spin(connection, settings.spin_seconds)
        self._upkeep = Upkeep()
        self._slots = Slots()
        self._regions = Regions()
        self._forms = Forms()
        self._runs: Dict[int, Run] = {}
        self._schedule = Schedule(settings.starvation_seconds, instances=settings.instances)
        self._turns = Turns(self._read)
        self._sender = Sender(connection)
        self._reports = Reports(backend, settings, self._schedule, self._sender)
        self._models = Models(backend, settings, self._schedule, self._forms, self._upkeep, self._sender)
        self._answers = Answers(self._runs, self._slots, self._models, self._sender)
        self._instances = Instances(settings.instances, self._schedule, self._answers)

    def serve(self) -> None:
        """Until the gateway closes the link; then the process ends at once, because nothing here is worth saving."""
        self._reports.hello()
        self._models.start()
        start("upkeep", self._keep_up)
        self._instances.start()
        self._turns.begin()
        threading.Event().wait()  # another thread reads now, and ends the process

    def _keep_up(self) -> None:
        pause = threading.Event()
        while True:
            self._reports.look()
            self._turns.relieve()
            # A model that went leaves free memory, as a request does.
            ended = self._answers.given + self._models.unloaded
            self._upkeep.step(time.monotonic(), self._schedule.taken + len(self._schedule), ended)
            pause.wait(STEP_SECONDS)

    def _read(self, turn: object, buffer: bytearray) -> None:
        """Take frames from the link, as long as it is this thread's turn."""
        view, buffers, receive, infer = memoryview(buffer), [buffer], self._socket.recvmsg_into, frames.INFER
        turns = self._turns
        while turns.reader is turn:
            if not self._schedule.taken:
                self._spin.wait()
            try:
                count, ancillary, _, _ = receive(buffers, _ONE_FD)
            except OSError:
                os._exit(0)
            if not count:
                os._exit(0)
            try:
                frame = bytes(view[:count])
                if frame[0] == infer and not ancillary:
                    self._infer(frame)
                else:
                    self._received(frame, _descriptors(ancillary) if ancillary else [])
            except FrameError as malformed:
                print(f"the gateway broke the protocol of the link: {malformed}", file=sys.stderr, flush=True)
                os._exit(4)

    def _received(self, frame: bytes, fds: List[int]) -> None:
        kind = frames.kind(frame)
        if kind == frames.INFER:
            self._infer(frame)
        elif kind == frames.CANCEL:
            self._cancel(frames.unpack_cancel(frame))
        elif kind == frames.EXPIRE:
            self._expire(frames.unpack_expire(frame))
        elif kind == frames.SLOT:
            slot, size = frames.unpack_slot(frame)
            if len(fds) != 1:
                raise FrameError(f"slot {slot} came with {len(fds)} descriptors")
            self._slots.add(slot, size, fds.pop())
        elif kind == frames.DROP_SLOT:
            slot = frames.unpack_drop_slot(frame)
            self._forms.forget_slot(slot)
            self._slots.drop(slot)
        elif kind == frames.FETCH:
            self._answers.fetch(*frames.unpack_fetch(frame))
        elif kind == frames.PLACES:
            regions, infer = self._regions.of_run(frame, fds)
            self._infer(infer, regions)
        elif kind == frames.REGION:
            self._regions.add(frame, fds)
        elif kind == frames.DROP_REGION:
            self._regions.drop(frame)
            self._forms.forget_regions()
        elif kind == frames.CONTROL:
            self._controlled(frames.unpack_control(frame))
        else:
            raise FrameError(f"unexpected frame of kind {kind}")
        for fd in fds:
            os.close(fd)

    def _controlled(self, content: bytes) -> None:
        message = worker_pb2.ToWorker()
        try:
            message.ParseFromString(content)
        except Exception as malformed:  # protobuf's DecodeError has no stable import path across its versions
            raise FrameError(f"control message: {malformed}") from malformed
        which = message.WhichOneof("message")
        if which == "load":
            self._models.load(message.load)
        elif which == "unload":
            self._models.unload(message.unload)
        elif which == "heartbeat":
            self._sender.control(heartbeat=message.heartbeat)
        elif which == "shutdown":
            os._exit(0)

    def _infer(self, frame: bytes, regions: Optional[RunRegions] = None) -> None:
        received = time.monotonic()
        number, priority, deadline, budget_end, tail = frames.unpack_run(frame)
        key: Hashable = tail if regions is None else (regions.key, tail)
        form = self._forms.find(key) or self._form(frame, key, regions)
        run = Run(number, priority, deadline, received, form)
        run.regions = regions
        model = form.model
        if model is None or not model.enter():
            self._forms.forget_model(form.handle)
            return self._answers.refuse(run, frames.UNKNOWN_MODEL, f"no model has the handle {form.handle}")
        form.busy = True
        self._runs[number] = run
        expected = model.expected(form.input_bytes)
        if form.group is not None and model.limits is not None:
            end = budget_end if budget_end > 0 else math.inf
            member = Member(number, (priority, deadline), form.rows, form.input_bytes, received, end)
            run.company = Company(form.group, member, model.limits, model.estimate)
            self._schedule.put(run, short=expected is not None and expected <= LONG)
        elif expected is not None and expected <= INLINE and self._schedule.claim():
            self._turns.keep(self._instances.run, run)
        elif expected is not None and expected <= LONG and self._turns.resting is not None and self._schedule.claim():
            self._turns.pass_on()
            self._instances.run(run)
        else:
            self._schedule.put(run, short=expected is not None and expected <= LONG)
        return None

    def _form(self, frame: bytes, key: Hashable, regions: Optional[RunRegions]) -> Form:
        """A form that is new, or whose like is in use. Raises FrameError."""
        infer = frames.unpack_infer(frame)
        model = self._models.find(infer.model)
        form = Form(infer, self._slots.memory(infer.slot), model, regions)
        if model is not None:
            self._forms.keep(key, form)
        return form

    def _expire(self, number: int) -> None:
        """Answer for a run that waits. One that has begun goes on, one that is unknown has been answered."""
        run = self._schedule.remove(number)
        if run is not None:
            self._answers.finish(run, frames.EXPIRED, message="its time was up before it began")

    def _cancel(self, number: int) -> None:
        run = self._runs.get(number)
        if run is None:
            return  # its reply and this frame met on the way
        had_run = run.cancel()
        if had_run or self._schedule.remove(number) is not None:
            self._answers.finish(run, frames.CANCELLED, message="cancelled")
        elif run.running and (run.batch is None or run.batch.cancelled) and self._kind in ("cpu", "simulated"):
            self._instances.relieve(run)


def _descriptors(ancillary: Sequence[Tuple[int, int, bytes]]) -> List[int]:
    """The descriptors that came with a frame."""
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return list(found)
