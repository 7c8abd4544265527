"""Rounds: every server that takes part is asked in turn, in another order each time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from benchmarks.peers import environments
from benchmarks.peers.client import Client, Refused
from benchmarks.peers.loads import LOADS
from benchmarks.peers.rows import Figure, Row
from benchmarks.peers.servers import Failed, Server

OURS = "edgeway"
CONTROLS = {"small": ("echo", "echo-again", "direct"), "frame": ("direct",), "big": ("direct",), "vision": ("direct",)}
"""Beside the rows of a load: a bare echo against itself, and the model in a bare server."""
RATE = 60.0
START_LIMIT = 60.0
POLL = 0.005
NOT_OFFERED = {"UNIMPLEMENTED", "PERMISSION_DENIED"}


@dataclass(frozen=True)
class Lengths:
    """Of the parts of a round, in seconds."""

    loop: float = 2.0
    warm: float = 0.3
    open: float = 60.0


@dataclass
class Samples:
    """Values by server, kind and load, one a round; and why there are none."""

    values: dict[tuple[str, str, str], list[float]] = field(default_factory=dict)
    missing: dict[tuple[str, str], str] = field(default_factory=dict)
    """By server and load; load empty: the whole server."""
    notes: dict[str, float] = field(default_factory=dict)

    def add(self, server: str, kind: str, load: str, value: float) -> None:
        self.values.setdefault((server, kind, load), []).append(value)

    def why(self, server: str, load: str) -> str:
        return self.missing.get((server, ""), "") or self.missing.get((server, load), "")

    def figure(self, row: Row) -> Figure:
        """Both sides of a row."""
        reasons = [why for server in (OURS, row.peer) if (why := self.why(server, row.load))]
        ours, theirs = (self.values.get((server, row.kind, row.load), []) for server in (OURS, row.peer))
        if reasons:
            return Figure(missing="; ".join(reasons))
        if not ours or len(ours) != len(theirs):
            return Figure(missing="no round of it was whole")
        return Figure(tuple(ours), tuple(theirs))


def takers(rows: Sequence[Row], kinds: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Load -> servers that are asked it for rows of these kinds, Edgeway first."""
    found: dict[str, tuple[str, ...]] = {}
    for row in rows:
        if row.kind in kinds:
            held = found.get(row.load, (OURS,))
            found[row.load] = held if row.peer in held else (*held, row.peer)
    return found


def turned(servers: Sequence[str], number: int) -> list[str]:
    """The servers, beginning with another one each round."""
    first = number % len(servers)
    return [*servers[first:], *servers[:first]]


def duration(rows: Sequence[Row], rounds: int, lengths: Lengths) -> float:
    """Seconds that the measuring takes, about."""
    each = 0.0
    for load, servers in takers(rows, ["latency", "cpu"]).items():
        each += (len(servers) + len(CONTROLS.get(load, ()))) * (lengths.loop + lengths.warm)
    for servers in takers(rows, ["open"]).values():
        each += (len(servers) + 1) * (lengths.open + lengths.warm)
    for servers in takers(rows, ["memory", "start"]).values():
        each += len(servers) * 6.0 * (rounds + 1) / rounds
    return each * rounds


