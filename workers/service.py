"""The worker's end of the link: takes frames, runs models on its instances, sends replies."""

from __future__ import annotations

import array
import gc
import math
import os
import queue
import socket
import sys
import threading
import time
from typing import Any, Dict, Hashable, List, Optional, Sequence, Tuple

from edgeway import frames
from edgeway.frames import FrameError, Reply, TensorPlace
from edgeway.upkeep import Upkeep
from edgeway.v1 import worker_pb2
from workers.backend import (
    Backend,
    BackendError,
    DeviceFault,
    InvalidInput,
    LoadsForLong,
    Model,
    RunCancelled,
    RunsElsewhere,
    Settings,
    Tensor,
    TensorSpec,
)
from workers.background import Background
from workers.batching import Member
from workers.forms import Form, Forms
from workers.golden import Agreement, Rule
from workers.joining import Shared, join, split
from workers.loaded import LoadedModel
from workers.loading import LoadError, begin_anew, check, limits_of, load
from workers.process import resident_bytes
from workers.regions import Regions, RunRegions
from workers.schedule import LONG, Company, Run, Schedule
from workers.slots import Slots, room_needed, write_tensors
from workers.spin import Spin

REPORT_SECONDS = 0.1
"""Between two looks at the device; a report is sent when something changed, and once a second."""
LOADING_SECONDS = 1.0
"""Between two words about a load that goes on, and before the first."""
ZOMBIE_SECONDS = 0.05
"""How long a cancelled run may go on before a spare thread takes its instance's place."""
SPARES = 4
LONGEST_WAY = 0.1
"""Seconds that a load gives way to others between two of its own runs, at most."""
INLINE = 0.0002
"""Seconds. A run that is expected to take no longer is run by the thread that reads the link, if no other is on. So is
one that takes longer, up to ``LONG``, but then another thread reads meanwhile: waking that one takes as long as waking
an instance would, 0.1 ms, but the run need not wait for it."""
HELD_UP = 0.02
"""Seconds after which such a run has turned out to be another, and the link gets another reader."""

_STATUS = ((InvalidInput, frames.INVALID_INPUT), (RunCancelled, frames.CANCELLED), (DeviceFault, frames.DEVICE_FAULT))
_ONE_FD = socket.CMSG_SPACE(array.array("i").itemsize)


