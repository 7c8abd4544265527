"""The gateway's end of a link, against a scripted worker that speaks frames over a real socket pair."""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeway import frames
from edgeway.frames import Infer, Reply, TensorPlace
from gateway.dispatch.link import Link
from gateway.dispatch.pending import Pending, hung_for
from gateway.errors import Shed, WorkerLost
from gateway.plan import Plan
from gateway.request import InputTensor
from workers.slots import Slots

RECEIVED, STARTED, FINISHED = 1.0, 2.0, 3.0
LIMIT = 1 << 20
"""Bytes of the largest answer."""


class Peer:
    """The worker's end: reads when it is told to, and begins and answers runs when it is told to."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.socket = connection
        self.slots = Slots()
        self.infers: dict[int, Infer] = {}
        self.waiting: set[int] = set()
        self.begun: set[int] = set()
        self.kept: set[int] = set()
        """Runs whose outputs wait for a larger slot."""
        self.answers: dict[int, int] = {}
        """Number -> status of the last answer."""

    def read(self) -> list[int]:
        """Take all frames, and do what a worker's reading thread does; the kinds of the frames."""
        kinds = []
        while True:
            try:
                frame, ancillary, _, _ = self.socket.recvmsg(frames.MAX_FRAME, socket.CMSG_SPACE(4))
            except (BlockingIOError, ConnectionResetError):  # nothing more, or the link is gone
                return kinds
            if not frame:
                return kinds
            kinds.append(frames.kind(frame))
            if kinds[-1] == frames.SLOT:
                fds = array.array("i", b"".join(data for _, _, data in ancillary))
                self.slots.add(*frames.unpack_slot(frame), fds[0])
            elif kinds[-1] == frames.INFER:
                infer = frames.unpack_infer(frame)
                self.infers[infer.request_id] = infer
                self.waiting.add(infer.request_id)
            elif kinds[-1] == frames.EXPIRE:
                if (number := frames.unpack_expire(frame)) in self.waiting:
                    self.answer(number, frames.EXPIRED)
            elif kinds[-1] == frames.CANCEL:
                if (number := frames.unpack_cancel(frame)) in self.waiting | self.begun | self.kept:
                    self.answer(number, frames.CANCELLED)
            elif kinds[-1] == frames.FETCH:
                number, slot, _ = frames.unpack_fetch(frame)
                self.slots.memory(slot)
                assert number in self.kept
                self.answer(number, frames.OK)

    def begin(self, number: int) -> None:
        self.waiting.discard(number)
        self.begun.add(number)
        self.slots.memory(self.infers[number].slot).begin()

    def answer(
        self, number: int, status: int = frames.OK, needed: int = 0, places: tuple[TensorPlace, ...] = ()
    ) -> None:
        ran = number in self.begun | self.kept
        times = (STARTED, FINISHED) if ran else (0.0, 0.0)
        for group in (self.waiting, self.begun, self.kept):
            group.discard(number)
        if status == frames.NEEDS_SLOT:
            self.kept.add(number)
        else:
            self.answers[number] = status
        self.send(frames.pack_reply(Reply(number, status, RECEIVED, *times, needed, places, "")))

    def send(self, frame: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):  # the link may have ended meanwhile
            self.socket.send(frame)


class Pair:
    """A link, its worker, and what the link said."""

    def __init__(self, load_limit: float = 300.0) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.loop = asyncio.get_running_loop()
        self.closed: list[str] = []
        self.over = asyncio.Event()
        self.link = Link(ours, self.loop, lambda message: None, self._ended, LIMIT, load_limit)
        self.peer = Peer(theirs)
        self.ends: dict[int, list[Reply | None]] = {}

    def infer(self, expire_at: float | None = None, hang_limit: float = 60.0, data: bytes = b"1234") -> Pending:
        size = len(data)
        tensors = frames.pack_tensors([TensorPlace(0, 11, (size,), 0, size)], [])
        plan = Plan(size, ((0, size),), frames.aligned(size), (), 64, True, (1, 0), tensors)
        pending = self.link.infer(
            7,
            plan,
            [InputTensor("x", "FP32", (size,), memoryview(data))],
            plan.room,
            start_by=self.loop.time() + 60,
            expire_at=expire_at,
            priority=5,
            hang_limit=hang_limit,
        )
        self.ends[pending.number] = []

        def ended(reply: Reply | None) -> None:
            self.ends[pending.number].append(reply)

        pending.on_end = ended
        return pending

    def _ended(self, why: str) -> None:
        self.closed.append(why)
        self.over.set()

    async def settle(self) -> None:
        """The loop reads all that the peer has sent: it is in the socket already."""
        for _ in range(4):
            await asyncio.sleep(0)

    def end(self) -> None:
        self.link.close("the end")
        self.peer.socket.close()


