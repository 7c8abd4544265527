"""The link's frames: what gateway and worker say to each other over one ``SOCK_SEQPACKET`` socket.

One packet is one frame; its first byte says which. Control frames carry a protobuf message of ``worker.proto``. The
frames of an inference are packed by hand, because they are the hot path: packing takes about 2 us, and no tensor byte
is in them. Tensors lie in a *slot*, a sealed memfd that the gateway made and whose descriptor it sent once.

Times are ``time.monotonic()`` seconds: CLOCK_MONOTONIC is one clock for all processes of a machine.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

CONTROL = 1
"""Either way: a ``ToWorker`` or ``ToGateway`` message."""
SLOT = 2
"""To the worker, with one file descriptor (SCM_RIGHTS): map this memory."""
DROP_SLOT = 3
"""To the worker: unmap this memory. The gateway sends it only when no run uses the slot."""
INFER = 4
"""To the worker: run a model on the tensors of a slot."""
CANCEL = 5
"""To the worker: nobody waits for this run any more. The reply still comes, and frees the slot."""
FETCH = 6
"""To the worker: the outputs did not fit; write them into this other slot."""
REPLY = 7
"""To the gateway: the end of a run, or of a fetch."""
EXPIRE = 8
"""To the worker: drop this run if it has not begun; the reply is EXPIRED. One that has begun goes on."""
REGION = 9
"""To the worker, with one file descriptor: memory of a client, in which tensors of later runs lie."""
DROP_REGION = 10
"""To the worker: let go of this memory when the runs that were sent before have ended."""
PLACES = 11
"""To the worker, an INFER with which of its tensors lie in regions before it: waking a worker twice would take longer.
Where outputs do, it comes with a descriptor, the *token*, see ``Places``."""

OK = 0
RUNTIME_ERROR = 1
"""The runtime raised; the message says what."""
INVALID_INPUT = 2
"""A BYTES tensor whose elements do not add up. Found by the worker, because only there it is decoded."""
EXPIRED = 3
"""The deadline was over before the run began."""
CANCELLED = 4
"""The run was ended, or never begun, because of a CANCEL."""
NEEDS_SLOT = 5
"""The outputs need ``needed`` bytes; the worker keeps them until FETCH or CANCEL."""
UNKNOWN_MODEL = 6
"""The handle is not loaded here (any more)."""
DEVICE_FAULT = 7
"""The accelerator failed, not the model: out of memory, lost, reset."""
OUTRUN = 8
"""The run has ended well, but the right to write its outputs into the caller's regions was another's, or is no more."""

MAX_TENSORS = 512
MAX_DIMS = 32
MAX_FRAME = 176 * 1024
"""Fits a SEQPACKET packet under the default ``net.core.wmem_default`` of 208 kB."""
ALIGNMENT = 64
"""Every tensor in a slot begins at a multiple of this: a cache line, and what ONNX Runtime wants for its kernels."""
MARK_BYTES = 64
"""At the end of every slot, for the worker to note that it has begun the run: the gateway can still read that when the
worker is dead, and so tell the run that may have killed it from those that waited."""

_SLOT = struct.Struct("<BxxxIQ")
_DROP = struct.Struct("<BxxxI")
_CANCEL = struct.Struct("<BxxxxxxxQ")
_FETCH = struct.Struct("<BxxxIQQ")
_INFER = struct.Struct("<BBHHxxIIQQdd")
_RUN = struct.Struct("<xBxxxxxxxxxxxxxxQQdd")
"""Of ``_INFER`` what differs from request to request of one form,."""
_REPLY = struct.Struct("<BBHxxxxQdddQ")
_TENSOR = struct.Struct("<HBBxxxxQQ")
_REGION = struct.Struct("<BBxxIQ")
_PLACES = struct.Struct("<BxHH")
_PLACE = struct.Struct("<HxxIQQ")
_MAX_MESSAGE = 4096
_KEPT = 256
"""Ends of replies that ``Replies`` remembers ..."""
_MAX_KEPT_FRAME = 1024
"""... of frames of no more bytes than these: a worker can't fill the gateway's memory with them."""


class FrameError(ValueError):
    """A frame that does not follow the format: the other side is broken and its link must be closed."""


class TensorPlace(NamedTuple):
    """Where one tensor lies in a slot."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody wants here
    """Position among the model's inputs (or outputs)."""
    dtype: int
    """Code of the datatype, see ``edgeway.tensors``."""
    shape: tuple[int, ...]
    offset: int
    """Bytes from the start of the slot."""
    nbytes: int


