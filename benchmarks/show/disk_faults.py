"""Every n-th open, write, fsync, rename of an install, promotion, roll-back fails with ENOSPC and EIO, for all n."""

from __future__ import annotations

import argparse
import errno
import hashlib
import json
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np

from benchmarks.admin import Admin
from benchmarks.harness import Gateway, Verdict, not_here, scratch, wait_for
from benchmarks.installs import plain, sources, with_files
from benchmarks.syscalls import Call, Supervised, available
from edgeway.client import Client, InferenceError
from edgeway.v1 import control_pb2 as control

CAUSES = {
    errno.ENOSPC: re.compile("No space left on device|(database or )?disk is full"),
    errno.EIO: re.compile("Input/output error|I/O error"),
}
OUTCOME = 20.0
"""Seconds that an install gets."""
OLD = "old"
DONE = ("ready", "done")
MODELS, STATE = "/models", "/state.db"
"""What is in the state directory."""
NOTHING = "\0"
"""In no path."""
QUIET = 0.05
"""Seconds without a call after which an install is over."""
MISSED = 3
"""So many installs in a row that make no n-th call end a sweep."""
LINES = 8
"""So many exceptions are shown."""


@dataclass(frozen=True, slots=True)
class Part:
    """One sweep: the calls on one part of the state directory, while something is done."""

    title: str
    does: str
    of: str


PARTS = (
    Part("install: the model file", "install", MODELS),
    Part("install with external data and golden samples: the files", "install with files", MODELS),
    Part("install: the state", "install", STATE),
    Part("promotion: the state", "promote", STATE),
    Part("roll-back: the state", "rollback", STATE),
)