@pytest.fixture
async def pair():
    made = Pair()
    yield made
    made.end()


def played(scenario: Callable[[Pair], Awaitable[None]], **options: float) -> None:
    async def play() -> None:
        pair = Pair(**options)
        try:
            await scenario(pair)
        finally:
            pair.end()

    asyncio.run(play())


COMMON = ("infer", "read", "settle", "begin", "answer")
RARE = ("larger", "too large", "expire", "abandon", "leave", "release", "cancel the wait", "hang up", "close")
moves = st.lists(st.tuples(st.sampled_from((*COMMON, *COMMON, *RARE)), st.integers(0, 3)), max_size=60)


@settings(max_examples=150)
@given(moves)
def test_every_run_ends_exactly_once_and_no_slot_has_two_users(given_moves):
    async def scenario(pair: Pair) -> None:
        link, peer, runs = pair.link, pair.peer, []
        gone = False
        for what, which in given_moves:
            run = runs[which % len(runs)] if runs else None
            if what == "infer":
                if not pair.closed:
                    runs.append(pair.infer(pair.loop.time() - 1 if which % 2 else None))
            elif what == "settle":
                await pair.settle()
            elif what == "close":
                if which == 0:
                    link.close("closed by the test")
            elif run is None or (gone and what in ("read", "begin", "answer", "larger", "too large")):
                continue
            elif what == "hang up":
                if which == 0 and not gone:
                    gone = True
                    peer.socket.close()
            elif what == "read":
                peer.read()
            elif what == "begin":
                if run.number in peer.waiting and not pair.closed:
                    peer.begin(run.number)
            elif what in ("answer", "larger", "too large"):
                if run.number in peer.begun and not pair.closed:
                    needed = {"answer": 0, "larger": 300_000, "too large": 2 * LIMIT}[what]
                    peer.answer(run.number, frames.NEEDS_SLOT if needed else frames.OK, needed)
            elif what == "expire":
                link.expire(run)
            elif what == "abandon":
                link.abandon(run)
            elif what == "leave":
                link.abandon(run, cancel=False)
            elif what == "release" and run.ended:
                link.release(run)
                link.release(run)
            elif what == "cancel the wait":
                run.reply.cancel()
            free = [slot.number for group in link._slots._free.values() for slot in group]
            held = [each.slot.number for each in runs if each.held]
            if not pair.closed:  # a closed link has let go of its free ones
                assert sorted(free + held) == list(range(1, link._slots._made + 1))
            assert all(len(pair.ends[each.number]) == each.ended for each in runs)
            alive = [each for each in runs if not each.ended]
            assert bool(link.oldest_age(pair.loop.time() + 1)) == bool(alive)
        if not gone and not pair.closed:
            peer.read()
            await pair.settle()
            peer.read()  # what the link said to that
            await pair.settle()
        assert [why for why in pair.closed if "protocol" in why] == []
        link.close("the end")
        for run in runs:
            (end,) = pair.ends[run.number]
            assert run.ended
            assert run.reply.done() or run.given_up
            if end is not None:
                assert end.status == peer.answers[run.number]
                assert run.begun == (end.started > 0)
            elif not run.given_up and not run.reply.cancelled():
                failed = run.reply.exception()
                assert isinstance(failed, Shed) or (isinstance(failed, WorkerLost) and failed.began == run.begun)

    played(scenario)


async def test_the_frame_says_by_when_the_run_must_begin_and_the_mark_is_clear(pair):
    first = pair.infer()
    pair.peer.read()
    assert pair.peer.infers[first.number].deadline > pair.loop.time()
    pair.peer.begin(first.number)
    assert first.begun
    pair.peer.answer(first.number)
    await first.reply
    pair.link.release(first)
    second = pair.infer()
    assert second.slot is first.slot
    assert not second.begun
    assert first.begun  # it has run, whatever its slot is used for now


async def test_when_its_time_is_up_a_run_is_expired_and_its_late_answer_still_comes(pair):
    pending = pair.infer(expire_at=pair.loop.time() + 0.02)
    in_time = pending.reply
    pair.peer.read()
    pair.peer.begin(pending.number)
    assert await in_time is None
    assert pending.expired
    assert pair.ends[pending.number] == []
    assert pair.peer.read() == []  # nothing is said to the worker by itself
    pair.peer.answer(pending.number)
    late = await pending.reply
    assert late is not None
    assert pair.ends[pending.number] == [late]


async def test_without_a_time_a_run_never_expires(pair):
    pending = pair.infer(expire_at=None)
    other = pair.infer(expire_at=pair.loop.time() + 0.01)
    await other.reply
    assert not pending.expired
    assert not pending.reply.done()


