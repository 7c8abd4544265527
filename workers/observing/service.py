"""The observer's loop: messages of the gateway in, figures and replies out."""

from __future__ import annotations

import select
import socket
import sqlite3
import struct
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Tuple

from edgeway.v1 import observer_pb2
from workers.observing.labels import LONGEST, Labels
from workers.observing.samples import remove_samples
from workers.observing.version import Version, arrays

LARGEST = 64 * 1024 * 1024
"""Bytes of a message."""
TOLD_EVERY = 0.2
"""Seconds between two reports of figures, at least."""
_LENGTH = struct.Struct("<I")
_CHUNK = 1 << 20


class Frames:
    """Messages cut out of a stream."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The messages that are whole now. Raises ValueError: one is too large, and all that follows is lost."""
        self._buffer += data
        at = 0
        while len(self._buffer) - at >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer, at)
            if length > LARGEST:
                raise ValueError(f"a message of {length} bytes")
            if len(self._buffer) - at - _LENGTH.size < length:
                break
            at += _LENGTH.size
            yield bytes(self._buffer[at : at + length])
            at += length
        del self._buffer[:at]


class Service:
    """Serves one gateway until it closes the stream."""

    def __init__(self, connection: socket.socket, labels: Labels) -> None:
        self._connection = connection
        self._labels = labels
        self._versions: Dict[Tuple[str, str], Version] = {}
        self._said = ""

    def serve(self) -> None:
        frames = Frames()
        due = 0.0
        while True:
            waiting = any(version.changed for version in self._versions.values())
            limit = max(0.0, due - time.monotonic()) if waiting else None
            if select.select([self._connection], [], [], limit)[0]:
                data = self._connection.recv(_CHUNK)
                if not data:
                    return
                for frame in frames.feed(data):
                    self._take(observer_pb2.ToObserver.FromString(frame))
                self._guarded(self._labels.commit)
            if time.monotonic() >= due:
                due = time.monotonic() + TOLD_EVERY
                self._tell()

    def _take(self, message: observer_pb2.ToObserver) -> None:
        kind = message.WhichOneof("message")
        if kind == "forget":
            self._versions.pop((message.forget.model, message.forget.version), None)
            self._guarded(self._labels.forget, message.forget.model, message.forget.version)
            self._guarded(remove_samples, Path(message.forget.samples))
        elif kind == "label":
            self._label(message.label)
        elif kind is not None:
            self._guarded(getattr(self, f"_{kind}"), getattr(message, kind))

    def _watch(self, watch: observer_pb2.Watch) -> None:
        try:
            version = Version(watch)
        except OSError as failed:
            self._say(f"{watch.samples}: no samples are kept: {failed.strerror}")
            watch.samples = ""
            version = Version(watch)
        version.changed = True
        self._versions[watch.model, watch.version] = version

    def _answered(self, answer: observer_pb2.Observed) -> None:
        version = self._versions.get((answer.model, answer.version))
        if version is None:
            return
        tensors = arrays(answer.tensors)
        version.answered(tensors)
        prediction = version.prediction(tensors) if answer.request_id else None
        if prediction is not None:
            self._labels.answered(answer.model, answer.version, answer.request_id, prediction)

    def _compared(self, pair: observer_pb2.Compared) -> None:
        version = self._versions.get((pair.model, pair.version))
        if version is not None:
            version.compared(arrays(pair.real), arrays(pair.shadow))

    def _inputs(self, inputs: observer_pb2.Observed) -> None:
        version = self._versions.get((inputs.model, inputs.version))
        if version is not None and version.samples is not None:
            version.samples.keep(inputs.request_id, arrays(inputs.tensors))

    def _label(self, label: observer_pb2.Label) -> None:
        reply = observer_pb2.Labelled(number=label.number)
        try:
            if len(label.label) > LONGEST:
                raise ValueError(f"a label has at most {LONGEST} characters, this one {len(label.label)}")
            match = self._labels.label(label.model, label.request_id, label.label)
        except (sqlite3.Error, ValueError) as failed:
            reply.problem = str(failed)
        else:
            reply.found = match is not None
            if match is not None:
                reply.version, reply.predicted, reply.right = match
                version = self._versions.get((label.model, match.version))
                if version is not None:
                    version.changed = True
        self._send(observer_pb2.FromObserver(labelled=reply))

    def _tell(self) -> None:
        for (model, name), version in self._versions.items():
            if version.changed:
                version.changed = False
                figures = version.figures()
                try:
                    right, total = self._labels.accuracy(model, name, version.watch.feedback_window)
                except sqlite3.Error as failed:
                    self._say(f"labels: {failed}")
                else:
                    if total:
                        figures.accuracy.good, figures.accuracy.total = right, total
                self._send(observer_pb2.FromObserver(figures=figures))

    def _send(self, message: observer_pb2.FromObserver) -> None:
        frame = message.SerializeToString()
        self._connection.sendall(_LENGTH.pack(len(frame)) + frame)

    def _guarded(self, step: Callable[..., object], *given: Any) -> None:
        try:
            step(*given)
        except Exception as failed:  # noqa: BLE001 - the edge of the process: one odd answer must not cost the others
            self._say(f"{type(failed).__name__}: {failed}")

    def _say(self, problem: str) -> None:
        """On stderr, which the gateway logs; the same thing once."""
        if problem != self._said:
            self._said = problem
            print(problem, file=sys.stderr, flush=True)
