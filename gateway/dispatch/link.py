"""The gateway's end of a link: frames over a SEQPACKET socket, tensors in slots."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgeway import frames
from edgeway.frames import FrameError, Reply, TensorPlace, aligned
from edgeway.v1 import worker_pb2
from gateway.dispatch.expiry import Expiry
from gateway.dispatch.memory import Slot, SlotPool
from gateway.errors import Shed, TargetSlow, WorkerLost

_FRAMES_PER_WAKE = 64
"""Frames taken before other work of the loop gets its turn."""
_TRIM_SECONDS = 1.0


@dataclass(slots=True, eq=False)
class Pending:
    """One run under way. ``reply`` resolves once; the slot is held until ``release``, or until the worker is done
    with a run that was abandoned.
    """

    number: int
    reply: asyncio.Future[Reply]
    slot: Slot
    abandoned: bool = False


class Link:
    """Sends runs and control messages to one worker process and hands out what comes back.

    Single-threaded: all methods belong to the loop. The gateway owns all memory; what the worker sends is checked
    against it, and a worker that breaks the format loses its link.
    """

    def __init__(
        self,
        connection: socket.socket,
        loop: asyncio.AbstractEventLoop,
        on_control: Callable[[worker_pb2.ToGateway], None],
        on_closed: Callable[[str], None],
        max_bytes: int,
    ) -> None:
        """Args:
        connection: our end of a SEQPACKET pair; the link owns it.
        loop: whose time and readers are used.
        on_control: gets every control message.
        on_closed: called once, with the reason, after all pending runs have failed.
        max_bytes: an answer larger than this is refused.
        """
        connection.setblocking(False)
        self._socket = connection
        self._loop = loop
        self._on_control = on_control
        self._on_closed = on_closed
        self._max_bytes = max_bytes
        self._pending: dict[int, Pending] = {}
        self._numbers = 0
        self._outbox: deque[tuple[bytes, Sequence[int]]] = deque()
        self._buffer = bytearray(frames.MAX_FRAME)
        self._view = memoryview(self._buffer)
        self._slots = SlotPool(self._announce, self._retire)
        self._closed = ""
        loop.add_reader(connection.fileno(), self._readable)
        self._trimmer = loop.call_later(_TRIM_SECONDS, self._trim)
        self._expiry = Expiry(loop, self._pending, self._expire)

    @property
    def shared_bytes(self) -> int:
        return self._slots.bytes

    def control(self, message: worker_pb2.ToWorker) -> None:
        self._send(frames.pack_control(message.SerializeToString()))

    def infer(
        self,
        model: int,
        inputs: Sequence[tuple[int, int, tuple[int, ...], memoryview]],
        wanted: Sequence[int],
        output_bytes: int,
        deadline: float,
        priority: int,
    ) -> Pending:
        """Copy the inputs into a slot (the one copy on their way) and ask for the run.

        Args:
            model: handle.
            inputs: (position among the model's inputs, dtype code, shape, bytes).
            wanted: positions of the outputs; empty: all.
            output_bytes: room to keep for them; if it is too little, a larger slot follows.
            deadline: monotonic seconds by which the run must have begun, and at which the reply fails with TargetSlow
                whatever the worker does.
            priority: 1 to 9.

        Raises:
            WorkerLost: the link is closed.
        """
        if self._closed:
            raise WorkerLost(self._closed)
        offset = 0
        places = []
        for index, dtype, shape, data in inputs:
            places.append(TensorPlace(index, dtype, shape, offset, data.nbytes))
            offset = aligned(offset + data.nbytes)
        slot = self._slots.take(offset + output_bytes)
        view = slot.view
        for place, (_, _, _, data) in zip(places, inputs, strict=True):
            view[place.offset : place.offset + place.nbytes] = data
        self._numbers += 1
        number = self._numbers
        pending = Pending(number, self._loop.create_future(), slot)
        self._pending[number] = pending
        self._send(
            frames.pack_infer(frames.Infer(number, model, slot.number, offset, deadline, priority, places, wanted))
        )
        self._expiry.watch(number, deadline, len(self._pending))
        return pending

    def abandon(self, pending: Pending) -> None:
        """Nobody waits for this run any more. Its slot is free when the worker has answered, not before."""
        pending.abandoned = True
        if pending.number in self._pending:
            self._send(frames.pack_cancel(pending.number))
        else:
            self.release(pending)

    def release(self, pending: Pending) -> None:
        """Give back the slot of a run that has been answered."""
        if not self._closed:
            self._slots.give(pending.slot, self._loop.time())

    def close(self, reason: str) -> None:
        """Fail all that is under way and let go of the socket and the memory. Only the first call counts."""
        if self._closed:
            return
        self._closed = reason
        self._trimmer.cancel()
        self._expiry.close()
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_writer(self._socket.fileno())
        self._socket.close()
        pending, self._pending = self._pending, {}
        for each in pending.values():
            if not each.reply.done():
                each.reply.set_exception(WorkerLost(reason))
        self._outbox.clear()
        self._on_closed(reason)

    def _expire(self, number: int) -> None:
        reply = self._pending[number].reply
        if not reply.done():
            reply.set_exception(TargetSlow("it did not answer in the time that it had"))

    def _readable(self) -> None:
        for _ in range(_FRAMES_PER_WAKE):
            try:
                count = self._socket.recv_into(self._buffer)
            except BlockingIOError:
                return None
            except OSError as broken:
                return self.close(f"the link broke: {os.strerror(broken.errno or 0)}")
            if count == 0:
                return self.close("the worker closed its link")
            try:
                self._received(bytes(self._view[:count]))
            except FrameError as malformed:
                return self.close(f"the worker broke the protocol of the link: {malformed}")
            if self._closed or not self._pending:  # a read in vain costs as much as one that gets something
                return None
        return None

    def _received(self, frame: bytes) -> None:
        kind = frames.kind(frame)
        if kind == frames.REPLY:
            self._replied(frames.unpack_reply(frame))
        elif kind == frames.CONTROL:
            message = worker_pb2.ToGateway()
            try:
                message.ParseFromString(frames.unpack_control(frame))
            except Exception as malformed:  # protobuf's DecodeError has no stable import path across its versions
                raise FrameError(f"control message: {malformed}") from malformed
            self._on_control(message)
        else:
            raise FrameError(f"unexpected frame of kind {kind}")

    def _replied(self, reply: Reply) -> None:
        pending = self._pending.get(reply.request_id)
        if pending is None:
            raise FrameError(f"reply to run {reply.request_id}, which is not under way")
        if reply.status == frames.NEEDS_SLOT and not pending.abandoned:
            return self._fetch(pending, reply.needed)
        if reply.status == frames.NEEDS_SLOT:
            return None  # the CANCEL that is on its way makes the worker drop the outputs and reply again
        del self._pending[reply.request_id]
        for place in reply.outputs:
            if place.offset + place.nbytes > pending.slot.size:
                raise FrameError(f"output {place.index} ends at {place.offset + place.nbytes} of {pending.slot}")
        if pending.abandoned or pending.reply.done():
            self.release(pending)
        else:
            pending.reply.set_result(reply)
        return None

    def _fetch(self, pending: Pending, needed: int) -> None:
        """The outputs did not fit: a larger slot for them. The inputs have done their work, theirs is free again."""
        if needed > self._max_bytes:
            pending.reply.set_exception(
                Shed(f"the answer has {needed} bytes, more than limits.maxMessageMB allows ({self._max_bytes} bytes)")
            )
            return self.abandon(pending)
        larger = self._slots.take(needed)
        self._slots.give(pending.slot, self._loop.time())
        pending.slot = larger
        self._send(frames.pack_fetch(pending.number, larger.number, 0))
        return None

    def _announce(self, slot: Slot, fd: int) -> None:
        # The outbox may hold it for a while, the pool closes its own copy at once.
        self._send(frames.pack_slot(slot.number, slot.size), (os.dup(fd),))

    def _retire(self, slot: Slot) -> None:
        self._send(frames.pack_drop_slot(slot.number))

    def _trim(self) -> None:
        self._slots.trim(self._loop.time())
        self._trimmer = self._loop.call_later(_TRIM_SECONDS, self._trim)

    def _send(self, frame: bytes, fds: Sequence[int] = ()) -> None:
        if self._closed:
            return
        if self._outbox or not self._sent(frame, fds):
            if not self._outbox:
                self._loop.add_writer(self._socket.fileno(), self._writable)
            self._outbox.append((frame, fds))

    def _sent(self, frame: bytes, fds: Sequence[int]) -> bool:
        """Whether the socket took it. A broken socket takes everything: its reader sees the end and closes."""
        try:
            if fds:
                socket.send_fds(self._socket, [frame], list(fds))
            else:
                self._socket.send(frame)
        except BlockingIOError:
            return False
        except OSError:
            pass
        for fd in fds:
            os.close(fd)
        return True

    def _writable(self) -> None:
        while self._outbox:
            if not self._sent(*self._outbox[0]):
                return
            self._outbox.popleft()
        self._loop.remove_writer(self._socket.fileno())

    def __repr__(self) -> str:
        state = f"closed: {self._closed}" if self._closed else f"{len(self._pending)} pending"
        return f"<Link {state}, {self._slots!r}>"
