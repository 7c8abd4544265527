"""Rounds: each variant is started anew beside the base, and the two are measured in turn, cell by cell."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.front.bootstrap import Change
from benchmarks.front.callers import MODEL, Callers
from benchmarks.front.variants import BASE, SIZES, Variant
from benchmarks.harness import Gateway, model_of, put, scratch, value

UNKNOWN_EXPERIMENT = "Unknown experiment"
"""What gRPC says on stderr, and then goes on without."""

SETTLE_SECONDS = 0.7
"""Of each size, before a front is measured; at 4.9 MB that is some 200 requests."""


class NotHere(Exception):
    """This machine can't have the variant; the message says why."""


@dataclass(frozen=True)
class Figures:
    """One variant in one cell of one round."""

    p50: float
    """Seconds."""
    rate: float
    """Answers per second."""
    processor: float
    """Seconds of processor time per request, of all its gateway processes; not of the workers."""
    faults: float
    """Minor page faults per request, of the same."""
    failed: int = 0


@dataclass(frozen=True)
class Pair:
    """Base and variant in one cell of one round, one right after the other."""

    variant: str
    size: str
    clients: int
    base: Figures
    other: Figures


@dataclass
class Process(Gateway):
    """``edgeway serve`` in a changed process."""

    change: Change = field(default_factory=Change)

    def command(self) -> list[str]:
        python, _, _, *serve = super().command()
        return [python, "-m", "benchmarks.front.bootstrap", self.change.to_json(), *serve]


@dataclass(frozen=True)
class Front:
    """A variant that runs."""

    variant: Variant
    processes: Sequence[Process]

    @property
    def addresses(self) -> list[str]:
        if self.variant.unix:
            return [process.unix for process in self.processes]
        found = [process.address for process in self.processes]
        return found[:1] if self.variant.shared_port else found

    def spent(self) -> tuple[float, int]:
        """(seconds of processor time, minor page faults) of its gateway processes so far."""
        pids = [process.process.pid for process in self.processes if process.process is not None]
        return sum(map(processor_seconds, pids)), sum(map(minor_faults, pids))

    def figures(self, callers: Callers, size: str, seconds: float) -> Figures:
        """Measure it.

        Raises:
            RuntimeError: nothing was answered.
        """
        callers.prepare(self.addresses, SIZES[size], seconds)
        processor_before, faults_before = self.spent()
        seen = callers.go()
        processor, faults = self.spent()
        if not seen.latencies:
            raise RuntimeError(f"{self.variant.name}, {size}: no answer, but {seen.problem}")
        count = len(seen.latencies)
        asked = count + seen.failed
        return Figures(
            seen.p50,
            count / seen.seconds,
            (processor - processor_before) / asked,
            (faults - faults_before) / asked,
            seen.failed,
        )


def processor_seconds(pid: int) -> float:
    """User and system time of a process so far, ended threads included; to the nanosecond, where /proc has 10 ms."""
    return time.clock_gettime((~pid << 3) | 2)  # clock_getcpuclockid(3): the kernel's id of that process's clock


def minor_faults(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[7])


def head() -> onnx.ModelProto:
    """y = the first 16 of x: next to no work at any size, so that the path is what is measured."""
    weights = [numpy_helper.from_array(np.array([number], np.int64), name) for name, number in (("a", 0), ("b", 16))]
    nodes = [helper.make_node("Slice", ["x", "a", "b"], ["y"])]
    inputs, outputs = [value("x", TensorProto.FLOAT, ["n"])], [value("y", TensorProto.FLOAT, ["m"])]
    return model_of(nodes, inputs, outputs, weights)


def install_uvloop(folder: Path) -> Path:
    """Into a folder that is thrown away: it is no dependency.

    Raises:
        NotHere: pip could not.
    """
    where = folder / "uvloop"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run([*command, "--target", str(where), "uvloop"], capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise NotHere(f"uvloop could not be installed: {(done.stderr.splitlines() or ['pip failed'])[-1]}")
    return where


@contextlib.contextmanager
def running(variant: Variant, uvloop: Callable[[], Path]) -> Iterator[Front]:
    """The variant's processes, each with a model, a state and workers of its own.

    Raises:
        NotHere: an experiment is unknown to this gRPC, or uvloop can't be had.
    """
    arguments = variant.arguments + ((("grpc.so_reuseport", 1),) if variant.shared_port else ())
    change = Change(
        uvloop=str(uvloop()) if variant.uvloop else "",
        threads=variant.threads,
        alone=variant.alone,
        malloc=variant.malloc,
        arguments=arguments,
    )
    workers = [{"name": f"cpu{number or ''}", "backend": "cpu", "instances": 1} for number in range(variant.workers)]
    environment = {"GRPC_EXPERIMENTS": variant.experiments} if variant.experiments else {}
    with contextlib.ExitStack() as stack:
        processes: list[Process] = []
        for _ in range(variant.processes):
            folder = stack.enter_context(scratch())
            put(folder / "models", MODEL, head())
            config = {"heat": {"sysfsRoot": str(folder / "sys")}, "workers": workers}
            tcp = processes[0].address if processes and variant.shared_port else "127.0.0.1:0"
            flags = ["--model-repository", str(folder / "models")]
            process = Process(folder, config, flags, tcp, environment, change=change)
            stack.enter_context(process)
            processes.append(process)
            if UNKNOWN_EXPERIMENT in process.log:
                raise NotHere(f"this gRPC knows no {variant.experiments}")
        yield Front(variant, processes)


@dataclass
class Bench:
    """A run: ``rounds`` times all variants."""

    variants: Sequence[Variant]
    rounds: int
    seconds: float
    """Of one measurement."""
    tell: Callable[[str], None]
    """Called with what is measured next, once for each cell of each round."""
    pairs: list[Pair] = field(default_factory=list)
    """What was measured so far."""
    missing: dict[str, str] = field(default_factory=dict)
    """Variants that could not be had, and why."""

    @property
    def steps(self) -> int:
        return self.rounds * sum(len(variant.cells) for variant in self.variants)

    def run(self) -> None:
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(scratch())
            installed: list[Path] = []

            def uvloop() -> Path:
                if not installed:
                    installed.append(install_uvloop(folder))
                return installed[0]

            counts = sorted({count for variant in self.variants for count in variant.clients})
            callers = {count: stack.enter_context(Callers(count)) for count in counts}
            for number in range(self.rounds):
                with running(BASE, uvloop) as base:
                    self._settle(base, callers)
                    # The order moves on, so that no variant always meets the same moment of a round.
                    for variant in (*self.variants[number:], *self.variants[:number]):
                        try:
                            with running(variant, uvloop) as other:
                                self._settle(other, callers)
                                self._compare(base, other, callers, number)
                        except NotHere as lacking:
                            self.missing[variant.name] = str(lacking)

    def _settle(self, front: Front, callers: dict[int, Callers]) -> None:
        """Let its heap grow to what it will be: a young process faults more, which says nothing of its front."""
        for size in reversed(front.variant.sizes):
            front.figures(callers[max(callers)], size, min(self.seconds, SETTLE_SECONDS))

    def _compare(self, base: Front, other: Front, callers: dict[int, Callers], number: int) -> None:
        for index, (size, clients) in enumerate(other.variant.cells):
            self.tell(f"{other.variant.name}, {size}, {clients} client{'s' * (clients > 1)}")
            order = [base, other] if (number + index) % 2 else [other, base]
            seen = {front is base: front.figures(callers[clients], size, self.seconds) for front in order}
            self.pairs.append(Pair(other.variant.name, size, clients, seen[True], seen[False]))
