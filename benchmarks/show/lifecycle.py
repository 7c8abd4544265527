"""The gateway's own death and end: SIGKILL, a second gateway, SIGTERM."""

from __future__ import annotations

import argparse
import signal
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton

from benchmarks.harness import Gateway, Verdict, alive, identity, put, scratch, slow_for, wait_for

GONE_WITHIN = 1.0
CONFIG: dict[str, object] = {
    "budget": {"defaultMs": 20000},
    "workers": [{"name": "cpu", "backend": "cpu"}, {"name": "sim", "backend": "simulated"}],
}


def infer(address: str, model: str = "quick") -> None:
    tensor = triton.InferInput("x", [1], "FP32")
    tensor.set_data_from_numpy(np.ones(1, np.float32))
    with triton.InferenceServerClient(address) as client:
        client.infer(model, [tensor], client_timeout=20)


def slots() -> set[str]:
    """Memory of links that any process still maps, and files in /dev/shm that bear our name."""
    found = {str(path) for path in Path("/dev/shm").glob("*edgeway*")}
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            lines = [line for line in maps.read_text().splitlines() if "memfd:edgeway" in line]
        except OSError:
            continue
        found |= {f"inode {line.split()[4]} of {maps.parent.name}" for line in lines}
    return found


def killed(folder: Path, repository: str, verdict: Verdict) -> None:
    """SIGKILL of the gateway, and a new one at once."""
    others = slots()
    with Gateway(folder, CONFIG, ["--model-repository", repository]) as gateway:
        infer(gateway.unix)
        workers, used = gateway.children(), slots() - others
        assert gateway.process is not None
        gateway.process.send_signal(signal.SIGKILL)
        began = time.monotonic()
        gateway.process.wait()
        wait_for(lambda: not any(alive(pid) for pid in workers) and not slots() - others, 10, "the workers' end")
        gone = time.monotonic() - began
    verdict.control(f"before: {len(workers)} worker processes, {len(used)} mappings of slots")
    verdict.check(
        gone <= GONE_WITHIN and bool(workers) and bool(used),
        f"SIGKILL of the gateway: no worker and no slot left after {gone:.2f} s (at most {GONE_WITHIN:g} s)",
    )
    began = time.monotonic()
    with Gateway(folder, CONFIG, ["--model-repository", repository]) as again:
        infer(again.unix)
        verdict.check(True, f"a new gateway serves on the same socket after {time.monotonic() - began:.2f} s")


def second(folder: Path, repository: str, verdict: Verdict) -> None:
    """A second gateway on the socket, or on the port, of the first."""
    with Gateway(folder, CONFIG, ["--model-repository", repository]) as first, scratch() as other:
        same_socket = first.command()
        own = Gateway(other, CONFIG, tcp=first.address)
        same_port = own.command()
        for what, command in (("socket", same_socket), ("port", same_port)):
            began = time.monotonic()
            done = subprocess.run(command, capture_output=True, text=True, timeout=20)
            took = time.monotonic() - began
            said = (done.stderr.strip().splitlines() or [""])[-1]
            infer(first.unix)
            infer(first.address)
            verdict.check(
                done.returncode == 1 and took <= 1.0,
                f"second gateway on the same {what}: exit {done.returncode} after {took:.2f} s (1 s): {said}",
            )


def drained(folder: Path, repository: str, verdict: Verdict) -> None:
    """SIGTERM while requests of 0.5 s are under way."""
    failures: list[str] = []
    done: list[float] = []

    def ask() -> None:
        try:
            infer(gateway.unix, "half")
            done.append(time.monotonic())
        except triton.InferenceServerException as failed:
            failures.append(str(failed))

    with Gateway(folder, CONFIG, ["--model-repository", repository]) as gateway:
        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        wait_for(lambda: sum(worker["inFlight"] for worker in gateway.get("accelerators")) == 4, 5, "the four requests")
        told = time.monotonic()
        code = gateway.stop(20)
        for thread in threads:
            thread.join()
    late = sum(1 for at in done if at > told)
    verdict.check(
        code == 0 and not failures and late > 0,
        f"SIGTERM: exit {code} (0), {len(failures)} of 4 in-flight requests failed (none), {late} finished after it",
    )


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    verdict = Verdict("the gateway's death and end")
    with scratch() as folder:
        put(folder / "models", "quick", identity(shape=[1]))
        put(folder / "models", "half", slow_for(0.5))
        repository = str(folder / "models")
        killed(folder, repository, verdict)
        second(folder, repository, verdict)
        drained(folder, repository, verdict)
    verdict.end()


if __name__ == "__main__":
    main()
