"""Many operators at once: apply, promote, roll back and delete from 32 threads, while another model serves."""

from __future__ import annotations

import argparse
import collections
import json
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import yaml

from benchmarks.harness import Gateway, Verdict, manifest, scaled, scratch, wait_for
from edgeway.client import Client, InferenceError
from edgeway.v1 import control_pb2 as control
from gateway.models.manifest_files import load_manifests, to_plain

METHODS = control.SERVICES["edgeway.v1.Control"]
VERSIONS = ("1", "2", "3", "4")
CALL_LIMIT = 60.0
REFUSALS = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION)
"""What a command may answer that came too late: the version is gone, or there is nothing to go back to."""
COMMANDS = ("applied", "promoted", "rolled-back", "version-deleted")


class Operator:
    """One thread's calls of the control service."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])

    def call(self, rpc: str, **fields: Any) -> Any:
        method = METHODS[rpc]
        content = method.request(**fields).SerializeToString()
        return method.response.FromString(self._channel.unary_unary(method.path)(content, timeout=CALL_LIMIT))


def texts(folder: Path) -> dict[str, str]:
    """The manifest of each version, as JSON."""
    made = {}
    for number, label in enumerate(VERSIONS, 2):
        path = manifest(folder, "m", label, scaled(float(number)).SerializeToString())
        made[label] = json.dumps(to_plain(load_manifests(Path(path))[0]))
    return made


def renewed(text: str, number: int) -> str:
    """The same version with other content, which brings it in again."""
    plain = json.loads(text)
    plain["metadata"]["annotations"] = {"number": str(number)}
    return json.dumps(plain)


class Storm:
    """What the threads do, and what came of it."""

    def __init__(self, address: str, manifests: dict[str, str], seed: int) -> None:
        self._address, self._manifests, self._seed = address, manifests, seed
        self.answers: collections.Counter[str] = collections.Counter()
        self._lock = threading.Lock()

    def run(self, threads: int, calls: int) -> float:
        """Seconds that it took; raises TimeoutError when a thread does not end."""
        began = time.monotonic()
        pool = [threading.Thread(target=self._operate, args=(number, calls), daemon=True) for number in range(threads)]
        for thread in pool:
            thread.start()
        end = began + threads * calls * 0.2 + 60
        for thread in pool:
            thread.join(max(0.0, end - time.monotonic()))
            if thread.is_alive():
                raise TimeoutError("a thread still waits for an answer")
        return time.monotonic() - began

    def _operate(self, number: int, calls: int) -> None:
        chance, operator = random.Random(self._seed + number), Operator(self._address)
        for call in range(calls):
            label = chance.choice(VERSIONS)
            kind = chance.choices(("Apply", "Promote", "Rollback", "Delete"), (4, 4, 2, 1))[0]
            try:
                if kind == "Apply":
                    operator.call("Apply", manifests=[renewed(self._manifests[label], number * calls + call)])
                elif kind == "Promote":
                    operator.call("Promote", name="m", version=label)
                elif kind == "Rollback":
                    operator.call("Rollback", name="m")
                else:
                    operator.call("Delete", name="m", version=label)
                answer = f"{kind} done"
            except grpc.RpcError as refused:
                answer = (
                    f"{kind} {refused.code().name.lower()}" if refused.code() in REFUSALS else f"unexpected: {refused}"
                )
            with self._lock:
                self.answers[answer] += 1


class Bystander:
    """Asks another model all the while."""

    def __init__(self, address: str) -> None:
        self._address, self._stop = address, threading.Event()
        self.asked, self.errors = 0, 0
        self._thread = threading.Thread(target=self._ask)

    def _ask(self) -> None:
        with Client(self._address) as client:
            while not self._stop.wait(0.01):
                self.asked += 1
                try:
                    client.infer("other", {"x": np.ones(1, np.float32)})
                except InferenceError:
                    self.errors += 1

    def __enter__(self) -> Bystander:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def standing(gateway: Gateway) -> dict[str, tuple[str, int, bool]]:
    """State, percent and whether it is current, by version."""
    found = [d for d in gateway.get("deployments") if d["name"] == "m"]
    return {v["version"]: (v["state"], v["percent"], v["current"]) for d in found for v in d["versions"]}


def settled(gateway: Gateway) -> dict[str, tuple[str, int, bool]]:
    """As it stands once nothing is on its way any more."""
    coming = ("fetching", "verifying", "loading", "warming")

    def still() -> bool:
        return all(state not in coming for state, _, _ in standing(gateway).values())

    wait_for(still, 60, "the end of all loads")
    return standing(gateway)


def as_the_last_command_says(gateway: Gateway, now: dict[str, tuple[str, int, bool]]) -> tuple[bool, str]:
    """Whether the deployment stands as the command demands that was accepted last, by the gateway's own order."""
    last = [event for event in gateway.get("events", "m") if event["kind"] in COMMANDS][-1]
    label, kind = last["version"], last["kind"]
    if kind == "version-deleted":
        holds = label not in now
    elif kind == "rolled-back":
        serves = last["message"].removeprefix("by command; ").removesuffix(" serves")
        holds = now[label][0] == "rolledBack" and now[serves][1:] == (100, True)
    else:
        holds = now[label] == ("ready", 100, True)
    return holds, f"{kind} {label} ({last['message']})"


def show(threads: int, calls: int, seed: int, verdict: Verdict) -> None:
    with scratch() as folder:
        (folder / "given").mkdir()
        manifests = texts(folder / "given")
        with Gateway(folder) as gateway:
            path = manifest(folder / "given", "other", "1", scaled(9.0).SerializeToString())
            gateway.run("apply", "-f", path, "--wait")
            with Bystander(gateway.unix) as bystander:
                storm = Storm(gateway.control, manifests, seed)
                seconds = storm.run(threads, calls)
                now = settled(gateway)
            total = sum(storm.answers.values())
            unexpected = sum(count for answer, count in storm.answers.items() if answer.startswith("unexpected"))
            print(
                f"  {yaml.safe_dump(dict(sorted(storm.answers.items())), default_flow_style=True, width=200).strip()}"
            )
            verdict.check(
                total == threads * calls,
                f"{total} of {threads * calls} calls answered, in {seconds:.1f} s: no deadlock",
            )
            verdict.check(
                unexpected == 0, f"{unexpected} answered otherwise than done, or too late for what they want (0)"
            )
            done = sum(count for answer, count in storm.answers.items() if answer.endswith("done"))
            verdict.check(done > total / 4, f"{done} of them were done (more than a quarter)")
            verdict.check(*as_the_last_command_says(gateway, now))
            verdict.check(
                bystander.errors == 0 and bystander.asked > 0,
                f"{bystander.errors} of {bystander.asked} requests to another model failed (0)",
            )
            assert gateway.process is not None
            gateway.process.send_signal(signal.SIGKILL)
            gateway.process.wait()
        with Gateway(folder) as again:
            after = settled(again)
            serves = {label: (share, current) for label, (_, share, current) in now.items()}
            verdict.check(
                {label: (share, current) for label, (_, share, current) in after.items()} == serves,
                f"after SIGKILL and a new start it stands as before: {sorted(after.items())}",
            )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--threads", type=int, default=32)
    arguments.add_argument("--calls", type=int, default=100, help="by each thread")
    arguments.add_argument("--seed", type=int, default=1)
    given = arguments.parse_args()
    verdict = Verdict(
        f"{given.threads} threads with {given.calls} commands each on one deployment, while another serves"
    )
    show(given.threads, given.calls, given.seed, verdict)
    verdict.end()


if __name__ == "__main__":
    main()
