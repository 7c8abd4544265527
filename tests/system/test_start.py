"""Start, footprint and punctuality: what the processes import, what they leave alone, and how they run."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from benchmarks.harness import Gateway, alive, put, scaled, wait_for
from edgeway.client import Client
from gateway.dispatch.launch import PROGRAM, source_roots

pytestmark = pytest.mark.system

PROBE = """
import gc, json, os, signal, sys

def tell(*_):
    path = os.path.join(os.environ["PROBE"], f"{os.getpid()}.json")
    found = {"frozen": gc.get_freeze_count(), "enabled": gc.isenabled(), "modules": sorted(sys.modules)}
    with open(path + ".tmp", "w") as file:
        json.dump(found, file)
    os.replace(path + ".tmp", path)

signal.signal(signal.SIGUSR1, tell)
"""
"""A sitecustomize: on SIGUSR1 the process says of itself what cannot be seen from outside."""


@pytest.fixture
def probed(folder, gateway_in):
    """Starts a gateway whose processes tell about themselves; a model ``m`` (y = 2 x) is there."""
    (folder / "probe").mkdir()
    (folder / "probe" / "sitecustomize.py").write_text(PROBE)
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{folder}/probe:$PYTHONPATH" exec "{sys.executable}" "$@"\n')
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    put(folder / "models", "m", scaled(2.0))

    def start(*flags: str) -> Gateway:
        workers = [{"name": "cpu", "backend": "cpu", "python": str(python), "env": {"PROBE": str(folder)}}]
        path = f"{folder}/probe:{os.environ.get('PYTHONPATH', '')}"
        flags = ("--model-repository", str(folder / "models"), *flags)
        return gateway_in({"workers": workers}, *flags, PYTHONPATH=path, PROBE=str(folder))

    return start


def told(folder: Path, pid: int) -> dict:
    os.kill(pid, signal.SIGUSR1)
    path = folder / f"{pid}.json"
    wait_for(path.exists, 10, "the word of the process")
    return json.loads(path.read_text())


def ask(gateway: Gateway) -> None:
    with Client(gateway.unix, deadline_ms=10_000) as client:
        assert client.infer("m", {"x": np.ones(4, np.float32)})["y"].tolist() == [2.0] * 4


def packages(found: dict) -> set[str]:
    return {name.partition(".")[0] for name in found["modules"]}


def test_the_gateway_never_imports_numpy_or_a_runtime_nor_the_worker_grpc(folder, probed):
    gateway = probed("--metrics", "127.0.0.1:0")
    ask(gateway)
    gateway_has = packages(told(folder, gateway.process.pid))
    assert {"grpc", "google", "msgspec"} <= gateway_has
    assert not {"numpy", "onnxruntime", "prometheus_client", "opentelemetry", "rich"} & gateway_has
    worker_has = packages(told(folder, gateway.worker()["pid"]))
    assert {"numpy", "onnxruntime", "google"} <= worker_has
    assert not {"grpc", "msgspec", "click", "yaml", "opentelemetry", "gateway"} & worker_has


def test_metrics_are_served_though_their_library_is_imported_at_the_first_scrape_only(folder, probed):
    gateway = probed("--metrics", "127.0.0.1:0")
    ask(gateway)
    with socket.create_connection(gateway.ready["metrics"].split(":")):  # says nothing, and holds up nobody
        for _ in range(2):
            page = urllib.request.urlopen(f"http://{gateway.ready['metrics']}/metrics", timeout=20).read().decode()
            assert (
                'edgeway_request_duration_seconds_count{accelerator="cpu",code="OK",model="m",version="1"} 1.0' in page
            )
    assert "prometheus_client" in packages(told(folder, gateway.process.pid))


def test_until_the_workers_are_launched_nothing_heavy_is_imported():
    code = "import sys, gateway.cli.serve, gateway.start; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    there = set(done.stdout.split())
    assert "gateway.dispatch.launch" in there
    assert not {"grpc", "google.protobuf", "asyncio", "yaml", "numpy", "gateway.assembly"} & there


def test_nothing_on_a_requests_way_is_logged(folder, gateway_in):
    put(folder / "models", "m", scaled(2.0))
    gateway = gateway_in({}, "--model-repository", str(folder / "models"), "--log-level", "debug")
    ask(gateway)
    wait_for(lambda: len(gateway.children()) >= 3, 10, "zygote and standby")
    with Client(gateway.unix, deadline_ms=10_000) as client:
        client.infer("m", {"x": np.ones(4, np.float32)})
        before = gateway.log
        for _ in range(50):
            client.infer("m", {"x": np.ones(4, np.float32)})
        assert gateway.log == before


def test_the_garbage_of_a_start_is_frozen_and_nothing_is_collected_by_itself(folder, probed):
    gateway = probed()
    ask(gateway)
    for pid in (gateway.process.pid, gateway.worker()["pid"]):
        found = told(folder, pid)
        assert found["frozen"] > 10_000, pid
        assert not found["enabled"], pid


def kernel_says(pid: int) -> dict[str, object]:
    """How a process runs."""
    locked = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmLck"))
    return {
        "cpus": sorted(os.sched_getaffinity(pid)),
        "nice": os.getpriority(os.PRIO_PROCESS, pid),
        "realtime": os.sched_getparam(pid).sched_priority,
        "locked": int(locked.split()[1]) > 0,
    }


def refusals(gateway: Gateway) -> list[tuple[str, str]]:
    return [(e["worker"], e["message"]) for e in gateway.get("events") if e["kind"] == "setting-refused"]


def own() -> dict[str, object]:
    return {**kernel_says(os.getpid()), "locked": False}


def serving(folder: Path, gateway_in, config: dict) -> Gateway:
    put(folder / "models", "m", scaled(2.0))
    return gateway_in(config, "--model-repository", str(folder / "models"))


def test_cpus_and_nice_are_those_of_the_config_for_each_process_also_after_a_restart(folder, gateway_in):
    mine = own()
    cpus, nice = mine["cpus"], mine["nice"]
    workers = [
        {"name": "cpu", "backend": "cpu", "cpus": [cpus[-1]], "nice": 4},
        {"name": "sim", "backend": "simulated", "nice": 2},
    ]
    gateway = serving(folder, gateway_in, {"process": {"cpus": [cpus[0]], "nice": 1}, "workers": workers})
    wanted = {
        "cpu": {**mine, "cpus": [cpus[-1]], "nice": nice + 4},
        "sim": {**mine, "nice": nice + 2},
    }
    assert kernel_says(gateway.process.pid) == {**mine, "cpus": [cpus[0]], "nice": nice + 1}
    assert {name: kernel_says(gateway.worker(name)["pid"]) for name in wanted} == wanted
    for name in wanted:
        old = gateway.worker(name)["pid"]
        os.kill(old, signal.SIGKILL)
        wait_for(lambda name=name, old=old: gateway.worker(name)["pid"] not in (0, old), 10, "the next process")
        wait_for(lambda name=name: gateway.worker(name)["state"] == "ready", 20, "its start")
    assert {name: kernel_says(gateway.worker(name)["pid"]) for name in wanted} == wanted
    ask(gateway)
    assert refusals(gateway) == []


def test_realtime_and_locked_memory_hold_for_whom_they_were_set_and_nobody_else(folder, gateway_in):
    config = {
        "process": {"realtimePriority": 3, "lockMemory": True},
        "workers": [
            {"name": "cpu", "backend": "cpu", "realtimePriority": 2, "lockMemory": True, "spinMicroseconds": 50},
            {"name": "sim", "backend": "simulated"},
        ],
    }
    gateway = serving(folder, gateway_in, config)
    ask(gateway)
    if refused := refusals(gateway):
        assert all("CAP_" in message for _, message in refused)
        pytest.skip(f"not granted here: {refused[0][1]}")
    mine = own()
    assert kernel_says(gateway.process.pid) == {**mine, "realtime": 3, "locked": True}
    assert kernel_says(gateway.worker("cpu")["pid"]) == {**mine, "realtime": 2, "locked": True}
    old = gateway.worker("sim")["pid"]
    assert kernel_says(old) == mine
    os.kill(old, signal.SIGKILL)  # the next one is started by a gateway that goes before all others
    wait_for(lambda: gateway.worker("sim")["pid"] not in (0, old), 10, "the next process")
    wait_for(lambda: gateway.worker("sim")["state"] == "ready", 20, "its start")
    assert kernel_says(gateway.worker("sim")["pid"]) == mine
    ask(gateway)


def test_what_the_system_refuses_is_an_event_with_a_remedy_and_the_gateway_serves_on(folder, gateway_in):
    workers = [{"name": "cpu", "backend": "cpu", "cpus": [4001]}]
    gateway = serving(folder, gateway_in, {"process": {"cpus": [4000]}, "workers": workers})
    ask(gateway)
    ours, workers_own = refusals(gateway)
    assert ours[1].startswith("process.cpus: CPU 4000: ")
    assert workers_own[0] == "cpu"
    assert workers_own[1].startswith("cpus: CPU 4001: ")
    assert all("this machine lets the process have CPU" in message for _, message in (ours, workers_own))


def test_nice_beside_a_realtime_priority_is_refused_at_the_start(folder):
    gateway = Gateway(folder, {"workers": [{"name": "cpu", "backend": "cpu", "nice": 1, "realtimePriority": 2}]})
    with pytest.raises(RuntimeError, match=r"workers\[0\]\.nice: has no effect beside realtimePriority"):
        gateway.start()
    gateway.stop()


def test_a_gateway_that_can_not_start_leaves_no_worker_behind(folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        gateway = Gateway(folder, flags=["--metrics", address], environment={"MARK": str(folder)})
        with pytest.raises(RuntimeError, match=f"metrics can't be served on {address}"):
            gateway.start()
        assert gateway.stop() == 1
    marked = f"MARK={folder}".encode()

    def left() -> list[int]:
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                if marked in path.read_bytes().split(b"\0") and alive(int(path.parent.name)):
                    found.append(int(path.parent.name))
            except OSError:
                continue
        return found

    wait_for(lambda: not left(), 5, "the end of the workers")


def test_a_folder_called_workers_in_the_current_one_is_not_run(folder):
    (folder / "workers").mkdir()
    (folder / "workers" / "__init__.py").write_text("raise SystemExit('taken for the workers')")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(source_roots())}

    def probe(*program: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *program, "--probe"]
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)

    assert "taken for the workers" in probe("-m", "workers").stderr
    assert '"cpu"' in probe(*PROGRAM).stdout