class Service:
    """One worker. Two threads take turns at the link, each instance is a thread, and loads have two more."""

    def __init__(self, connection: socket.socket, backend: Backend, settings: Settings) -> None:
        self._socket = connection
        self._backend = backend
        self._settings = settings
        self._spin = Spin(connection, settings.spin_seconds)
        self._upkeep = Upkeep()
        self._answered = 0
        self._unloaded = 0
        self._sending = threading.Lock()
        self._slots = Slots()
        self._regions = Regions()
        self._schedule = Schedule(settings.starvation_seconds, instances=settings.instances)
        self._models: Dict[int, LoadedModel] = {}
        self._forms = Forms()
        self._runs: Dict[int, Run] = {}
        self._orders: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._later: queue.SimpleQueue[Any] = queue.SimpleQueue()
        """What is carried out in the background."""
        self._behind: Dict[int, Any] = {}
        """By model: the queue in which the order to unload it must go behind that to load it."""
        self._spares = 0
        """Threads that stand in for instances whose run can't be stopped."""
        self._sparing = threading.Lock()
        self._reader: object = None
        """Whose turn it is to read the link."""
        self._resting: Optional[threading.Semaphore] = None
        """The thread that reads next, by what it waits for."""
        self._inline_since = 0.0
        """When the reading thread began a run of its own; 0: it reads."""
        self._turn = threading.Lock()

    def serve(self) -> None:
        """Until the gateway closes the link; then the process ends at once, because nothing here is worth saving."""
        self._control(worker_pb2.ToGateway(hello=self._hello()))
        self._start("loader", self._load_all)
        self._start("background", self._load_in_background)
        self._start("reporter", self._report)
        several = self._settings.instances > 1
        for instance in range(self._settings.instances):
            self._start(f"instance-{instance}", self._work, several and instance == 0)
        self._reader = turn = threading.Semaphore(0)
        self._start("reader", self._read_in_turn, threading.Semaphore(0))
        self._read_in_turn(turn)
        threading.Event().wait()  # another thread reads now, and ends the process

    def _read_in_turn(self, turn: threading.Semaphore) -> None:
        """Read, and rest while another does. A thread of which there is no need ends."""
        # One buffer for all frames: recvmsg() would allocate the largest frame's 176 KiB for each.
        buffer = bytearray(frames.MAX_FRAME)
        while True:
            self._read(turn, buffer)
            with self._turn:
                if self._resting is not None:
                    return
                self._resting = turn
            turn.acquire()

    def _pass_on(self) -> bool:
        """Have the thread that rests read from now on; False: none does."""
        with self._turn:
            turn, self._resting = self._resting, None
            if turn is None:
                return False
            self._reader = turn
            turn.release()
            return True

    def _read(self, turn: object, buffer: bytearray) -> None:
        """Take frames from the link, as long as it is this thread's turn."""
        view, buffers, receive, infer = memoryview(buffer), [buffer], self._socket.recvmsg_into, frames.INFER
        while self._reader is turn:
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
            self._fetch(*frames.unpack_fetch(frame))
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
            orders = self._later if message.load.background else self._orders
            self._behind[message.load.model] = orders
            orders.put(message.load)
        elif which == "unload":
            self._behind.pop(message.unload.model, self._orders).put(message.unload)
        elif which == "heartbeat":
            self._control(worker_pb2.ToGateway(heartbeat=message.heartbeat))
        elif which == "shutdown":
            os._exit(0)

    # -- runs --------------------------------------------------------------------------------------------------

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
            return self._send(_reply(run, frames.UNKNOWN_MODEL, message=f"no model has the handle {form.handle}"))
        form.busy = True
        self._runs[number] = run
        expected = model.expected(form.input_bytes)
        if form.group is not None and model.limits is not None:
            end = budget_end if budget_end > 0 else math.inf
            member = Member(number, (priority, deadline), form.rows, form.input_bytes, received, end)
            run.company = Company(form.group, member, model.limits, model.estimate)
            self._schedule.put(run, short=expected is not None and expected <= LONG)
        elif expected is not None and expected <= INLINE and self._schedule.claim():
            self._run_inline(run)
        elif expected is not None and expected <= LONG and self._resting is not None and self._schedule.claim():
            self._pass_on()
            try:
                self._run(run)
            finally:
                self._schedule.done()
        else:
            self._schedule.put(run, short=expected is not None and expected <= LONG)
        return None

    def _form(self, frame: bytes, key: Hashable, regions: Optional[RunRegions]) -> Form:
        """A form that is new, or whose like is in use. Raises FrameError."""
        infer = frames.unpack_infer(frame)
        model = self._models.get(infer.model)
        form = Form(infer, self._slots.memory(infer.slot), model, regions)
        if model is not None:
            self._forms.keep(key, form)
        return form

    def _run_inline(self, run: Run) -> None:
        """Run on the reading thread: waking another would take longer. If it drags on, another one reads meanwhile."""
        self._inline_since = run.received
        try:
            self._run(run)
        finally:
            self._schedule.done()
            with self._turn:
                self._inline_since = 0.0

    def _relieve(self) -> None:
        """Have another thread read the link while the one that did is held up by a run that was to be short."""
        with self._turn:
            held_up = self._inline_since and time.monotonic() - self._inline_since > HELD_UP
            if held_up:
                self._inline_since = 0.0
        if held_up and not self._pass_on():
            self._reader = turn = threading.Semaphore(0)
            self._start("reader", self._read_in_turn, turn)

    def _work(self, short_only: bool, until: Any = None) -> None:
        """What an instance does: one run after the other."""
        while True:
            runs = self._schedule.take(short_only, until)
            if not runs:
                return
            try:
                if len(runs) == 1:
                    self._run(runs[0])
                else:
                    self._run_together(runs)
            finally:
                self._schedule.done()
            del runs  # what it holds of a model would stay in memory until the next one comes

    def _begin(self, run: Run) -> bool:
        """Mark a run as begun; False: it was too late, or nobody waits for it, and it has been answered."""
        now = time.monotonic()
        if run.cancelled:
            self._finish(run, frames.CANCELLED, message="cancelled before it began")
            return False
        if now > run.deadline:
            self._finish(run, frames.EXPIRED, message="the deadline was over before the run began")
            return False
        run.started = now
        run.running = True
        run.form.slot.begin()
        return True

    def _run(self, run: Run) -> None:
        if self._begin(run):
            self._run_begun(run, run.started)

    def _run_begun(self, run: Run, started: float) -> None:
        form: Form = run.form
        outputs: Optional[List[Tensor]] = None
        try:
            for fill in form.fills:
                fill.now()
            if form.bound is None or not form.bound.run(run):
                outputs = self._run_unbound(run)
        except BackendError as failed:
            self._ended(run)
            status = next((status for kind, status in _STATUS if isinstance(failed, kind)), frames.RUNTIME_ERROR)
            return self._finish(run, status, message=str(failed))
        except Exception as bug:  # noqa: BLE001 - a bug in a backend must cost one run, not the worker's whole queue
            self._ended(run)
            return self._finish(run, frames.RUNTIME_ERROR, message=f"{type(bug).__name__}: {bug}")
        self._ended(run)
        if run.cancelled:
            return self._finish(run, frames.CANCELLED, message="cancelled while it ran")
        if outputs is None:
            self._answer(run)
        elif not self._answer_with(run, outputs):
            return None
        assert form.model is not None
        form.model.took(form.input_bytes, run.finished - started)  # only now: the answer is on its way
        return None

    def _run_together(self, runs: List[Run]) -> None:
        """One run of the model for several; one by one if that fails, so that none is failed by another."""
        runs = [run for run in runs if self._begin(run)]
        if not runs:
            return
        model: LoadedModel = runs[0].form.model
        started, batch = time.monotonic(), Shared(runs)
        for run in runs:
            run.shared, run.batch = len(runs), batch
        if len(runs) == 1 or not self._ran_together(runs, model.model, batch):
            for run in runs:
                run.batch = None
                if run.cancelled:
                    self._ended(run)
                    self._finish(run, frames.CANCELLED, message="cancelled while it ran")
                else:
                    run.shared = 1
                    self._run_begun(run, time.monotonic())
            return
        model.took(sum(run.form.input_bytes for run in runs), runs[0].finished - started)

    def _ran_together(self, runs: List[Run], model: Model, batch: Shared) -> bool:
        """Whether that went well; then they have been answered."""
        try:
            joined = model.run(join([run.form.inputs for run in runs]), runs[0].form.names, batch)
            shares = split(joined, [run.form.rows for run in runs])
        except RunCancelled:
            return False
        except Exception as failed:  # noqa: BLE001 - whose fault it was shows when each goes alone
            print(f"{len(runs)} runs together failed: {failed}", file=sys.stderr, flush=True)
            return False
        if shares is None:
            return False
        finished = time.monotonic()
        for run, outputs in zip(runs, shares):
            run.done()
            run.finished = finished
            if run.cancelled:
                self._finish(run, frames.CANCELLED, message="cancelled while it ran")
            else:
                self._answer_with(run, outputs)
        return True

    def _run_unbound(self, run: Run) -> List[Tensor]:
        """Raises BackendError, and FrameError where the frame's tensors make no sense."""
        form: Form = run.form
        form.bound = None
        if form.trouble:
            raise FrameError(form.trouble)
        assert form.model is not None
        return form.model.model.run(form.inputs, form.names, run)

    def _answer(self, run: Run) -> None:
        """The outputs are in their places, as those of the run before were."""
        form: Form = run.form
        assert form.places is not None
        count, places = len(form.places), form.replies
        self._last(run, frames.pack_done(run.number, run.received, run.started, run.finished, 0, count, places))

    def _answer_with(self, run: Run, outputs: List[Tensor]) -> bool:
        """Copy the outputs to where they belong, if there is room; else ask for it and say False."""
        form: Form = run.form
        memory, needed = form.slot.tensors, _room_for(run, outputs)
        if form.out_offset + needed > len(memory):
            self._ask_for_room(run, outputs, needed)
            return False
        places = self._hand_over(run, memory, form.out_offset, outputs)
        if places is not None:
            if run.regions is None or not run.regions.takes_outputs:
                form.ran(places)
            self._last(run, _done(run, places))
        return True

    def _hand_over(
        self, run: Run, memory: memoryview, offset: int, outputs: List[Tensor]
    ) -> Optional[Sequence[TensorPlace]]:
        """Where in the slot the outputs lie now; None: they were wanted elsewhere, and the run has been answered."""
        form: Form = run.form
        if run.regions is None or not run.regions.takes_outputs:
            return write_tensors(memory, offset, form.wanted, outputs)
        self._finish(run, *run.regions.deliver(memory, offset, form.wanted, outputs))
        return None

    def _ask_for_room(self, run: Run, outputs: List[Tensor], needed: int) -> None:
        """Keep the outputs and say so in one step: the answer to a cancellation must not overtake it."""
        with self._sending:
            kept = run.keep(outputs)
            if kept:
                self._write(_reply(run, frames.NEEDS_SLOT, needed=needed))
        if not kept:
            self._finish(run, frames.CANCELLED, message="cancelled when it had run")

    def _ended(self, run: Run) -> None:
        run.finished = time.monotonic()
        run.done()

    def _fetch(self, request_id: int, slot: int, offset: int) -> None:
        run = self._runs.get(request_id)
        if run is None or run.outputs is None:
            raise FrameError(f"run {request_id} has no outputs to fetch")
        memory = self._slots.memory(slot).tensors
        if offset + _room_for(run, run.outputs) > len(memory):
            raise FrameError(f"slot {slot} is too small for the outputs of run {request_id}")
        outputs, run.outputs = run.outputs, None
        places = self._hand_over(run, memory, offset, outputs)
        if places is not None:
            self._last(run, _done(run, places))

    def _expire(self, request_id: int) -> None:
        """Answer for a run that waits. One that has begun goes on, one that is unknown has been answered."""
        run = self._schedule.remove(request_id)
        if run is not None:
            self._finish(run, frames.EXPIRED, message="its time was up before it began")

    def _cancel(self, request_id: int) -> None:
        run = self._runs.get(request_id)
        if run is None:
            return  # its reply and this frame met on the way
        had_run = run.cancel()
        if had_run or self._schedule.remove(request_id) is not None:
            self._finish(run, frames.CANCELLED, message="cancelled")
        elif run.running and (run.batch is None or run.batch.cancelled) and self._backend.kind in ("cpu", "simulated"):
            timer = threading.Timer(ZOMBIE_SECONDS, self._replace, (run,))
            timer.daemon = True
            timer.start()

    def _replace(self, run: Run) -> None:
        """A cancelled run that can't be stopped (one long kernel) must not hold up others: a spare takes its place."""
        with self._sparing:
            if not run.running or self._spares >= SPARES:
                return
            self._spares += 1
        self._schedule.widen(1)
        self._start("spare", self._stand_in, run)

    def _stand_in(self, run: Run) -> None:
        self._work(False, lambda: not run.running)
        self._schedule.widen(-1)
        with self._sparing:
            self._spares -= 1

    def _finish(self, run: Run, status: int, outputs: Sequence[TensorPlace] = (), message: str = "") -> None:
        """The last answer of a run. It says when the run began and ended, if it did, whatever came of it."""
        self._last(run, _reply(run, status, outputs, message))

    def _last(self, run: Run, reply: bytes) -> None:
        form: Form = run.form
        self._runs.pop(run.number, None)
        self._answered += 1
        form.busy = False  # before the reply: the next run of this form may be here at once
        if run.cancelled and self._spares:
            self._schedule.wake()
        self._send(reply)
        run.regions = None  # the thread that ran it may keep the run for a while
        model = form.model
        assert model is not None
        if model.leave():
            self._closed(model)

    # -- models ------------------------------------------------------------------------------------------------

    def _load_all(self) -> None:
        while True:
            self._carry_out(self._orders.get())

    def _load_in_background(self) -> None:
        background = Background(pools=self._settings.threads > 1)
        while True:
            order = self._later.get()
            background.begin()
            self._carry_out(order)
            background.end()

    def _carry_out(self, order: Any) -> None:
        if isinstance(order, worker_pb2.Unload):
            model = self._models.pop(order.model, None)
            if model is not None and model.close():
                self._closed(model)
        else:
            self._load(order)

    def _load(self, order: Any) -> None:
        with self._settings.progress.of(order.model):
            self._load_now(order)

    def _load_now(self, order: Any) -> None:
        before, began = resident_bytes(), time.monotonic()
        try:
            loaded_model, rule = load(self._backend, order)
            model = LoadedModel(order.model, loaded_model, limits_of(order))
            tell = self._settings.progress.teller()
            tell("warming up")
            self._control(worker_pb2.ToGateway(warming=worker_pb2.Warming(model=order.model)))
            warmup = model.warm_up(order.warmup_runs)
            if rule is not None:
                tell("golden samples")
            agreement = self._hold_to_golden(order, model, rule)
            begin_anew(loaded_model)
        except LoadError as refused:
            failed = worker_pb2.LoadFailed(model=order.model, reason=refused.reason, message=str(refused))
            return self._control(worker_pb2.ToGateway(load_failed=failed))
        loaded = worker_pb2.Loaded(
            model=order.model,
            platform=model.model.platform,
            inputs=[_spec(spec) for spec in model.model.inputs],
            outputs=[_spec(spec) for spec in model.model.outputs],
            memory_bytes=max(0, resident_bytes() - before),
            load_seconds=time.monotonic() - began,
            warmup_seconds=warmup,
            provenance=model.model.provenance,
            kind=loaded_model.kind if isinstance(loaded_model, RunsElsewhere) else "",
        )
        if agreement is not None:
            loaded.golden, loaded.golden_deviation = agreement.text, agreement.deviation
        self._models[order.model] = model
        self._upkeep.settle()  # a full collection later would stop a run for some 10 ms
        return self._control(worker_pb2.ToGateway(loaded=loaded))

    def _hold_to_golden(self, order: Any, model: LoadedModel, rule: Optional[Rule]) -> Optional[Agreement]:
        """Raises LoadError: it disagrees, and is closed."""
        if rule is None:
            return None
        try:
            return check(order, model.model, rule, self._give_way)
        except LoadError:
            model.close()
            raise

    def _give_way(self, seconds: float) -> None:
        """A run of the loader's own took so long: leave as much time to others, if there are any."""
        if self._schedule.taken or len(self._schedule):
            time.sleep(min(seconds, LONGEST_WAY))

    def _closed(self, model: LoadedModel) -> None:
        self._forms.forget_model(model.handle)
        self._unloaded += 1
        gc.collect()
        self._control(worker_pb2.ToGateway(unloaded=worker_pb2.Unloaded(model=model.handle)))

    # -- telling the gateway -----------------------------------------------------------------------------------

    def _hello(self) -> Any:
        backend = self._backend
        return worker_pb2.Hello(
            backend=backend.name,
            kind=backend.kind,
            pid=os.getpid(),
            instances=self._settings.instances,
            runtime=backend.runtime,
            device=backend.device,
            formats=list(backend.formats),
            can_cancel=backend.can_cancel,
            load_seconds=backend.load_seconds if isinstance(backend, LoadsForLong) else 0.0,
        )

    def _report(self) -> None:
        pause = threading.Event()
        last: Optional[Any] = None
        sent = told = 0.0
        while True:
            heat = self._backend.heat()
            report = worker_pb2.Report(
                temperature_c=math.nan if heat.temperature_c is None else heat.temperature_c,
                queued=len(self._schedule),
                running=self._schedule.taken,
                backlog_seconds=heat.backlog_seconds,
                lost=heat.lost,
                throttled=heat.throttled,
            )
            now = time.monotonic()
            # A backlog melts away in the gateway's eyes, so one that stays is said again.
            if report != last or heat.backlog_seconds or now - sent >= 1.0:
                last, sent = worker_pb2.Report.FromString(report.SerializeToString()), now
                report.resident_bytes = resident_bytes()
                self._control(worker_pb2.ToGateway(report=report))
            if now - told >= LOADING_SECONDS:
                told = now
                self._tell_of_loads()
            self._relieve()
            # A model that went leaves free memory, as a request does.
            self._upkeep.step(now, self._schedule.taken + len(self._schedule), self._answered + self._unloaded)
            pause.wait(REPORT_SECONDS)

    def _tell_of_loads(self) -> None:
        for model, text in self._settings.progress.told(LOADING_SECONDS):
            self._control(worker_pb2.ToGateway(loading=worker_pb2.Loading(model=model, text=text)))

    def _control(self, message: Any) -> None:
        self._send(frames.pack_control(message.SerializeToString()))

    def _send(self, frame: bytes) -> None:
        with self._sending:
            self._write(frame)

    def _write(self, frame: bytes) -> None:
        """Only with ``_sending`` held."""
        try:
            self._socket.send(frame)
        except OSError:
            os._exit(0)  # the gateway is gone

    def _start(self, name: str, work: Any, *arguments: Any) -> None:
        threading.Thread(target=self._guard, args=(work, *arguments), name=name, daemon=True).start()

    def _guard(self, work: Any, *arguments: Any) -> None:
        """A thread of the worker that fails leaves it half dead: end it, so that the gateway starts a whole one."""
        try:
            work(*arguments)
        except BaseException as bug:  # noqa: BLE001 - the edge of a thread: it ends the process
            print(f"worker thread failed: {type(bug).__name__}: {bug}", file=sys.stderr, flush=True)
            os._exit(5)


