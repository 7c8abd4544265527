"""How often the bytes of a tensor are copied on their way through the gateway, counted in pages.

A copy needs somewhere to go. Either that is a buffer from the allocator, which costs page faults when each is taken
fresh (``benchmarks.counts.loose``), or it is a slot, whose pages the kernel marks as touched. gRPC makes copies of its
own, below the message that it hands to the handler; those are what a server has that hands the message straight back.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bench.bare import OPTIONS
from benchmarks.bench.cases import Case
from benchmarks.bench.client import Client
from benchmarks.bench.effort import Effort
from benchmarks.bench.figures import Reading
from benchmarks.bench.stage import Stage
from benchmarks.counts.memory import SLOTS, faulted_bytes, let_go, touched_bytes
from benchmarks.harness import Gateway, first_line, identity, scratch

MIRROR = Case("mirror", "FP32", (1 << 20,), "x", lambda: identity(shape=[1 << 20]).SerializeToString())
"""4 MB in, the same 4 MB out: one input and one output of one size."""
START_LIMIT = 30.0
WARM_CALLS = 8
CALLS = 40


@dataclass(frozen=True)
class Copies:
    """In tensors of ``MIRROR``."""

    fresh: float
    """Buffers that were taken from the allocator and written."""
    slots: float
    """Tensors that were read or written in slots."""


class LooseGateway(Gateway):
    """A gateway whose big buffers can be counted."""

    def command(self) -> list[str]:
        python, dash_m, *rest = super().command()
        return [python, dash_m, "benchmarks.counts.loose", *rest]


def once(stage: Stage, effort: Effort, number: int) -> Mapping[str, Reading]:
    del stage, effort, number
    counted = count()
    return {"copies": Reading(total(counted), parts(counted))}


def total(counted: Mapping[str, Copies]) -> float:
    """The message itself, which gRPC puts together out of its pieces; buffers beyond those of a server that hands it
    straight back; and what is written into slots, where the output is only read.
    """
    gateway = counted["gateway"]
    return 1 + (gateway.fresh - counted["raw"].fresh) + (gateway.slots - 1)


def parts(counted: Mapping[str, Copies]) -> dict[str, float]:
    return {
        "gateway's buffers": counted["gateway"].fresh,
        "gRPC's own": counted["raw"].fresh,
        "gRPC's own and one copy more": counted["wasteful"].fresh,
        "tensors touched in slots": counted["gateway"].slots,
    }


def count() -> dict[str, Copies]:
    """Of the gateway, of a server that hands the message back, and of one that copies it once more (the control)."""
    with scratch() as folder:
        path = folder / "models" / MIRROR.name / "1" / "model.onnx"
        path.parent.mkdir(parents=True)
        path.write_bytes(MIRROR.make())
        with LooseGateway(folder, {}, ["--model-repository", str(folder / "models")]) as gateway:
            assert gateway.process is not None
            counted = {"gateway": of(gateway.unix, gateway.process.pid)}
        for kind in ("raw", "wasteful"):
            with bare(kind, folder) as (address, pid):
                counted[kind] = of(address, pid)
    return counted


def of(address: str, pid: int) -> Copies:
    message = MIRROR.message()
    with Client(address, OPTIONS) as client:
        let_go(pid)
        for _ in range(WARM_CALLS):
            client.infer(message)
        fresh = faulted_bytes(pid, lambda: client.infer(message), CALLS)
        slots = touched_bytes(pid, SLOTS, lambda: client.infer(message))
    return Copies(fresh / MIRROR.nbytes, slots / MIRROR.nbytes)


@contextlib.contextmanager
def bare(kind: str, folder: Path) -> Iterator[tuple[str, int]]:
    """(address, pid) of a bare server whose buffers can be counted."""
    address = f"unix:{folder}/{kind}.sock"
    command = [sys.executable, "-m", "benchmarks.counts.loose", "benchmarks.bench.bare", kind, address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            if not first_line(process, START_LIMIT):
                raise RuntimeError(f"the {kind} server did not start")
            yield address, process.pid
        finally:
            process.terminate()
