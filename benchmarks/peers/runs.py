"""Rounds: every server that takes part is asked in turn, in another order each time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

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
START_LIMIT = 120.0
POLL = 0.005
EVERYTHING = "*"
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
    """By server and load; load empty: of the starts; ``EVERYTHING``: it is not installed."""
    notes: dict[str, float] = field(default_factory=dict)

    def add(self, server: str, kind: str, load: str, value: float) -> None:
        self.values.setdefault((server, kind, load), []).append(value)

    def why(self, server: str, load: str) -> str:
        return self.missing.get((server, EVERYTHING), "") or self.missing.get((server, load), "")

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
    first = number % max(1, len(servers))
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
    """The client, and the servers as they are needed."""

    def __init__(
        self, client: Client, launch: Callable[[str, str], Server], lengths: Lengths, samples: Samples | None = None
    ) -> None:
        """``launch(name, collector)`` starts a server, told where its traces go."""
        self.samples = samples or Samples()
        self._client = client
        self._launch = launch
        self._lengths = lengths
        self._servers: dict[str, Server] = {}
        self._collector = ""

    def measure(self, rows: Sequence[Row], rounds: int, step: Callable[[str, float], None]) -> Samples:
        """Every round of every row. ``step(what, seconds)`` is told what is next and how long it takes."""
        with collector() as (address, received):
            self._collector = address
            self._starts(rows, rounds, step)
            for kinds, ask, seconds in (
                (["latency", "cpu"], self._loop, self._lengths.loop),
                (["open"], self._open, self._lengths.open),
            ):
                for load, servers in takers(rows, kinds).items():
                    with self._serving((*servers, *CONTROLS.get(load, ())), load, step) as present:
                        for number, name in ((n, each) for n in range(rounds) for each in turned(present, n)):
                            step(f"{kinds[0]} {load}, round {number + 1}: {name}", seconds + self._lengths.warm)
                            if not self.samples.why(process_of(name), load):
                                ask(name, load, number)
            self.samples.notes["traceExports"] = float(len(received))
        return self.samples

    @contextlib.contextmanager
    def _serving(
        self, names: Sequence[str], load: str, step: Callable[[str, float], None]
    ) -> Iterator[tuple[str, ...]]:
        """Servers that have seen nothing but this load, and its answer is right; those of the names that came up.

        They are not those of another load, because an allocator remembers: once it has served 4.9 MB, KServe takes
        half as long for 0.9 MB as one that has only ever seen 0.9 MB, which is what a camera sends.
        """
        try:
            for name in dict.fromkeys(map(process_of, names)):
                if self.samples.why(name, load):
                    continue
                step(f"{load}: start {name}", 0.0)
                self._servers[name] = self._launch(name, self._collector)
                try:
                    self._listening(self._servers[name])
                    self._check(self._servers[name], load)
                except Failed as failed:
                    self.samples.missing[name, load] = str(failed)
            yield tuple(name for name in names if not self.samples.why(process_of(name), load))
            for name, server in self._servers.items():
                if not self.samples.why(name, load):
                    self.samples.notes[f"{name} {load} memory after load, MB"] = server.proportional_mb()
        finally:
            while self._servers:
                self._servers.popitem()[1].stop()

    def _starts(self, rows: Sequence[Row], rounds: int, step: Callable[[str, float], None]) -> None:
        """Servers alone on the machine: time to the first answer, memory once each model has answered."""
        for servers in takers(rows, ["memory", "start"]).values():
            for number in range(rounds + 1):  # the first fills the page cache and does not count
                for name in turned(servers, number):
                    step(f"start {number}: {name}" if number else f"start {name}", 6.0)
                    if not self.samples.why(name, ""):
                        self._start(name, counts=number > 0)

    def _start(self, name: str, counts: bool) -> None:
        server = self._launch(name, self._collector)
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
        self._listening(server)
        self._until_right(server, "small")
        return time.perf_counter() - server.began

    def _listening(self, server: Server) -> None:
        while not server.listens():
            self._patience(server)
            time.sleep(POLL)

    def _until_right(self, server: Server, load: str) -> None:
        while True:
            try:
                self._client.ask(do="check", address=server.address, load=load, fresh=True)
            except Refused as refused:
                if LOADS[load].shared and refused.code in NOT_OFFERED:
                    raise
                self._patience(server, str(refused))
                time.sleep(POLL)
            else:
                return

    def _patience(self, server: Server, last: str = "it does not listen") -> None:
        server.listens()
        if time.perf_counter() - server.began > START_LIMIT:
            raise Failed(f"{server.name} gave no right answer within {START_LIMIT:g} s: {last[:200]}")

    def _check(self, server: Server, load: str) -> None:
        """Its answer is right; a server that offers no shared memory lacks only that row."""
        try:
            self._until_right(server, load)
        except Refused:
            self.samples.missing[server.name, load] = f"not offered by {server.name}"

    def _loop(self, name: str, load: str, number: int) -> None:
        del number
        server = self._servers[process_of(name)]
        task = {"do": "loop", "address": server.address, "load": load}
        try:
            self._client.ask(**task, seconds=self._lengths.warm)
            before = server.processor_seconds()
            result = self._client.ask(**task, seconds=self._lengths.loop)
            used = server.processor_seconds() - before
        except (Refused, Failed) as refused:
            self.samples.missing[server.name, load] = f"{name}: {refused}"[:200]
            return
        self.samples.add(name, "latency", load, result["p50"])
        self.samples.add(name, "p99", load, result["p99"])
        self.samples.add(name, "cpu", load, used / result["calls"] * 1e3)

    def _open(self, name: str, load: str, number: int) -> None:
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


def process_of(name: str) -> str:
    """The server behind a name: ``echo-again`` is the echo once more."""
    return name.removesuffix("-again")


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
            samples.missing[name, EVERYTHING] = f"{name} cannot be installed: {missing}"
    return found
