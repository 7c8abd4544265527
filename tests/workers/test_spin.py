"""A worker that spins looks for the next frame before it spent, and no longer than it was told."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.harness import put, scaled
from edgeway.client import Client
from workers.spin import Spin


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


def cpu_seconds() -> float:
    return time.clock_gettime(time.CLOCK_THREAD_CPUTIME_ID)


def test_it_returns_at_once_when_there_is_a_frame(pair):
    ours, theirs = pair
    theirs.send(b"frame")
    Spin(ours, 3600.0).wait()
    assert ours.recv(16) == b"frame"


def test_it_is_busy_while_it_waits_and_gives_up_in_the_end(pair):
    began = time.monotonic()
    before = cpu_seconds()
    Spin(pair[0], 0.05).wait()
    assert time.monotonic() - began >= 0.05
    assert cpu_seconds() > before


def test_without_a_time_it_does_not_look(pair):
    calls = []
    spin = Spin(pair[0], 0.0)
    spin._poll = type("Poll", (), {"poll": lambda self, timeout: calls.append(timeout)})()
    spin.wait()
    assert calls == []


@pytest.mark.system
def test_a_worker_uses_its_core_between_runs_only_as_long_as_it_may_spin(folder, gateway_in):
    put(folder / "models", "m", scaled(2.0))
    spent = {}
    for spin in (0, 1000):
        workers = [{"name": "cpu", "backend": "cpu", "spinMicroseconds": spin, "instances": 1}]
        gateway = gateway_in({"workers": workers}, "--model-repository", str(folder / "models"))
        pid = gateway.worker()["pid"]
        with Client(gateway.unix, deadline_ms=10_000) as client:
            for _ in range(20):
                client.infer("m", {"x": np.ones(4, np.float32)})
            before = used(pid)
            for _ in range(300):
                client.infer("m", {"x": np.ones(4, np.float32)})
                threading.Event().wait(0.002)  # a silence to spin in, a millisecond of each: 0.3 s in all
            spent[spin] = used(pid) - before
        gateway.stop()
    assert spent[1000] > 0.15 > spent[0], spent


def used(pid: int) -> float:
    """CPU seconds of all threads: any of two may be the one that reads the link."""
    return sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir()) / 1e9