async def test_a_run_that_waits_is_expired_at_once_and_one_that_has_begun_goes_on(pair):
    begun, waiting = pair.infer(), pair.infer()
    pair.peer.read()
    pair.peer.begin(begun.number)
    pair.link.expire(begun)
    pair.link.expire(waiting)
    assert pair.peer.read() == [frames.EXPIRE, frames.EXPIRE]
    reply = await waiting.reply
    pair.link.expire(waiting)
    assert pair.peer.read() == []  # it has been answered
    assert reply is not None
    assert (reply.status, reply.started) == (frames.EXPIRED, 0.0)
    await pair.settle()
    assert not begun.reply.done()


async def test_the_end_is_told_before_whoever_waits_goes_on(pair):
    pending = pair.infer()
    order: list[str] = []
    pending.on_end = lambda reply: order.append("end")
    pending.reply.add_done_callback(lambda done: order.append("reply"))
    pair.peer.read()
    pair.peer.answer(pending.number)
    await pending.reply
    await pair.settle()
    assert order == ["end", "reply"]


async def test_a_probe_that_nobody_waits_for_runs_to_its_end_and_frees_its_slot(pair):
    probe = pair.infer()
    pair.link.abandon(probe, cancel=False)
    assert frames.CANCEL not in pair.peer.read()
    pair.peer.begin(probe.number)
    pair.peer.answer(probe.number, frames.NEEDS_SLOT, 300_000)
    await pair.settle()
    assert pair.peer.read() == [frames.SLOT, frames.FETCH]
    await pair.settle()
    (end,) = pair.ends[probe.number]
    assert (end.status, end.started, end.finished) == (frames.OK, STARTED, FINISHED)
    assert not probe.held
    free = [slot.number for group in pair.link._slots._free.values() for slot in group]
    assert sorted(free) == [1, 2]


async def test_a_slot_that_is_released_twice_is_free_once(pair):
    pending = pair.infer()
    pair.peer.read()
    pair.peer.answer(pending.number)
    await pending.reply
    pair.link.release(pending)
    pair.link.release(pending)
    pair.link.abandon(pending)
    assert pair.infer().slot is not pair.infer().slot


async def test_outputs_for_which_nobody_waits_are_not_fetched_after_a_cancellation(pair):
    pending = pair.infer()
    pair.peer.read()
    pair.peer.begin(pending.number)
    pair.peer.answer(pending.number, frames.NEEDS_SLOT, 300_000)
    pair.link.abandon(pending)
    await pair.settle()
    assert pair.peer.read() == [frames.CANCEL]
    await pair.settle()
    (end,) = pair.ends[pending.number]
    assert (end.status, end.finished) == (frames.CANCELLED, FINISHED)


async def test_an_answer_that_is_too_large_is_refused_or_dropped_where_nobody_waits(pair):
    waited_for, probe = pair.infer(), pair.infer()
    pair.link.abandon(probe, cancel=False)
    pair.peer.read()
    for run in (waited_for, probe):
        pair.peer.begin(run.number)
        pair.peer.answer(run.number, frames.NEEDS_SLOT, LIMIT + 1)
    with pytest.raises(Shed, match="maxMessageMB"):
        await waited_for.reply
    assert pair.peer.read() == [frames.CANCEL]
    await pair.settle()
    assert [end.status for end in pair.ends[probe.number]] == [frames.CANCELLED]
    assert pair.ends[waited_for.number] == []
    pair.link.abandon(waited_for)
    pair.peer.read()
    await pair.settle()
    assert [end.status for end in pair.ends[waited_for.number]] == [frames.CANCELLED]


async def test_a_dead_workers_runs_say_which_of_them_had_begun(pair):
    begun, waiting = pair.infer(), pair.infer()
    pair.peer.read()
    pair.peer.begin(begun.number)
    pair.peer.socket.close()
    with pytest.raises(WorkerLost) as killer:
        await begun.reply
    with pytest.raises(WorkerLost) as victim:
        await waiting.reply
    assert (killer.value.began, victim.value.began) == (True, False)
    assert pair.ends == {begun.number: [None], waiting.number: [None]}


async def test_descriptors_that_could_not_be_sent_are_closed_with_the_link(pair):
    """A worker that is stopped takes nothing: at some point frames are kept back."""
    runs = []
    while not (kept := [fd for _, fds in pair.link._outbox._waiting for fd in fds]):
        runs.append(pair.infer())
    pair.link.close("gone")
    for fd in kept:
        with pytest.raises(OSError):
            os.fstat(fd)
    for run in runs:
        pair.link.abandon(run)


async def test_runs_that_nobody_waits_for_end_with_the_link(pair):
    cancelled, probe = pair.infer(), pair.infer()
    pair.link.abandon(cancelled)
    pair.link.abandon(probe, cancel=False)
    pair.link.close("gone")
    pair.link.close("gone again")
    pair.link.abandon(probe)
    assert pair.ends == {cancelled.number: [None], probe.number: [None]}
    assert pair.closed == ["gone"]


