"""The gateway's end of a link: frames over a SEQPACKET socket, tensors in slots."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from edgeway import frames
from edgeway.frames import FrameError, Reply, TensorPlace, aligned
from edgeway.v1 import worker_pb2
from gateway.dispatch.expiry import Expiry
from gateway.dispatch.memory import Slot, SlotPool
from gateway.errors import Shed, WorkerLost

_FRAMES_PER_WAKE = 64
"""Frames taken before other work of the loop gets its turn."""
_TRIM_SECONDS = 1.0
_HANG_CHECK_SECONDS = 0.1
"""Between two looks at the runs under way; none while there are none."""


@dataclass(slots=True, eq=False)
class Pending:
    """One run under way. The slot is held until ``release``, or until the worker is done with a run that was abandoned.

    ``reply`` resolves once. When the run's time is up it resolves with None, and another future is put in its place for
    a late answer.
    """

    number: int
    reply: asyncio.Future[Reply | None]
    slot: Slot
    since: float
    """When the worker was last given a reason to answer: the run was sent, or given up."""
    hang_limit: float
    """Seconds without an answer after which the run is hung."""
    abandoned: Callable[[], None] | None = None
    """Set when nobody waits for the answer any more: called when the worker is done with the run."""


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
        self._answered_at = 0.0
        self._hang_check: asyncio.TimerHandle | None = None
        self.may_hang = True
        """False while the worker does what may take any time, such as loading a model."""

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
        hang_limit: float,
    ) -> Pending:
        """Copy the inputs into a slot (the one copy on their way) and ask for the run.

        Args:
            model: handle.
            inputs: (position among the model's inputs, dtype code, shape, bytes).
            wanted: positions of the outputs; empty: all.
            output_bytes: room to keep for them; if it is too little, a larger slot follows.
            deadline: monotonic seconds by which the run must have begun, and at which the reply becomes None
                whatever the worker does.
            priority: 1 to 9.
            hang_limit: seconds. When the worker has answered nothing for so long, although it has this run, or has not
                answered this run so long after it was given up, it is hung: the link is closed.

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
        pending = Pending(number, self._loop.create_future(), slot, self._loop.time(), hang_limit)
        self._pending[number] = pending
        self._send(
            frames.pack_infer(frames.Infer(number, model, slot.number, offset, deadline, priority, places, wanted))
        )
        self._expiry.watch(number, deadline, len(self._pending))
        if self._hang_check is None:
            self._hang_check = self._loop.call_later(_HANG_CHECK_SECONDS, self._check_hang)
        return pending

    def abandon(self, pending: Pending, done: Callable[[], None]) -> None:
        """Nobody waits for this run any more. Its slot is free when the worker has answered, not before: ``done`` is
        called then, or when the link ends.
        """
        if pending.number in self._pending:
            pending.abandoned = done
            pending.since = self._loop.time()
            self._send(frames.pack_cancel(pending.number))
        else:
            self.release(pending)
            done()

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
        if self._hang_check is not None:
            self._hang_check.cancel()
        self._expiry.close()
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_writer(self._socket.fileno())
        self._socket.close()
        pending, self._pending = self._pending, {}
        for each in pending.values():
            if each.abandoned is not None:
                each.abandoned()
            elif not each.reply.done():
                each.reply.set_exception(WorkerLost(reason))
        self._outbox.clear()
        self._on_closed(reason)

    def _expire(self, number: int) -> None:
        pending = self._pending[number]
        if not pending.reply.done():
            in_time, pending.reply = pending.reply, self._loop.create_future()
            in_time.set_result(None)

    def _check_hang(self) -> None:
        now = self._loop.time()
        hung = hung_for(self._pending.values(), self._answered_at, now) if self.may_hang else None
        if hung is not None:
            return self.close(f"hung: a run had no answer for {hung:.1f} s")
        again = self._loop.call_later(_HANG_CHECK_SECONDS, self._check_hang) if self._pending else None
        self._hang_check = again
        return None

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
        self._answered_at = self._loop.time()
        if pending is None:
            raise FrameError(f"reply to run {reply.request_id}, which is not under way")
        if reply.status == frames.NEEDS_SLOT and pending.abandoned is None:
            return self._fetch(pending, reply.needed)
        if reply.status == frames.NEEDS_SLOT:
            return None  # the CANCEL that is on its way makes the worker drop the outputs and reply again
        del self._pending[reply.request_id]
        for place in reply.outputs:
            if place.offset + place.nbytes > pending.slot.size:
                raise FrameError(f"output {place.index} ends at {place.offset + place.nbytes} of {pending.slot}")
        if pending.abandoned is not None:
            self.release(pending)
            pending.abandoned()
        elif not pending.reply.done():  # else its caller has just been cancelled, and will abandon it
            pending.reply.set_result(reply)
        return None

    def _fetch(self, pending: Pending, needed: int) -> None:
        """The outputs did not fit: a larger slot for them. The inputs have done their work, theirs is free again."""
        if needed > self._max_bytes:
            # Whoever waits for the answer abandons the run when this reaches it.
            if not pending.reply.done():
                pending.reply.set_exception(
                    Shed(
                        f"the answer has {needed} bytes, more than limits.maxMessageMB allows ({self._max_bytes} bytes)"
                    )
                )
            return
        larger = self._slots.take(needed)
        self._slots.give(pending.slot, self._loop.time())
        pending.slot = larger
        self._send(frames.pack_fetch(pending.number, larger.number, 0))
        return

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


def hung_for(runs: Iterable[Pending], answered_at: float, now: float) -> float | None:
    """Seconds for which a run has had no answer, if that is longer than its limit; None while there is progress.

    A run that was given up is answered at once by a worker that is alive, unless the chip can't stop. One that somebody
    waits for may be queued behind others: while those are answered, the worker is not hung.
    """
    for run in runs:
        silent = now - (run.since if run.abandoned is not None else max(run.since, answered_at))
        if silent > run.hang_limit:
            return silent
    return None