def _descriptors(ancillary: Sequence[Tuple[int, int, bytes]]) -> List[int]:
    """The descriptors that came with a frame."""
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return list(found)


def _reply(run: Run, status: int, outputs: Sequence[TensorPlace] = (), message: str = "", needed: int = 0) -> bytes:
    return frames.pack_reply(
        Reply(run.number, status, run.received, run.started, run.finished, needed, tuple(outputs), message)
    )


def _room_for(run: Run, outputs: Sequence[Tensor]) -> int:
    """Bytes that the outputs take in a slot."""
    return room_needed(outputs) if run.regions is None else run.regions.room_needed(run.form.wanted, outputs)


def _done(run: Run, places: Sequence[TensorPlace]) -> bytes:
    shared = run.shared if run.shared > 1 else 0
    packed = frames.pack_places(places)
    return frames.pack_done(run.number, run.received, run.started, run.finished, shared, len(places), packed)


def _spec(spec: TensorSpec) -> Any:
    told = worker_pb2.TensorSpec(name=spec.name, datatype=spec.datatype, shape=list(spec.shape))
    if spec.quantisation is not None:
        told.quantization.scale.extend(spec.quantisation.scale)
        told.quantization.zero_point.extend(spec.quantisation.zero_point)
        told.quantization.axis = spec.quantisation.axis
    return told