async def test_a_run_whose_outputs_wait_for_room_has_begun(pair):
    pending = pair.infer()
    pair.peer.read()
    pair.peer.begin(pending.number)
    pair.peer.answer(pending.number, frames.NEEDS_SLOT, 300_000)
    await pair.settle()
    pair.peer.socket.close()
    with pytest.raises(WorkerLost) as lost:
        await pending.reply
    assert lost.value.began


async def test_an_output_that_claims_the_mark_breaks_the_link_and_fails_its_own_run(pair):
    pending = pair.infer()
    pair.peer.read()
    pair.peer.begin(pending.number)
    place = TensorPlace(0, 11, (1,), pending.slot.usable, 4)
    pair.peer.answer(pending.number, places=(place,))
    with pytest.raises(WorkerLost, match="protocol"):
        await pending.reply
    assert "protocol" in pair.closed[0]


async def test_a_closed_link_takes_no_run_and_says_that_none_began(pair):
    pair.link.close("gone")
    with pytest.raises(WorkerLost) as lost:
        pair.infer()
    assert not lost.value.began


async def test_the_age_counts_from_the_last_run_that_ended_and_not_from_answers_for_runs_that_never_began(pair):
    assert pair.link.oldest_age(pair.loop.time()) == 0.0
    first, second, third = pair.infer(), pair.infer(), pair.infer()
    assert pair.link.oldest_age(first.since + 5.0) == pytest.approx(5.0)
    pair.peer.read()
    pair.peer.answer(first.number, frames.EXPIRED)
    await first.reply
    assert pair.link.oldest_age(second.since + 5.0) == pytest.approx(5.0)
    before = pair.loop.time()
    pair.peer.begin(second.number)
    pair.peer.answer(second.number)
    await second.reply
    assert pair.link.oldest_age(before + 5.0) <= 5.0 + 1e-6
    assert third.since <= before
    assert pair.link.oldest_age(before - 1.0) == 0.0


async def test_a_hang_is_found_although_others_expire_meanwhile(pair):
    pair.infer(hang_limit=0.2)
    while not pair.closed:
        pair.link.expire(pair.infer())
        pair.peer.read()
        await asyncio.sleep(0.02)
    assert pair.closed[0].startswith("hung: a run had no answer for")


def test_a_load_that_takes_too_long_is_a_hang_and_a_run_beside_a_load_is_none():
    async def scenario(pair: Pair) -> None:
        pending = pair.infer(hang_limit=0.05)
        pair.link.loading_since = pair.loop.time()
        await asyncio.wait_for(pair.over.wait(), 5)
        assert pair.closed == ["hung: a load took more than 0.3 s"]
        assert pair.loop.time() - pending.since >= 0.3
        assert isinstance(pending.reply.exception(), WorkerLost)

    played(scenario, load_limit=0.3)


def test_a_run_that_hangs_beside_a_load_is_found_though_later():
    async def scenario(pair: Pair) -> None:
        pending = pair.infer(hang_limit=0.05)
        pair.link.loading_since = pair.loop.time()
        await asyncio.wait_for(pair.over.wait(), 5)
        assert pair.closed[0].startswith("hung: a run had no answer for")
        assert pair.loop.time() - pending.since >= 0.5
        assert isinstance(pending.reply.exception(), WorkerLost)

    played(scenario, load_limit=3600.0)


def test_a_load_that_ends_in_time_is_no_hang():
    async def scenario(pair: Pair) -> None:
        pair.link.loading_since = pair.loop.time()
        await asyncio.sleep(0.12)  # one look
        pair.link.loading_since = None
        await asyncio.sleep(0.3)
        assert pair.closed == []

    played(scenario, load_limit=0.2)


@given(
    st.lists(st.tuples(st.floats(0, 10), st.one_of(st.none(), st.floats(0, 10)), st.floats(0.1, 5)), max_size=6),
    st.floats(0, 10),
    st.floats(0, 20),
)
def test_hung_means_silence_beyond_the_limit_since_it_was_sent_answered_or_cancelled(runs, answered_at, now):
    pending = [
        Pending(number, None, None, since, limit, cancelled=cancelled)
        for number, (since, cancelled, limit) in enumerate(runs)
    ]
    silences = [
        (now - (cancelled if cancelled is not None else max(since, answered_at)), limit)
        for since, cancelled, limit in runs
    ]
    hung = hung_for(pending, answered_at, now)
    assert (hung is not None) == any(silent > limit for silent, limit in silences)
    assert hung is None or (hung in [silent for silent, limit in silences if silent > limit])
