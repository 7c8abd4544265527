"""The gateway's end of a link: frames over a SEQPACKET socket, tensors in slots."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from time import monotonic

from edgeway import frames
from edgeway.frames import FrameError, Replies, Reply
from edgeway.v1 import worker_pb2
from gateway.dispatch.expiry import Expiry
from gateway.dispatch.memory import Slot, SlotPool
from gateway.dispatch.outbox import Outbox
from gateway.dispatch.pending import LOAD_LIMIT, WHILE_LOADING, Pending, hung_for
from gateway.dispatch.regions import LinkRegions
from gateway.errors import InvalidRequest, Shed, WorkerLost
from gateway.plan import Plan
from gateway.regions.placement import Placement
from gateway.regions.region import RegionSpan
from gateway.request import InputTensor, Request

_FRAMES_PER_WAKE = 64
"""Frames taken before other work of the loop gets its turn."""
_TRIM_SECONDS = 1.0
_HANG_CHECK_SECONDS = 0.1
"""Between two looks at what is under way; none while nothing is."""


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
        load_limit: float = LOAD_LIMIT,
    ) -> None:
        """Args:
        connection: our end of a SEQPACKET pair; the link owns it.
        loop: whose readers and timers are used; its time is that of ``time.monotonic``, as asyncio's is.
        on_control: gets every control message.
        on_closed: called once, with the reason, after all pending runs have failed.
        max_bytes: an answer larger than this is refused.
        load_limit: seconds, see ``loading_since``.
        """
        connection.setblocking(False)
        self._socket = connection
        self._loop = loop
        self._on_control = on_control
        self._on_closed = on_closed
        self._max_bytes = max_bytes
        self._pending: dict[int, Pending] = {}
        self._numbers = 0
        self._outbox = Outbox(connection, loop)
        self._send = self._outbox.send
        self._buffer = bytearray(frames.MAX_FRAME)
        self._view = memoryview(self._buffer)
        self._replies = Replies()
        self._slots = SlotPool(self._announce, self._retire)
        self._regions = LinkRegions(self._send)
        self._closed = ""
        loop.add_reader(connection.fileno(), self._readable)
        self._trimmer = loop.call_later(_TRIM_SECONDS, self._trim)
        self._expiry = Expiry(loop, self._pending, self._expire)
        self._answered_at = 0.0
        """When an instance of the worker last came to an end with a run."""
        self._hang_check: asyncio.TimerHandle | None = None
        self.load_limit = load_limit
        self._loading_since: float | None = None

    @property
    def shared_bytes(self) -> int:
        return self._slots.bytes

    @property
    def loading_since(self) -> float | None:
        """Since when the worker loads and warms up the model that it is at: set by whoever sends it orders.

        Meanwhile its runs have more time, because a load may hold them up; and when it takes longer than
        ``load_limit``, the worker is hung.
        """
        return self._loading_since

    @loading_since.setter
    def loading_since(self, since: float | None) -> None:
        self._loading_since = since
        if since is not None:
            self._look_for_hangs()

    def control(self, message: worker_pb2.ToWorker) -> None:
        self._send(frames.pack_control(message.SerializeToString()))

    def infer(
        self,
        model: int,
        plan: Plan,
        inputs: Sequence[InputTensor],
        output_bytes: int,
        *,
        start_by: float,
        expire_at: float | None,
        priority: int,
        hang_limit: float,
        budget_end: float = 0.0,
        placement: Placement | None = None,
        request: Request | None = None,
    ) -> Pending:
        """Copy the inputs into a slot (the one copy on their way) and ask for the run.

        Args:
            model: handle.
            plan: of the request's form.
            inputs: as the plan has them.
            output_bytes: room to keep for the outputs; if it is too little, a larger slot follows.
            start_by: monotonic seconds; the worker drops a run that it has not begun by then.
            expire_at: monotonic seconds at which the reply becomes None whatever the worker does; None: never.
            priority: 1 to 9.
            hang_limit: seconds. When the worker has come to an end with nothing for so long, although it has this run,
                or has not answered this run so long after it was cancelled, it is hung: the link is closed.
            budget_end: monotonic seconds; the worker lets it wait for others, or go with them, within that; 0: no end.
            placement: where tensors of it lie in regions; inputs that do are not copied.
            request: whose run it is; for links that leave the device.

        Raises:
            WorkerLost: the link is closed.
            InvalidRequest, Shed: there is no way to tell the worker of that many places.
        """
        if self._closed:
            raise WorkerLost(self._closed, began=False)
        if placement is not None and len(placement.packed) + len(plan.tensors) > frames.MAX_FRAME - 64:
            raise InvalidRequest(f"{sum(plan.counts)} tensors are too many for one request with shared memory")
        slot = self._slots.take(plan.out_offset + output_bytes)
        slot.clear_mark()
        view = slot.view
        for (start, end), tensor in zip(plan.spans, inputs, strict=True):
            data = tensor.data
            if not isinstance(data, RegionSpan):
                view[start:end] = data
        number = self._numbers = self._numbers + 1
        frame = frames.pack_run(
            number,
            model,
            slot.number,
            plan.out_offset,
            start_by,
            priority,
            plan.counts,
            plan.tensors,
            budget_end,
        )
        if placement is None:
            self._send(frame)
        else:
            try:
                self._regions.infer(frame, placement)
            except OSError as failed:
                self._slots.give(slot, monotonic())
                raise Shed(f"no descriptor is left for shared memory: {failed.strerror}") from failed
        pending = Pending(number, self._loop.create_future(), slot, monotonic(), hang_limit, placement)
        self._pending[number] = pending
        if expire_at is not None:
            self._expiry.watch(number, expire_at, len(self._pending))
        if self._hang_check is None:
            self._look_for_hangs()
        return pending

    def expire(self, pending: Pending) -> None:
        """Have the worker drop the run if it has not begun; it goes on if it has. Either way its answer comes."""
        if pending.number in self._pending:
            self._send(frames.pack_expire(pending.number))

    def abandon(self, pending: Pending, cancel: bool = True) -> None:
        """Nobody waits for this run any more: ``reply`` is not resolved, ``on_end`` is called as ever. The slot is free
        when the worker has answered, not before.

        ``cancel``: tell the worker so. Otherwise the run may go on to its end, for the sake of what that says.
        """
        if pending.reply.done() and not pending.reply.cancelled():
            pending.reply.exception()  # seen: asyncio would complain
        pending.given_up = True
        if pending.number not in self._pending:
            self.release(pending)
        elif cancel:
            self._cancel(pending)

    def oldest_age(self, now: float) -> float:
        """Seconds since the worker last came to an end with a run, while it has work; 0 if it has none."""
        if not self._pending:
            return 0.0
        first = next(iter(self._pending.values()))  # the order of the dict is that of sending
        return max(0.0, now - max(self._answered_at, first.since))

    def release(self, pending: Pending) -> None:
        """Give back the slot of a run that has been answered; a second time does nothing."""
        if pending.held and pending.ended and not self._closed:
            pending.held = False
            self._slots.give(pending.slot, monotonic())

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
        self._outbox.close()
        self._socket.close()
        pending = list(self._pending.values())
        self._pending.clear()
        for each in pending:
            self._end(each, None)
        self._regions.close()
        self._slots.close()  # not left to the collector of cycles, of which the link is part
        self._on_closed(reason)

    def _end(self, pending: Pending, reply: Reply | None) -> None:
        """The run, which is no longer among those under way, was answered, or the link is gone."""
        pending.ended = True
        if pending.given_up:
            self.release(pending)
        elif pending.reply.done():
            pass  # its caller has just been cancelled, and will abandon it
        elif reply is not None:
            pending.reply.set_result(reply)
        else:
            pending.reply.set_exception(WorkerLost(self._closed, began=pending.begun))
        if pending.on_end is not None:
            pending.on_end(reply)

    def _cancel(self, pending: Pending) -> None:
        if pending.cancelled is None:
            pending.cancelled = monotonic()
            self._send(frames.pack_cancel(pending.number))

    def _expire(self, number: int) -> None:
        pending = self._pending[number]
        pending.expired = True
        if not pending.reply.done():
            in_time, pending.reply = pending.reply, self._loop.create_future()
            in_time.set_result(None)

    def _look_for_hangs(self) -> None:
        if self._hang_check is None and not self._closed:
            self._hang_check = self._loop.call_later(_HANG_CHECK_SECONDS, self._check_hang)

    def _check_hang(self) -> None:
        self._hang_check = None
        now = monotonic()
        if self._loading_since is not None and now - self._loading_since > self.load_limit:
            return self.close(f"hung: a load took more than {self.load_limit:g} s")
        patience = 1.0 if self._loading_since is None else WHILE_LOADING
        hung = hung_for(self._pending.values(), self._answered_at, now, patience)
        if hung is not None:
            return self.close(f"hung: a run had no answer for {hung:.1f} s")
        if self._pending or self._loading_since is not None:
            self._look_for_hangs()
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
            frame = bytes(self._view[:count])
            try:
                if frame[0] == frames.REPLY:
                    self._replied(self._replies.read(frame))
                else:
                    self._received(frame)
            except FrameError as malformed:
                return self.close(f"the worker broke the protocol of the link: {malformed}")
            if self._closed or not self._pending:  # a read in vain costs as much as one that gets something
                return None
        return None

    def _received(self, frame: bytes) -> None:
        if frame[0] != frames.CONTROL:
            raise FrameError(f"unexpected frame of kind {frame[0]}")
        message = worker_pb2.ToGateway()
        try:
            message.ParseFromString(frames.unpack_control(frame))
        except Exception as malformed:  # protobuf's DecodeError has no stable import path across its versions
            raise FrameError(f"control message: {malformed}") from malformed
        self._on_control(message)

    def _replied(self, reply: Reply) -> None:
        pending = self._pending.get(reply.request_id)
        if pending is None:
            raise FrameError(f"reply to run {reply.request_id}, which is not under way")
        if reply.started:  # else it says no more than that the thread lives that reads the link
            self._answered_at = monotonic()
            pending.ran = True
        if reply.status == frames.NEEDS_SLOT:
            return self._fetch(pending, reply.needed)
        usable = pending.slot.usable
        for place in reply.outputs:
            if place.offset + place.nbytes > usable and not pending.delivers(place):
                raise FrameError(f"output {place.index} ends at {place.offset + place.nbytes} of {pending.slot}")
        del self._pending[reply.request_id]
        return self._end(pending, reply)

    def _fetch(self, pending: Pending, needed: int) -> None:
        """The outputs did not fit: a larger slot for them. The inputs have done their work, theirs is free again."""
        if pending.cancelled is not None:
            return  # the CANCEL that is on its way makes the worker drop the outputs and reply again
        if needed > self._max_bytes:
            refusal = f"the answer has {needed} bytes, more than limits.maxMessageMB allows ({self._max_bytes} bytes)"
            if pending.given_up:
                self._cancel(pending)
            elif not pending.reply.done():  # whoever waits for the answer abandons the run when this reaches it
                pending.reply.set_exception(Shed(refusal))
            return
        larger = self._slots.take(needed)
        self._slots.give(pending.slot, monotonic())
        pending.slot = larger
        self._send(frames.pack_fetch(pending.number, larger.number, 0))
        return

    def _announce(self, slot: Slot, fd: int) -> None:
        # The outbox may hold it for a while, the pool closes its own copy at once.
        self._send(frames.pack_slot(slot.number, slot.size), (os.dup(fd),))

    def _retire(self, slot: Slot) -> None:
        self._send(frames.pack_drop_slot(slot.number))

    def _trim(self) -> None:
        self._slots.trim(monotonic())
        self._trimmer = self._loop.call_later(_TRIM_SECONDS, self._trim)

    def __repr__(self) -> str:
        state = f"closed: {self._closed}" if self._closed else f"{len(self._pending)} pending"
        return f"<Link {state}, {self._slots!r}>"
