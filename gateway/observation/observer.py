"""Observer: the gateway's view of the process that looks at what versions answer. It is never waited for on the way of
a request: what it has no room for is dropped, and counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from edgeway.v1 import observer_pb2
from gateway.dispatch.launch import Inherited, inherited, source_roots
from gateway.dispatch.supervisor import restart_delay
from gateway.errors import InvalidRequest, NotFound, Shed, Unavailable
from gateway.observation.figures import Accuracy, Agreement, Drift, Figures, Labelled, Seen, Watched

BACKLOG = 16 * 1024 * 1024
"""Bytes that may wait for the observer."""
UNASKED = 4 * 1024 * 1024
"""Bytes of the newest answers with an id that wait for the first label, which starts the process: where nobody sends
any, none is needed."""
LARGEST = 8 * 1024 * 1024
"""Bytes of one observation; larger answers are not looked at."""
NICE = 10
"""How far behind the gateway it runs: one part in ten of a core that others want too."""
LABEL_LIMIT = 10.0
"""Seconds that a label may take (1 ms measured, 0.4 s where the process has to be started); one that takes longer shows
that the process hangs, and it is replaced."""
MOST_LABELS = 10_000
"""That may be on their way."""
LONGEST_LABEL = 256
"""Characters."""
SERVED = 5.0
"""Seconds that a process has to live for its death to be followed by a new one at once."""
STOP_LIMIT = 2.0
_LONGEST_REPLY = 1024 * 1024
_LENGTH = struct.Struct("<I")
_PROGRAM = (
    "import runpy, sys; del sys.path[0]; runpy.run_module('workers.observer', run_name='__main__', alter_sys=True)"
)

log = logging.getLogger(__name__)
Key = tuple[str, str]
"""Model and version."""


class Observer:
    """Keeps the process alive between ``start`` and ``stop``, once something needs it."""

    def __init__(
        self,
        state_dir: Path,
        changed: Callable[[str, str, Figures], None] = lambda model, version, figures: None,
        given: Inherited | None = None,
        backlog: int = BACKLOG,
    ) -> None:
        """``changed(model, version, figures)`` hears of new figures; ``given``: what the gateway had before it set
        anything for itself; ``backlog``: bytes.
        """
        self.changed = changed
        self.figures: dict[Key, Figures] = {}
        self.dropped = 0
        """Observations that were too large, or for which there was no room."""
        self.pid = 0
        """0 while none is up."""
        self._state_dir = state_dir
        self._database = state_dir / "observer" / "labels.sqlite"
        self._given = given or inherited()
        self._backlog = backlog
        self._watched: dict[Key, Watched] = {}
        self._seen: dict[Key, int] = {}
        """Requests since the last one whose inputs were kept."""
        self._early: deque[bytes] = deque()
        """Observations for a process that is starting."""
        self._early_bytes = 0
        self._forgotten: list[bytes] = []
        self._labels: dict[int, tuple[asyncio.Future[observer_pb2.Labelled], bytes]] = {}
        """By number of the reply: who waits, and the label, which the next process gets if this one dies."""
        self._numbers = 0
        self._writer: asyncio.StreamWriter | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._started = False

    def start(self) -> None:
        """Allow the process; it is there some 0.4 s after the first thing that needs it."""
        self._started = True
        if any(self._needs(watched) for watched in self._watched.values()):
            self._ensure()

    async def stop(self) -> None:
        """Have it end, and wait until it is gone. What waits for a label hears that there is none."""
        self._started = False
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
            self._keeper = None
        for future, _ in self._labels.values():
            if not future.done():
                future.set_result(observer_pb2.Labelled(problem="the gateway is draining"))

    def watch(self, model: str, version: str, watched: Watched) -> None:
        """Observe a version, or observe it by other settings: then its drift begins anew."""
        key = model, version
        if self._watched.get(key) == watched:
            return
        self._watched[key] = watched
        known = self.figures.get(key, Figures())
        why = f"no drift score: {watched.no_reference}" if watched.no_reference else ""
        if watched.reference is not None:
            why = f"no drift score yet: it needs {watched.drift_window} answers"
        self.figures[key] = Figures(known.agreement, known.accuracy, Drift(None, 0, False, why) if why else None)
        if self._writer is not None:
            self._write(self._watch_frame(key))
        elif self._needs(watched):
            self._ensure()

    def forget(self, model: str, version: str) -> None:
        """Observe it no more, and delete what is known of it, labels and samples: for a version that was deleted."""
        key = model, version
        watched = self._watched.get(key)
        kept = watched.samples.folder if watched is not None and watched.samples is not None else None
        folder = kept or self._state_dir / "samples" / model / version
        self._watched.pop(key, None)
        self.figures.pop(key, None)
        self._seen.pop(key, None)
        forget = observer_pb2.Forget(model=model, version=version, samples=str(folder))
        frame = _frame(observer_pb2.ToObserver(forget=forget))
        if self._writer is not None:
            self._write(frame)
        elif self._database.exists() or folder.exists():
            self._forgotten.append(frame)
            self._ensure()

    def wants(self, model: str, version: str, request_id: str) -> bool:
        """Whether ``answered`` would do anything with such an answer, so that nobody copies one for nothing."""
        watched = self._watched.get((model, version))
        return watched is not None and (bool(request_id) or watched.reference is not None)

    def answered(self, model: str, version: str, request_id: str, outputs: Sequence[Seen]) -> None:
        """An answer of a version. ``request_id``: by which the caller may send a label; empty: it can't."""
        watched = self._watched.get((model, version))
        if watched is None or not (request_id or watched.reference is not None):
            return
        self._observe(
            outputs,
            lambda tensors: observer_pb2.ToObserver(
                answered=observer_pb2.Observed(
                    model=model, version=version, request_id=request_id, tensors=_tensors(tensors)
                )
            ),
            watched.names(bool(request_id)),
            eager=watched.reference is not None,
        )

    def compared(self, model: str, version: str, real: Sequence[Seen], shadow: Sequence[Seen]) -> None:
        """The answer that a caller got, and that of ``version``, which had a copy of the request."""
        if (model, version) in self._watched:
            self._observe(
                (*real, *shadow),
                lambda _: observer_pb2.ToObserver(
                    compared=observer_pb2.Compared(
                        model=model, version=version, real=_tensors(real), shadow=_tensors(shadow)
                    )
                ),
            )

    def sample_due(self, model: str, version: str) -> bool:
        """Whether the inputs of this request are to be kept; to be asked once for each. The first one is."""
        watched = self._watched.get((model, version))
        if watched is None or watched.samples is None:
            return False
        seen = self._seen.get((model, version), 0)
        self._seen[model, version] = (seen + 1) % watched.samples.every
        return seen == 0

    def inputs(self, model: str, version: str, request_id: str, inputs: Sequence[Seen]) -> None:
        """The inputs of a request of which ``sample_due`` was true."""
        watched = self._watched.get((model, version))
        if watched is not None and watched.samples is not None:
            self._observe(
                inputs,
                lambda tensors: observer_pb2.ToObserver(
                    inputs=observer_pb2.Observed(
                        model=model, version=version, request_id=request_id, tensors=_tensors(tensors)
                    )
                ),
            )

    async def label(self, model: str, request_id: str, label: str) -> Labelled:
        """What turned out to be true of the request with this id; kept when this returns.

        Raises:
            NotFound: no answer to it is remembered.
            InvalidRequest: the label is empty or too long.
            Shed: too many labels are on their way.
            Unavailable: the observer could not take it; it is not kept, and may be sent again.
        """
        if not label.strip() or len(label) > LONGEST_LABEL:
            raise InvalidRequest(f"label: expected 1 to {LONGEST_LABEL} characters, got {len(label)}")
        if not request_id:
            raise InvalidRequest("requestId: expected the id that the request had, got none")
        if len(self._labels) >= MOST_LABELS:
            raise Shed(f"{MOST_LABELS} labels are on their way already")
        if not self._started:
            raise Unavailable("the gateway is draining")
        self._numbers += 1
        number = self._numbers
        told = observer_pb2.Label(number=number, model=model, request_id=request_id, label=label)
        frame = _frame(observer_pb2.ToObserver(label=told))
        replied: asyncio.Future[observer_pb2.Labelled] = asyncio.get_running_loop().create_future()
        self._labels[number] = replied, frame
        try:
            self._ensure()
            if self._writer is not None:
                self._write(frame)
            done, _ = await asyncio.wait([replied], timeout=LABEL_LIMIT)
        finally:
            del self._labels[number]
        if not done:
            if self._process is not None:
                self._process.kill()
            raise Unavailable(f"the observer did not take the label within {LABEL_LIMIT:g} s; send it again")
        reply = replied.result()
        if reply.problem:
            raise Unavailable(f"the label is not kept: {reply.problem}; send it again")
        if not reply.found:
            raise NotFound(f"{model}: no answer with the request id {request_id!r} is remembered")
        return Labelled(reply.version, reply.predicted, reply.right)

    def _needs(self, watched: Watched) -> bool:
        """Whether there is something to tell before the first observation comes."""
        return watched.reference is not None or watched.samples is not None or self._database.exists()

    def _ensure(self) -> None:
        if self._started and self._keeper is None:
            self._keeper = asyncio.get_running_loop().create_task(self._keep(), name="keeper of the observer")

    def _observe(
        self,
        tensors: Sequence[Seen],
        message: Callable[[Sequence[Seen]], observer_pb2.ToObserver],
        names: frozenset[str] | None = None,
        eager: bool = True,
    ) -> None:
        """Send what was seen, those with these names, if there is room for it. Not ``eager``: only if a process is up;
        else it waits for the first that is.
        """
        chosen = tensors if names is None else [tensor for tensor in tensors if tensor.name in names]
        size = sum(len(tensor.data) for tensor in chosen)
        waiting = self._early_bytes if self._writer is None else self._writer.transport.get_write_buffer_size()
        if size > LARGEST or size + waiting > self._backlog:
            self.dropped += 1
            return
        if not chosen:
            return
        if eager:
            self._ensure()
        frame = _frame(message(chosen))
        if self._writer is not None:
            self._write(frame)
            return
        self._early.append(frame)
        self._early_bytes += len(frame)
        while self._keeper is None and self._early_bytes > UNASKED:
            self._early_bytes -= len(self._early.popleft())

    def _write(self, frame: bytes) -> None:
        assert self._writer is not None
        if not self._writer.transport.is_closing():
            self._writer.write(frame)

    def _watch_frame(self, key: Key) -> bytes:
        watched, known = self._watched[key], self.figures[key].agreement
        watch = observer_pb2.Watch(
            model=key[0],
            version=key[1],
            reference=str(watched.reference or ""),
            drift_output=watched.drift_output or "",
            drift_window=watched.drift_window,
            max_drift=watched.max_drift,
            feedback_output=watched.feedback_output or "",
            feedback_window=watched.feedback_window,
        )
        check = watched.check
        if check.tolerance is not None:
            watch.rule.rtol, watch.rule.atol = check.tolerance.rtol, check.tolerance.atol
        if check.top1 is not None:
            watch.rule.top1 = check.top1
        if check.cosine is not None:
            watch.rule.cosine = check.cosine
        if watched.samples is not None:
            watch.samples, watch.sample_bytes = str(watched.samples.folder), watched.samples.max_bytes
        if known is not None:
            watch.agreement.good, watch.agreement.total = known.agreed, known.total
        return _frame(observer_pb2.ToObserver(watch=watch))

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        deaths = 0
        while True:
            began = loop.time()
            why = await self._one_life()
            deaths = 0 if loop.time() - began >= SERVED else deaths + 1
            log.warning("observer: %s", why)
            await asyncio.sleep(restart_delay(deaths))

    async def _one_life(self) -> str:
        """Run one process to its end; why it ended."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._process = process = self._launch(theirs)
        except OSError as failed:
            ours.close()
            return f"it can't start: {failed}"
        finally:
            theirs.close()
        self.pid = process.pid
        said = asyncio.create_task(_say(process))
        ended = _end_of(process)
        try:
            reader, self._writer = await asyncio.open_connection(sock=ours)
            for frame in self._first():
                self._writer.write(frame)
            await self._read(reader)
        finally:
            if self._writer is not None:
                self._writer.close()  # which ends it, if it has not ended
                self._writer = None
            await asyncio.wait([ended], timeout=0.0 if self._started else STOP_LIMIT)
            process.kill()
            await asyncio.wait([ended])
            self._process, self.pid = None, 0
            said.cancel()
            await asyncio.wait([said])
        return f"it ended with exit code {process.wait()}"

    def _first(self) -> Iterable[bytes]:
        """What a new process is told before all else."""
        early, self._early, self._early_bytes = self._early, deque(), 0
        forgotten, self._forgotten = self._forgotten, []
        yield from forgotten
        yield from (self._watch_frame(key) for key in self._watched)
        yield from early
        yield from [frame for _, frame in self._labels.values()]

    def _launch(self, theirs: socket.socket) -> subprocess.Popen[bytes]:
        settings = {
            "parentPid": os.getpid(),
            "nice": self._given.nice + NICE,
            "cpus": list(self._given.cpus),
            "database": str(self._database),
        }
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(source_roots())}
        environment.pop("NOTIFY_SOCKET", None)
        link = str(theirs.fileno())
        return subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, "--link-fd", link, "--settings", json.dumps(settings)],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment,
        )

    async def _read(self, reader: asyncio.StreamReader) -> None:
        """Take its messages until the stream ends."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
                if length > _LONGEST_REPLY:
                    return
                message = observer_pb2.FromObserver.FromString(await reader.readexactly(length))
                if message.WhichOneof("message") == "labelled":
                    waiting = self._labels.get(message.labelled.number)
                    if waiting is not None and not waiting[0].done():
                        waiting[0].set_result(message.labelled)
                else:
                    self._learn(message.figures)

    def _learn(self, told: observer_pb2.VersionFigures) -> None:
        """Take new figures; what a new process does not know yet stays as it was."""
        key = told.model, told.version
        known = self.figures.get(key)
        if known is None:
            return
        agreement, accuracy, drift = known.agreement, known.accuracy, known.drift
        if told.HasField("agreement"):
            agreement = Agreement(told.agreement.good, told.agreement.total)
        if told.HasField("accuracy"):
            accuracy = Accuracy(told.accuracy.good, told.accuracy.total)
        if told.HasField("drift"):
            score = told.drift.score if told.drift.HasField("score") else None
            drift = Drift(score, told.drift.answers, told.drift.alarm, told.drift.detail)
        figures = Figures(agreement, accuracy, drift)
        if figures != known:
            self.figures[key] = figures
            self.changed(*key, figures)

    def __repr__(self) -> str:
        return f"<Observer pid {self.pid}, {len(self._watched)} versions, {self.dropped} dropped>"


def _tensors(seen: Sequence[Seen]) -> list[observer_pb2.ObservedTensor]:
    return [
        observer_pb2.ObservedTensor(name=one.name, datatype=one.datatype, shape=one.shape, data=bytes(one.data))
        for one in seen
    ]


def _frame(message: observer_pb2.ToObserver) -> bytes:
    content = message.SerializeToString()
    return _LENGTH.pack(len(content)) + content


def _end_of(process: subprocess.Popen[bytes]) -> asyncio.Future[None]:
    """Resolves when the process has ended."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    pidfd = os.pidfd_open(process.pid)

    def died() -> None:
        loop.remove_reader(pidfd)
        os.close(pidfd)
        ended.set_result(None)

    loop.add_reader(pidfd, died)
    return ended


async def _say(process: subprocess.Popen[bytes]) -> None:
    """Log what it says."""
    assert process.stderr is not None
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), process.stderr
    )
    try:
        while said := await reader.read(64 * 1024):
            log.warning("observer: %s", said.decode("utf-8", "replace").strip())
    finally:
        transport.close()