class Infer(NamedTuple):
    """One run: which model, on which tensors, until when."""

    request_id: int
    model: int
    """Handle that the gateway gave in ``Load``."""
    slot: int
    out_offset: int
    """First byte of the slot that outputs may use."""
    deadline: float
    """Monotonic seconds; a run that has not begun by then is dropped."""
    priority: int
    """1 (highest) to 9."""
    inputs: Sequence[TensorPlace]
    outputs: Sequence[int]
    """Positions of the wanted outputs; empty means all."""
    budget_end: float = 0.0
    """Monotonic seconds at which the request's budget is over: no batch may cost it that; 0: nobody said."""


class Reply(NamedTuple):
    """How a run ended."""

    request_id: int
    status: int
    received: float
    """When the worker took the frame from the link (monotonic seconds)."""
    started: float
    """When the run began; 0 if it never did."""
    finished: float
    needed: int
    """With NEEDS_SLOT: bytes that the outputs need. With OK: see ``shared``."""
    outputs: tuple[TensorPlace, ...]
    message: str
    """Why, for every status that is not OK."""

    @property
    def shared(self) -> int:
        """Requests that were answered by this one run of the model, which took from ``started`` to ``finished``."""
        return max(1, self.needed) if self.status == OK else 1


class RegionPlace(NamedTuple):
    """Where one tensor of a run lies in a client's memory."""

    index: int  # type: ignore[assignment]  # hides tuple.index
    """Position among the model's inputs (or outputs)."""
    region: int
    offset: int
    """Bytes from the start of the region's file."""
    nbytes: int
    """Of the input, or room for the output."""


class Places(NamedTuple):
    """Which tensors of a run lie in regions. The INFER behind it has places in the slot for these inputs all the same:
    there a worker reads what it had better not look at in the client's memory.

    Outputs may be written into a client's memory by one attempt of a request only, and by nobody once the client has
    its answer. The right to it is a *token*: an eventfd that holds 1, shared by all attempts and the gateway. Who reads
    the 1 has it; all others read nothing.
    """

    inputs: Sequence[RegionPlace]
    outputs: Sequence[RegionPlace]


