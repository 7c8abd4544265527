"""How each row is measured: one round of every system, in turns."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import grpc

from benchmarks.bench import hop, others, tail
from benchmarks.bench.alternate import Party, Spent, alternate
from benchmarks.bench.cases import BARE_FRAME, BARE_LARGE, FRAME, IMAGE, LARGE, SMALL, Case
from benchmarks.bench.client import Rate, rate
from benchmarks.bench.effort import Effort
from benchmarks.bench.figures import NotMeasured, Reading
from benchmarks.bench.shared import Region
from benchmarks.bench.stage import Server, Stage
from benchmarks.counts import copies

Readings = Mapping[str, Reading]
CALLERS = 16
RATE_TURNS = 4
"""Turns of each system in a round of closed loops; each is a connection of its own."""


@dataclass(frozen=True)
class Probe:
    """``once`` measures all its rows in one round. ``rounds``: at most so many; more would say nothing new."""

    rows: tuple[str, ...]
    once: Callable[[Stage, Effort, int], Readings]
    rounds: int = 1000


def small(stage: Stage, effort: Effort, number: int) -> Readings:
    message = SMALL.message()
    parties = [
        Party("gateway", lambda: stage.gateway.client.infer(message), stage.gateway.pid),
        Party("echo", lambda: stage.echo.client.infer(message), stage.echo.pid),
        Party("raw", lambda: stage.raw.client.infer(message), stage.raw.pid),
        Party("direct", lambda: stage.direct.client.infer(message), stage.direct.pid),
        Party("in-process", stage.in_process(SMALL)),
    ]
    spent = alternate(parties, effort.small, number)
    ours, bare = spent["gateway"], spent["echo"]
    cpu = {f"{name} us": spent[name].cpu_us for name in ("gateway", "echo", "raw", "direct")}
    return {
        "small-p50": Reading(ours.p50_ms / bare.p50_ms, p50s(spent)),
        "small-cpu": Reading(ours.cpu_us / bare.cpu_us, cpu),
    }


def small_rate(stage: Stage, effort: Effort, number: int) -> Readings:
    message = SMALL.message()
    systems = [("gateway", stage.gateway), ("echo", stage.echo)]
    rates: dict[str, list[Rate]] = {name: [] for name, _ in systems}
    for _ in range(RATE_TURNS):
        for name, server in systems if number % 2 == 0 else reversed(systems):
            rates[name].append(rate(server.address, message, CALLERS, effort.seconds / RATE_TURNS))
    mean = {name: statistics.fmean(each.per_second for each in found) for name, found in rates.items()}
    parts = {f"{name} per s": per_second for name, per_second in mean.items()}
    for name, found in rates.items():
        parts[f"client's CPU with {name}"] = statistics.fmean(each.client_share for each in found)
    return {"small-rate": Reading(mean["gateway"] / mean["echo"], parts)}


def frame(stage: Stage, effort: Effort, number: int) -> Readings:
    spent = in_band(stage, FRAME, effort.medium, number)
    return {"frame": over_direct(spent), "faults-frame": faults(spent)}


def image(stage: Stage, effort: Effort, number: int) -> Readings:
    return {"image": over_direct(in_band(stage, IMAGE, effort.medium, number))}


def large(stage: Stage, effort: Effort, number: int) -> Readings:
    spent = in_band(stage, LARGE, effort.large, number)
    return {"large": over_direct(spent), "faults-large": faults(spent)}


def frame_shm(stage: Stage, effort: Effort, number: int) -> Readings:
    return {"frame-shm": over_direct(in_region(stage, FRAME, effort.medium, number))}


def large_shm(stage: Stage, effort: Effort, number: int) -> Readings:
    return {"large-shm": over_direct(in_region(stage, LARGE, effort.medium, number))}


def frame_sealed(stage: Stage, effort: Effort, number: int) -> Readings:
    return {"frame-sealed": over_direct(in_sealed(stage, FRAME, effort.medium, number))}


def large_sealed(stage: Stage, effort: Effort, number: int) -> Readings:
    return {"large-sealed": over_direct(in_sealed(stage, LARGE, effort.medium, number))}


def bare_frame(stage: Stage, effort: Effort, number: int) -> Readings:
    return {"bare-frame": over_direct(in_band(stage, BARE_FRAME, effort.medium, number))}


def bare_large(stage: Stage, effort: Effort, number: int) -> Readings:
    return {"bare-large": over_direct(in_band(stage, BARE_LARGE, effort.large, number))}


def bare_sealed(stage: Stage, effort: Effort, number: int) -> Readings:
    return {"bare-sealed": over_direct(in_sealed(stage, BARE_LARGE, effort.medium, number))}


def size(stage: Stage, effort: Effort, number: int) -> Readings:
    """What the gateway adds must not grow with the tensor when it views the tensor where it lies."""
    by_region, tiny = BARE_LARGE.region_message(stage.sealed(BARE_LARGE)), SMALL.message()
    parties = [
        Party("4.9 MB", lambda: stage.gateway.client.infer(by_region)),
        Party("64 B", lambda: stage.gateway.client.infer(tiny)),
        Party("4.9 MB model", stage.in_process(BARE_LARGE)),
        Party("64 B model", stage.in_process(SMALL)),
    ]
    spent = alternate(parties, effort.medium, number)
    big, little = (spent[name].p50_ms - spent[f"{name} model"].p50_ms for name in ("4.9 MB", "64 B"))
    return {"size": Reading(big / little, p50s(spent))}


def in_band(stage: Stage, case: Case, calls: int, number: int) -> dict[str, Spent]:
    return against_direct(stage, case, case.message(), case.message(), calls, number)


def in_region(stage: Stage, case: Case, calls: int, number: int) -> dict[str, Spent]:
    """Both have the same POSIX memory."""
    message = case.region_message(registered(stage, case, [stage.gateway, stage.direct]).name)
    return against_direct(stage, case, message, message, calls, number)


def in_sealed(stage: Stage, case: Case, calls: int, number: int) -> dict[str, Spent]:
    """The gateway has memory that it made, direct the POSIX memory of the caller."""
    ours = case.region_message(stage.sealed(case))
    return against_direct(
        stage, case, ours, case.region_message(registered(stage, case, [stage.direct]).name), calls, number
    )


def against_direct(stage: Stage, case: Case, ours: bytes, bare: bytes, calls: int, number: int) -> dict[str, Spent]:
    """``ours``, ``bare``: the message to the gateway, and to direct."""
    parties = [
        Party("gateway", lambda: stage.gateway.client.infer(ours), stage.gateway.pid),
        Party("direct", lambda: stage.direct.client.infer(bare), stage.direct.pid),
        Party("in-process", stage.in_process(case)),
    ]
    return alternate(parties, calls, number)


def over_direct(spent: Mapping[str, Spent]) -> Reading:
    return Reading(spent["gateway"].p50_ms / spent["direct"].p50_ms, p50s(spent))


def faults(spent: Mapping[str, Spent]) -> Reading:
    return Reading(spent["gateway"].faults_each, {"direct": spent["direct"].faults_each})


def p50s(spent: Mapping[str, Spent]) -> dict[str, float]:
    return {f"{name} ms": each.p50_ms for name, each in spent.items()}


def registered(stage: Stage, case: Case, servers: list[Server]) -> Region:
    """The case's tensor in shared memory that these servers know.

    Raises:
        NotMeasured: the gateway does not take shared memory of its callers.
    """
    try:
        regions = [stage.region(case, server) for server in servers]
    except grpc.RpcError as refused:
        if refused.code() is grpc.StatusCode.UNIMPLEMENTED:  # which direct never says
            raise NotMeasured("not offered: the gateway takes no shared memory of its callers") from refused
        raise
    return regions[0]


PROBES = (
    Probe(("small-p50", "small-cpu"), small),
    Probe(("small-rate",), small_rate),
    Probe(("frame", "faults-frame"), frame),
    Probe(("image",), image),
    Probe(("large", "faults-large"), large),
    Probe(("bare-frame",), bare_frame),
    Probe(("bare-large",), bare_large),
    Probe(("frame-shm",), frame_shm),
    Probe(("large-shm",), large_shm),
    Probe(("frame-sealed",), frame_sealed),
    Probe(("large-sealed",), large_sealed),
    Probe(("bare-sealed",), bare_sealed),
    Probe(("size",), size),
    Probe(("hop",), hop.once),
    Probe(("copies",), copies.once, rounds=1),
    Probe(("tail",), tail.once),
    Probe(("start",), others.start, rounds=1),
    Probe(("memory",), others.memory, rounds=1),
)