class Fault:
    """Lets the n-th call on some of the files fail, once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._nth, self._error, self._of = 0, 0, NOTHING
        self._newest = 0.0
        self.calls: list[Call] = []
        self.struck: Call | None = None

    def arm(self, nth: int, error: int, of: str) -> None:
        """``nth``: from 1; 0: none fails. ``of``: the part of the state directory that is counted."""
        with self._lock:
            self._nth, self._error, self._of, self.calls, self.struck = nth, error, of, [], None

    def disarm(self) -> list[Call]:
        """Gives the calls since ``arm``."""
        with self._lock:
            self._of = NOTHING
            return self.calls

    @property
    def quiet(self) -> bool:
        """Whether what was begun is over: writing goes on behind an answer."""
        return time.monotonic() - self._newest > QUIET

    def __call__(self, call: Call) -> int | None:
        with self._lock:
            self._newest = time.monotonic()
            if self._of not in call.path:
                return None
            self.calls.append(call)
            if len(self.calls) != self._nth:
                return None
            self.struck = call
            return self._error


class Installs:
    """Installs new versions of ``m``, each with an answer of its own, and looks at what they leave."""

    def __init__(self, folder: Path, gateway: Gateway, fault: Fault) -> None:
        self._folder, self._gateway, self._fault = folder, gateway, fault
        self._admin = Admin(gateway.control)
        self._client = Client(gateway.unix, deadline_ms=5000)
        self.count = 0
        self.struck: Call | None = None
        """The call that failed in the newest install."""
        self.before = self._models()

    def one(self, part: Part, nth: int, error: int) -> tuple[str, str]:
        """Do it while the n-th call fails; how it ended (ready, done, failed, refused), and what is not as promised."""
        self.count += 1
        label = str(self.count)
        before, after, steps = self._prepare(part.does, label)
        self._fault.arm(nth, error, part.of)
        try:
            state, reason = steps()
        except grpc.RpcError as refused:
            state, reason = "refused", str(refused.details())  # type: ignore[attr-defined]
        except TimeoutError as late:
            state, reason = "late", str(late)
        wait_for(lambda: self._fault.quiet, OUTCOME, "the end of the writing")
        self._fault.disarm()
        self.struck = self._fault.struck
        problem = self._judge(after if state in DONE else before, state, reason, error if self.struck else 0)
        self._remove(label)
        for source in sources(self._folder, label):
            source.unlink()
        return state, problem

    def _prepare(self, does: str, label: str) -> tuple[str, str, Callable[[], tuple[str, str]]]:
        """The version that serves before, the one that does after, and what to do."""
        make = with_files if does == "install with files" else plain
        path = make(self._folder, label, factor_of(label), "traffic: {percent: 0}" if does == "promote" else "")

        def install() -> tuple[str, str]:
            self._admin.apply(path)
            status = self._admin.outcome("m", label, OUTCOME)
            return status.state, status.reason

        def promote() -> tuple[str, str]:
            self._admin.call("Promote", control.PromoteRequest(name="m", version=label))
            return "done", ""

        def roll_back() -> tuple[str, str]:
            self._admin.call("Rollback", control.RollbackRequest(name="m"))
            return "done", ""

        if does.startswith("install"):
            return OLD, label, install
        state, reason = install()
        if state != "ready":
            raise SystemExit(f"{label} is {state}: {reason}")
        wait_for(lambda: self._fault.quiet, OUTCOME, "the end of the writing")
        return (OLD, label, promote) if does == "promote" else (label, OLD, roll_back)

    def _judge(self, serves: str, state: str, reason: str, error: int) -> str:
        """What is not as promised; empty: all is."""
        version, got = self._ask("")
        if (version, got) != (serves, factor_of(serves)):
            return f"{state}, and {version} serves, and answers {got}"
        if state in DONE:
            return ""
        if not error:
            return f"{state} without a fault: {reason}"
        if state == "late" or not names(reason, error):
            return f"{state}, and the error does not name the cause: {reason!r}"
        left = [name for name in self._models() - self.before if not self._usable(name)]
        return f"left behind: {', '.join(sorted(left))}" if left else ""

    def _usable(self, name: str) -> bool:
        """Whether the next try may begin with it: a complete file under its own digest, or a true beginning of a file
        whose download was called off because another file of the version could not be had.
        """
        path = self._folder / "state" / "models" / name
        if name.startswith("partial/"):
            part = path.with_suffix("")
            contents = [source.read_bytes() for source in sources(self._folder, str(self.count))]
            return part.exists() and any(content.startswith(part.read_bytes()) for content in contents)
        if "@" in name:
            return any(path.parent.glob(f"{name.partition('@')[0]}.*"))
        if "-" in name:
            files = json.loads((path.parent / ".listed").read_text())
            return all(sha256(path.parent / file) == digest for file, digest in files.items())
        return sha256(path) == path.stem

    def _ask(self, version: str) -> tuple[str, float]:
        result = self._client.infer("m", {"x": np.ones(1, np.float32)}, version=version)
        return result.version, float(result["y"][0])

    def _remove(self, label: str) -> None:
        try:
            self._admin.call("Delete", control.DeleteRequest(name="m", version=label))
        except grpc.RpcError as unknown:
            if unknown.code() is not grpc.StatusCode.NOT_FOUND:  # type: ignore[attr-defined]
                raise
        wait_for(lambda: self._models() == self.before, OUTCOME, "the end of the files that nothing wants any more")

    def _models(self) -> set[str]:
        models = self._folder / "state" / "models"
        # os.walk goes on where a folder is removed under it.
        return {str(Path(at, file).relative_to(models)) for at, _, files in os.walk(models) for file in files}

    def labels(self) -> set[str]:
        return set(self._admin.versions("m"))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Watch:
    """Asks all the time, for what serves; notes what failed, and answers that are not those of the version named."""

    def __init__(self, address: str) -> None:
        self.failures: list[str] = []
        self.count = 0
        self._address = address
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        with Client(self._address, deadline_ms=5000) as client:
            while not self._stop.wait(0.005):
                self.count += 1
                try:
                    result = client.infer("m", {"x": np.ones(1, np.float32)})
                except InferenceError as failed:
                    self.failures.append(str(failed))
                    continue
                if float(result["y"][0]) != factor_of(result.version):
                    self.failures.append(f"version {result.version} answered {result['y']}")

    def end(self) -> None:
        self._stop.set()
        self._thread.join()


def names(reason: str, error: int) -> bool:
    """Whether a message says why. SQLite says of a sync only that it failed, whatever the disk said."""
    return bool(CAUSES[error].search(reason)) or ("state.db" in reason and "disk I/O error" in reason)


def factor_of(label: str) -> float:
    """What the version multiplies with."""
    return 2.0 if label == OLD else float(label) + 2


def sweep(folder: Path, every: int, verdict: Verdict) -> None:
    fault = Fault()
    supervised = Supervised(folder / "state", fault)
    config = {"workers": [{"name": "cpu", "backend": "cpu"}]}
    gateway = Gateway(folder, config, under=supervised.command, descriptors=(supervised.descriptor,))
    with gateway:
        done = gateway.run("apply", "-f", plain(folder, OLD, 2.0), "--wait")
        if done.returncode:
            raise SystemExit(done.stderr)
        watch, installs = Watch(gateway.unix), Installs(folder, gateway, fault)
        for part in PARTS:
            state, problem = installs.one(part, 0, 0)
            kinds = Counter(call.name for call in fault.calls).most_common()
            calls = ", ".join(f"{count} {name}" for name, count in kinds)
            verdict.control(f"{part.title}, no fault: {state}{problem}; {calls}")
            least = len(fault.calls)
            for error in CAUSES:
                each(installs, part, error, every, least, verdict)
        watch.end()
        verdict.check(
            not watch.failures and watch.count > 50,
            f"meanwhile {watch.count} requests, {len(watch.failures)} failed or mixed (none) {watch.failures[:1]}",
        )
    with gateway:
        labels = installs.labels()
        verdict.check(labels == {OLD}, f"after a restart there is {', '.join(sorted(labels))} (only {OLD})")
    supervised.close()


def each(installs: Installs, part: Part, error: int, every: int, least: int, verdict: Verdict) -> None:
    """The first call fails, then the second of another install, and so on, until installs make no more calls.

    ``least``: as many as an install without a fault has made.
    """
    ends, problems, nth, missed, last = Counter[str](), list[str](), 1, 0, 0
    while missed < MISSED or nth <= least:
        state, problem = installs.one(part, nth, error)
        if installs.struck is None:  # what is written behind an answer may be joined, so that this install wrote less
            missed += 1
        else:
            missed, last = 0, nth
            ends[state] += 1
            if problem:
                problems.append(f"{nth} {installs.struck.name} {Path(installs.struck.path).name}: {problem}")
        nth += every
    told = ", ".join(f"{count} {end}" for end, count in ends.most_common())
    verdict.check(
        not problems and ends["failed"] + ends["refused"] > 0,
        f"{part.title}, {errno.errorcode[error]} at call 1 to {last}: {told}; the old version serves, the error "
        f"names the cause, nothing is left but what the next try may begin with: {len(problems)} exceptions (none)",
    )
    for line in problems[:LINES]:
        print(f"         {line}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="try each so many-th call only")
    options = parser.parse_args()
    if why := available():
        not_here(f"disk faults can't be injected here: {why}")
    verdict = Verdict("each call that touches the disk fails once")
    with scratch() as folder:
        sweep(folder, options.every, verdict)
    verdict.end()


if __name__ == "__main__":
    main()