def aligned(offset: int) -> int:
    """The next offset at which a tensor may begin."""
    return -(-offset // ALIGNMENT) * ALIGNMENT


def kind(frame: bytes) -> int:
    """First byte of a frame.

    Raises:
        FrameError: the frame is empty.
    """
    if not frame:
        raise FrameError("empty frame")
    return frame[0]


def pack_control(message: bytes) -> bytes:
    """A control frame around a serialized ``ToWorker`` or ``ToGateway``."""
    return bytes((CONTROL,)) + message


def unpack_control(frame: bytes) -> bytes:
    return frame[1:]


def pack_slot(slot: int, size: int) -> bytes:
    return _SLOT.pack(SLOT, slot, size)


def unpack_slot(frame: bytes) -> tuple[int, int]:
    """(slot, size in bytes)."""
    _, slot, size = _unpack(_SLOT, frame)
    return slot, size


def pack_drop_slot(slot: int) -> bytes:
    return _DROP.pack(DROP_SLOT, slot)


def unpack_drop_slot(frame: bytes) -> int:
    return int(_unpack(_DROP, frame)[1])


def pack_cancel(request_id: int) -> bytes:
    return _CANCEL.pack(CANCEL, request_id)


def unpack_cancel(frame: bytes) -> int:
    return int(_unpack(_CANCEL, frame)[1])


def pack_expire(request_id: int) -> bytes:
    return _CANCEL.pack(EXPIRE, request_id)


def unpack_expire(frame: bytes) -> int:
    return int(_unpack(_CANCEL, frame)[1])


def pack_fetch(request_id: int, slot: int, out_offset: int) -> bytes:
    return _FETCH.pack(FETCH, slot, request_id, out_offset)


def unpack_fetch(frame: bytes) -> tuple[int, int, int]:
    """(request id, slot, first byte of the slot that outputs may use)."""
    _, slot, request_id, out_offset = _unpack(_FETCH, frame)
    return request_id, slot, out_offset


def pack_region(region: int, size: int, sealed: bool) -> bytes:
    return _REGION.pack(REGION, sealed, region, size)


def unpack_region(frame: bytes) -> tuple[int, int, bool]:
    """(region, bytes of its file that may be used, whether it is sealed against shrinking)."""
    _, sealed, region, size = _unpack(_REGION, frame)
    return region, size, bool(sealed)


def pack_drop_region(region: int) -> bytes:
    return _DROP.pack(DROP_REGION, region)


def unpack_drop_region(frame: bytes) -> int:
    return int(_unpack(_DROP, frame)[1])


def pack_region_places(places: Places) -> bytes:
    """What stands before an INFER some of whose tensors lie in regions."""
    head = _PLACES.pack(PLACES, len(places.inputs), len(places.outputs))
    return b"".join([head, *(_PLACE.pack(*place) for place in (*places.inputs, *places.outputs))])


def split_region_places(frame: bytes) -> tuple[bytes, bytes]:
    """(all that stands before the INFER, the INFER), unread: see ``unpack_region_places``.

    Raises:
        FrameError: cut off, or counts beyond the limits.
    """
    _, n_inputs, n_outputs = _unpack(_PLACES, frame, exact=False)
    end = _PLACES.size + (n_inputs + n_outputs) * _PLACE.size
    if n_inputs > MAX_TENSORS or n_outputs > MAX_TENSORS or len(frame) <= end or frame[end] != INFER:
        raise FrameError(f"places of {n_inputs} inputs and {n_outputs} outputs in a frame of {len(frame)} bytes")
    return frame[:end], frame[end:]


def unpack_region_places(frame: bytes) -> tuple[Places, bytes]:
    """(what ``pack_region_places`` wrote, the INFER behind it).

    Raises:
        FrameError: cut off, or counts beyond the limits.
    """
    head, infer = split_region_places(frame)
    _, n_inputs, _ = _PLACES.unpack_from(head)
    places = [RegionPlace(*each) for each in _PLACE.iter_unpack(head[_PLACES.size :])]
    return Places(places[:n_inputs], places[n_inputs:]), infer


def pack_infer(infer: Infer) -> bytes:
    """The frame of one run.

    Raises:
        FrameError: more tensors or dimensions than a frame may carry.
    """
    tensors = pack_tensors(infer.inputs, infer.outputs)
    counts = len(infer.inputs), len(infer.outputs)
    head = infer.request_id, infer.model, infer.slot, infer.out_offset, infer.deadline, infer.priority
    return pack_run(*head, counts, tensors, infer.budget_end)


def pack_tensors(inputs: Sequence[TensorPlace], outputs: Sequence[int]) -> bytes:
    """The part of a run's frame that is the same for all requests of one form: where the tensors lie, what is wanted.

    Raises:
        FrameError: more tensors or dimensions than a frame may carry.
    """
    if len(inputs) > MAX_TENSORS or len(outputs) > MAX_TENSORS:
        raise FrameError(f"at most {MAX_TENSORS} inputs and outputs, got {len(inputs)} and {len(outputs)}")
    wanted = struct.pack(f"<{len(outputs)}H", *outputs) if outputs else b""
    tensors = b"".join([*map(_pack_tensor, inputs), wanted])
    if len(tensors) > MAX_FRAME - _INFER.size:
        raise FrameError(f"frame of {len(tensors) + _INFER.size} bytes, at most {MAX_FRAME}")
    return tensors


def pack_run(
    request_id: int,
    model: int,
    slot: int,
    out_offset: int,
    deadline: float,
    priority: int,
    counts: tuple[int, int],
    tensors: bytes,
    budget_end: float = 0.0,
) -> bytes:
    """The frame of one run, see ``Infer``; ``tensors`` as ``pack_tensors`` made it, of so many inputs and outputs."""
    n_inputs, n_outputs = counts
    return (
        _INFER.pack(INFER, priority, n_inputs, n_outputs, model, slot, request_id, out_offset, deadline, budget_end)
        + tensors
    )


def unpack_infer(frame: bytes) -> Infer:
    """Read what ``pack_infer`` wrote.

    Raises:
        FrameError: cut off, too long, or counts beyond the limits.
    """
    _, priority, n_inputs, n_outputs, model, slot, request_id, out_offset, deadline, budget_end = _unpack(
        _INFER, frame, exact=False
    )
    inputs, at = _unpack_tensors(frame, _INFER.size, n_inputs)
    if len(frame) != at + 2 * n_outputs:
        raise FrameError(f"infer frame of {len(frame)} bytes, expected {at + 2 * n_outputs}")
    outputs = struct.unpack_from(f"<{n_outputs}H", frame, at) if n_outputs else ()
    return Infer(request_id, model, slot, out_offset, deadline, priority, inputs, outputs, budget_end)


class RunHead(NamedTuple):
    """What differs between the runs of one form, see ``Infer``."""

    request_id: int
    priority: int
    deadline: float
    budget_end: float
    """Monotonic seconds at which the request's budget is over; 0: nobody said."""
    form: bytes
    """The rest of the frame, byte by byte: model, slot, and where the tensors lie. Two runs of equal form differ in
    nothing but the contents of their tensors, and what was worked out for one is right for the other."""


def unpack_run(frame: bytes) -> RunHead:
    """The quick way to read an ``INFER`` frame whose form is known; ``unpack_infer`` checks it and reads all of it.

    Raises:
        FrameError: too short.
    """
    try:
        priority, request_id, _, deadline, budget_end = _RUN.unpack_from(frame)
    except struct.error as cut:
        raise FrameError(f"infer frame of {len(frame)} bytes") from cut
    return RunHead(request_id, priority, deadline, budget_end, frame[2:16] + frame[24:32] + frame[_INFER.size :])


def pack_places(places: Sequence[TensorPlace]) -> bytes:
    """The part of a reply that says where the outputs lie: the same for all runs of one form."""
    return b"".join(map(_pack_tensor, places))


def pack_done(
    request_id: int, received: float, started: float, finished: float, shared: int, count: int, places: bytes
) -> bytes:
    """The reply to a run that went well, see ``Reply``: ``count`` outputs that lie at ``places``, and how many requests
    ``shared`` the run.
    """
    return _REPLY.pack(REPLY, OK, count, request_id, received, started, finished, shared) + places


def pack_reply(reply: Reply) -> bytes:
    """The frame that ends a run; a message longer than 4096 bytes is cut."""
    head = _REPLY.pack(
        REPLY,
        reply.status,
        len(reply.outputs),
        reply.request_id,
        reply.received,
        reply.started,
        reply.finished,
        reply.needed,
    )
    return b"".join([head, *map(_pack_tensor, reply.outputs), reply.message.encode("utf-8", "replace")[:_MAX_MESSAGE]])


def unpack_reply(frame: bytes) -> Reply:
    """Read what ``pack_reply`` wrote.

    Raises:
        FrameError: cut off, or counts beyond the limits.
    """
    _, status, n_outputs, request_id, received, started, finished, needed = _unpack(_REPLY, frame, exact=False)
    outputs, at = _unpack_tensors(frame, _REPLY.size, n_outputs)
    message = frame[at:].decode("utf-8", "replace")
    return Reply(request_id, status, received, started, finished, needed, tuple(outputs), message)


class Replies:
    """Reads replies, and keeps what it read of their ends: the outputs of a model lie in the same places each time, in
    the very same tuple of ``Reply.outputs``.
    """

    def __init__(self) -> None:
        self._tails: dict[tuple[int, bytes], tuple[tuple[TensorPlace, ...], str]] = {}

    def read(self, frame: bytes) -> Reply:
        """As ``unpack_reply``. Raises FrameError."""
        try:
            _, status, n_outputs, request_id, received, started, finished, needed = _REPLY.unpack_from(frame)
        except struct.error as cut:
            raise FrameError(f"reply of {len(frame)} bytes, expected at least {_REPLY.size}") from cut
        key = n_outputs, frame[_REPLY.size :]
        tail = self._tails.get(key)
        if tail is None:
            reply = unpack_reply(frame)
            if status == OK and len(frame) <= _MAX_KEPT_FRAME:
                if len(self._tails) >= _KEPT:
                    self._tails.clear()
                self._tails[key] = reply.outputs, reply.message
            return reply
        # What Reply(...) does, without the Python function that a NamedTuple puts before it.
        return tuple.__new__(Reply, (request_id, status, received, started, finished, needed, *tail))


def _pack_tensor(place: TensorPlace) -> bytes:
    index, dtype, shape, offset, nbytes = place
    if len(shape) > MAX_DIMS:
        raise FrameError(f"at most {MAX_DIMS} dimensions, got {len(shape)}")
    head = _TENSOR.pack(index, dtype, len(shape), offset, nbytes)
    return head + struct.pack(f"<{len(shape)}Q", *shape) if shape else head


def _unpack_tensors(frame: bytes, at: int, count: int) -> tuple[list[TensorPlace], int]:
    if count > MAX_TENSORS:
        raise FrameError(f"at most {MAX_TENSORS} tensors, got {count}")
    places: list[TensorPlace] = []
    try:
        for _ in range(count):
            index, dtype, ndim, offset, nbytes = _TENSOR.unpack_from(frame, at)
            if ndim > MAX_DIMS:
                raise FrameError(f"at most {MAX_DIMS} dimensions, got {ndim}")
            shape = struct.unpack_from(f"<{ndim}Q", frame, at + _TENSOR.size) if ndim else ()
            at += _TENSOR.size + 8 * ndim
            places.append(TensorPlace(index, dtype, shape, offset, nbytes))
    except struct.error as cut:
        raise FrameError(f"frame cut off: {cut}") from cut
    return places, at


def _unpack(form: struct.Struct, frame: bytes, exact: bool = True) -> tuple[int, ...]:
    if len(frame) < form.size or (exact and len(frame) != form.size):
        raise FrameError(f"frame of kind {kind(frame)} has {len(frame)} bytes, expected {form.size}")
    return form.unpack_from(frame)