class Run:
    """All servers and the client, on their CPUs."""

    def __init__(
        self, models: Path, work: Path, cpus: tuple[int, int], lengths: Lengths, samples: Samples | None = None
    ) -> None:
        self.samples = samples or Samples()
        self._models = models
        self._work = work
        self._cpu = cpus[0]
        self._lengths = lengths
        self._client = Client(models, cpus[1])
        self._servers: dict[str, Server] = {}
        self._collector = ""

    def measure(self, rows: Sequence[Row], rounds: int, step: Callable[[str, float], None]) -> Samples:
        """Every round of every row. ``step(what, seconds)`` is told what is next and how long it takes."""
        with collector() as (address, received):
            self._collector = address
            self._starts(rows, rounds, step)
            loops, opens = takers(rows, ["latency", "cpu"]), takers(rows, ["open"])
            wanted = {s for group in (*loops.values(), *opens.values()) for s in group}
            if wanted:
                controls = {"echo", "direct"} if loops or opens else set()
                self._begin(sorted(wanted | controls), step)
            for number in range(rounds):
                for load, servers in loops.items():
                    for server in turned((*servers, *CONTROLS.get(load, ())), number):
                        step(f"round {number + 1}: {load} {server}", self._lengths.loop + self._lengths.warm)
                        self._loop(server, load)
                for load, servers in opens.items():
                    for server in turned((*servers, "direct"), number):
                        step(f"round {number + 1}: open loop {server}", self._lengths.open + self._lengths.warm)
                        self._open(server, load, number)
            for name, server in self._servers.items():
                self.samples.notes[f"{name}MemoryAfterLoadMB"] = server.proportional_mb()
            self.samples.notes["traceExports"] = float(len(received))
        return self.samples

    def _begin(self, names: Sequence[str], step: Callable[[str, float], None]) -> None:
        """Start those that stay for all rounds, and see that their answers are right."""
        for name in names:
            if self.samples.why(name, ""):
                continue
            step(f"start {name}", 0.0)
            self._servers[name] = Server(name, self._models, self._work, self._cpu, self._collector)
            try:
                self._first_answer(self._servers[name])
                loads = [load for load in LOADS if name != "echo" or load == "small"]
                for load in loads:
                    self._check(name, load)
            except Failed as failed:
                self.samples.missing[name, ""] = str(failed)
                self._servers.pop(name).stop()

    def _starts(self, rows: Sequence[Row], rounds: int, step: Callable[[str, float], None]) -> None:
        """Servers alone on the machine: time to the first answer, memory once each model has answered."""
        for servers in takers(rows, ["memory", "start"]).values():
            for number in range(rounds + 1):  # the first fills the page cache and does not count
                for name in turned(servers, number):
                    step(f"start {number}: {name}" if number else f"start {name}", 6.0)
                    if not self.samples.why(name, ""):
                        self._start(name, counts=number > 0)

    def _start(self, name: str, counts: bool) -> None:
        server = Server(name, self._models, self._work, self._cpu, self._collector)
        try:
            took = self._first_answer(server)
            for load in LOADS:
                if not LOADS[load].shared:
                    self._until_right(server, load)
            if counts:
                self.samples.add(name, "start", "", took)
                self.samples.add(name, "memory", "", server.proportional_mb())
        except Failed as failed:
            self.samples.missing[name, ""] = str(failed)
        finally:
            server.stop()

    def _first_answer(self, server: Server) -> float:
        """Seconds from launch to the first right answer of the small model."""
        while not server.listens():
            self._patience(server)
            time.sleep(POLL)
        self._until_right(server, "small")
        return time.perf_counter() - server.began

    def _until_right(self, server: Server, load: str) -> None:
        while True:
            try:
                self._client.ask(do="check", address=server.address, load=load, fresh=True)
            except Refused as refused:
                self._patience(server, str(refused))
                time.sleep(POLL)
            else:
                return

    def _patience(self, server: Server, last: str = "it does not listen") -> None:
        server.listens()
        if time.perf_counter() - server.began > START_LIMIT:
            raise Failed(f"{server.name} gave no right answer within {START_LIMIT:g} s: {last[:200]}")

    def _check(self, name: str, load: str) -> None:
        """Whether it answers this rightly; a server that offers no shared memory lacks only those rows."""
        if not LOADS[load].shared:
            self._until_right(self._servers[name], load)
            return
        try:
            self._client.ask(do="check", address=self._servers[name].address, load=load)
        except Refused as refused:
            offered = refused.code not in NOT_OFFERED
            self.samples.missing[name, load] = f"{name}: {refused}"[:200] if offered else f"not offered by {name}"

    def _loop(self, who: str, load: str) -> None:
        name = who.removesuffix("-again")
        if self.samples.why(name, load):
            return
        server = self._servers[name]
        task = {"do": "loop", "address": server.address, "load": load}
        try:
            self._client.ask(**task, seconds=self._lengths.warm)
            before = server.processor_seconds()
            result = self._client.ask(**task, seconds=self._lengths.loop)
            used = server.processor_seconds() - before
        except Refused as refused:
            self.samples.missing[name, load] = f"{name}: {refused}"[:200]
            return
        self.samples.add(who, "latency", load, result["p50"])
        self.samples.add(who, "p99", load, result["p99"])
        self.samples.add(who, "cpu", load, used / result["calls"] * 1e3)

    def _open(self, name: str, load: str, number: int) -> None:
        if self.samples.why(name, load):
            return
        address = self._servers[name].address
        try:
            self._client.ask(do="loop", address=address, load=load, seconds=self._lengths.warm)
            result = self._client.ask(do="open", address=address, load=load, **plan(number, self._lengths.open))
        except Refused as refused:
            self.samples.missing[name, load] = f"{name}: {refused}"[:200]
            return
        self.samples.add(name, "open", load, result["p99"])
        self.samples.add(name, "openP50", load, result["p50"])
        self.samples.add(name, "openErrors", load, result["errors"])
        self.samples.add(name, "openClientLateMs", load, result["late"])

    def close(self) -> None:
        self._client.close()
        for server in self._servers.values():
            server.stop()


def plan(number: int, seconds: float) -> dict[str, float]:
    """Arrivals of a round's open loop: the same for every server, others in the next round."""
    return {"rate": RATE, "seconds": seconds, "seed": number + 1}


@contextlib.contextmanager
def collector() -> Iterator[tuple[str, list[int]]]:
    """(URL, sizes of the exports received) of an OpenTelemetry collector that throws everything away."""
    received: list[int] = []

    def export(content: bytes, context: object) -> bytes:
        del context
        received.append(len(content))
        return b""

    server = grpc.server(ThreadPoolExecutor(1))
    handler = grpc.method_handlers_generic_handler(
        "opentelemetry.proto.collector.trace.v1.TraceService", {"Export": grpc.unary_unary_rpc_method_handler(export)}
    )
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"http://127.0.0.1:{port}", received
    finally:
        server.stop(None)


def installed(rows: Sequence[Row], samples: Samples, said: Callable[[str], None]) -> dict[str, dict[str, str]]:
    """Make the environments that the rows need; versions by server. What cannot be had is noted as missing."""
    found = {}
    for name in (OURS, *dict.fromkeys(row.peer for row in rows)):
        said(f"environment of {name}")
        try:
            environments.ready(name)
            found[name] = environments.versions(name)
        except environments.Missing as missing:
            samples.missing[name, ""] = f"{name} cannot be installed: {missing}"
    return found
