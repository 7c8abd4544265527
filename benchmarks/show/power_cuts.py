"""Power cuts at random moments of install, activation and roll-back: each boot serves exactly the old or the new."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np

from benchmarks.admin import Admin
from benchmarks.harness import Gateway, Verdict, alive, not_here, scratch, wait_for
from benchmarks.installs import plain, sources, with_files
from benchmarks.powercut import Disk, NoDisk
from benchmarks.syscalls import SYNCS, Supervised, available
from edgeway.client import Client, InferenceError
from edgeway.v1 import control_pb2 as control

KINDS = ("install", "apply", "promote", "rollback")
"""A version without traffic; one that takes over once it is ready; one that takes over by command; the way back."""
LASTS = 0.02
"""Seconds until an acknowledgement, and until a version is ready, to begin with; learned while it runs. The power goes
from half of the one or the other before, to one and a half times that after the beginning.
"""
HEAD_START = 0.05
"""Seconds to get a thread going, so that it is no later than the power."""
PADDING = 1 << 20
"""Bytes of text in each model, so that it takes a while to store."""
LIMIT = 30.0
CONTROLS = 8


@dataclass
class Act:
    """What an operator does, in a thread, until the power goes."""

    kind: str
    label: str
    before: str
    """Version that serves until then."""
    after: str
    """Version that serves once it is done."""
    acknowledged: float = float("inf")
    """Monotonic seconds at which the gateway had said yes."""
    done: float = float("inf")
    """At which the version was seen ready; then its source is deleted."""
    moment: float = 0.0
    """At which the power went."""


@dataclass
class Found:
    """A disk as a cut left it."""

    problems: list[str] = field(default_factory=list)
    serves: str = ""


class Device:
    """A gateway whose state is on a disk of its own."""

    def __init__(self, folder: Path, disk: Disk, supervised: Supervised | None, seed: int) -> None:
        self._disk = disk
        self._folder = folder
        self._random = random.Random(seed)
        config = {"workers": [{"name": "cpu", "backend": "cpu"}], "store": {"reserveMB": 0}}
        self._gateway = Gateway(folder, config)
        if supervised is not None:
            self._gateway.under, self._gateway.descriptors = supervised.command, (supervised.descriptor,)
        self._count = 0
        self._until_yes = dict.fromkeys(KINDS, LASTS)
        self._until_done = dict.fromkeys(KINDS, LASTS)

    # -- without trouble -------------------------------------------------------------------------------------------

    def begin(self) -> str:
        """Start with one version that serves; its label."""
        self._gateway.start()
        with Admin(self._gateway.control) as admin:
            label = self._new()
            admin.apply(self._manifest(label, ""))
            self._ready(admin, label)
        return label

    def end(self) -> None:
        if self._gateway.process is not None:
            self._gateway.stop()

    # -- a cut -----------------------------------------------------------------------------------------------------

    def cut(self, kind: str, serves: str) -> tuple[Act, Found]:
        """Do something, let the power go meanwhile, and look at what is there when it is back."""
        with Admin(self._gateway.control) as admin:
            act, steps = self._prepare(admin, kind, serves)
            within = self._random.choice((self._until_yes, self._until_done))[kind]
            begins = time.monotonic() + HEAD_START

            def perform() -> None:
                time.sleep(begins - time.monotonic())
                began = time.monotonic()
                with contextlib.suppress(grpc.RpcError, TimeoutError, AssertionError):  # the power went
                    steps()
                if act.acknowledged < float("inf"):
                    self._until_yes[kind] = act.acknowledged - began
                if act.done < float("inf"):
                    self._until_done[kind] = act.done - began

            thread = threading.Thread(target=perform)
            thread.start()
            time.sleep(max(0.0, begins + self._random.uniform(-0.5, 1.5) * within - time.monotonic()))
            act.moment = time.monotonic()
            self._disk.cut()
            self._kill()
            thread.join(LIMIT)
        return act, self._boot(act)

    def _prepare(self, admin: Admin, kind: str, serves: str) -> tuple[Act, Callable[[], None]]:
        """What has to be there before, and what to do then."""
        for label in list(admin.versions("m")):
            if label != serves:
                admin.call("Delete", control.DeleteRequest(name="m", version=label))
        label = self._new()
        if kind in ("install", "apply"):
            path = self._manifest(label, "traffic: {percent: 0}" if kind == "install" else "")
            act = Act(kind, label, serves, serves if kind == "install" else label)

            def install() -> None:
                admin.apply(path)
                act.acknowledged = time.monotonic()
                self._ready(admin, label)
                act.done = time.monotonic()

            return act, install
        admin.apply(self._manifest(label, "traffic: {percent: 0}" if kind == "promote" else ""))
        self._ready(admin, label)
        act = Act(kind, label, serves, label) if kind == "promote" else Act(kind, label, label, serves)

        def change() -> None:
            if kind == "promote":
                admin.call("Promote", control.PromoteRequest(name="m", version=label))
            else:
                admin.call("Rollback", control.RollbackRequest(name="m"))
            act.acknowledged = act.done = time.monotonic()

        return act, change

    def _ready(self, admin: Admin, label: str) -> None:
        """Wait until it is, and let its source go: from now on there is what the store has."""
        status = admin.outcome("m", label, LIMIT)
        assert status.state == "ready", f"{label}: {status.state}: {status.reason}"
        for source in sources(self._folder, label):
            source.unlink()

    def _new(self) -> str:
        self._count += 1
        return str(self._count)

    def _manifest(self, label: str, more: str) -> str:
        make = self._random.choice((plain, with_files))
        note = self._random.randbytes(PADDING // 2).hex()
        return make(self._folder, label, factor_of(label), more, note)

    def _kill(self) -> None:
        process = self._gateway.process
        assert process is not None and process.stdout is not None
        children = self._gateway.children()
        process.kill()
        process.wait()
        process.stdout.close()
        for child in children:
            try:
                os.kill(child, signal.SIGKILL)
            except ProcessLookupError:
                continue
        wait_for(lambda: not any(alive(child) for child in children), LIMIT, "the end of the workers")

    def _boot(self, act: Act) -> Found:
        found = Found()
        self._disk.unmount()
        self._disk.mount()
        found.problems += [f"torn: {name}" for name in torn(self._folder / "state" / "models")]
        try:
            self._gateway.start()
        except RuntimeError as failed:
            found.problems.append(str(failed).splitlines()[-1])
            return found
        allowed = {act.after} if act.acknowledged < act.moment else {act.before, act.after}
        try:
            with Client(self._gateway.unix, deadline_ms=10_000) as client:
                result = client.infer("m", {"x": np.ones(1, np.float32)})
            found.serves = result.version
            if float(result["y"][0]) != factor_of(result.version):
                found.problems.append(f"version {result.version} answers {result['y']}")
        except InferenceError as failed:
            found.problems.append(f"nothing serves: {failed}")
        with Admin(self._gateway.control) as admin:
            versions = admin.versions("m")
        if found.serves and found.serves not in allowed:
            found.problems.append(f"{found.serves} serves instead of {' or '.join(sorted(allowed))}")
        if act.acknowledged < act.moment and (act.label not in versions or versions[act.label].state == "failed"):
            state = versions[act.label].reason if act.label in versions else "it is not known"
            found.problems.append(f"{act.label} was acknowledged, and is lost: {state}")
        return found


def torn(models: Path) -> list[str]:
    """Files of the store whose content is not what their names say."""
    names = {path: path.stem for kind in ("onnx", "npz") for path in models.glob(f"*.{kind}")}
    for listing in models.glob("*-*/.listed"):
        names |= {listing.with_name(name): digest for name, digest in json.loads(listing.read_text()).items()}
    return [
        f"{path.parent.name}/{path.name}"
        for path, digest in names.items()
        if hashlib.sha256(path.read_bytes()).hexdigest() != digest
    ]


def factor_of(label: str) -> float:
    """What the version multiplies with."""
    return float(label) + 1


def rounds(device: Device, cuts: int, kinds: Sequence[str]) -> tuple[Counter[str], list[str]]:
    """How often each end was met, and a line for each thing that is not as promised."""
    ends: Counter[str] = Counter()
    problems: list[str] = []
    try:
        serves = device.begin()
        for number in range(cuts):
            kind = kinds[number % len(kinds)]
            act, found = device.cut(kind, serves)
            ends["cuts"] += 1
            ends["ready"] += act.done < act.moment
            problems += [f"cut {number + 1} ({kind}): {problem}" for problem in found.problems]
            ends["acknowledged"] += act.acknowledged < act.moment
            if act.before != act.after:
                ends["new" if found.serves == act.after else "old"] += 1
            serves = found.serves
            if not serves:
                break
    finally:
        device.end()
    return ends, problems


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cuts", type=int, default=100)
    parser.add_argument("--controls", type=int, default=CONTROLS, help="cuts without any sync")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--only", nargs="*", choices=KINDS, default=KINDS)
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.randrange(1 << 32)
    verdict = Verdict(f"{options.cuts} power cuts, seed {seed}")
    began = time.monotonic()
    try:
        with scratch() as folder, Disk(folder / "disk.img", folder / "state") as disk:
            ends, problems = rounds(Device(folder, disk, None, seed), options.cuts, options.only)
            disk.unmount()
            complaint = disk.check()
    except NoDisk as why:
        not_here(f"no power can be cut here: {why}")
    took = (time.monotonic() - began) / options.cuts
    verdict.check(
        not problems,
        f"each boot serves exactly the old or the new ({ends['old']} old, {ends['new']} new), no torn file, nothing "
        f"acknowledged is lost ({ends['acknowledged']} were, {ends['ready']} ready or done): {len(problems)} "
        f"exceptions (none); {took:.1f} s for each",
    )
    for problem in problems:
        print(f"         {problem}")
    verdict.check(not complaint, f"the file system is whole {complaint}")
    if options.controls:
        control_run(options.controls, seed, options.only, verdict)
    verdict.end()


def control_run(cuts: int, seed: int, kinds: Sequence[str], verdict: Verdict) -> None:
    """The same gateway on a system whose syncs do nothing."""
    if why := available():
        verdict.control(f"not run: {why}")
        return
    with scratch() as folder, Disk(folder / "disk.img", folder / "state") as disk:
        supervised = Supervised(folder / "state", lambda call: 0 if call.name in SYNCS else None)
        ends, lost = rounds(Device(folder, disk, supervised, seed), cuts, kinds)
    supervised.close()
    verdict.control(f"with syncs that do nothing, cut {ends['cuts']}: {'; '.join(lost) or 'nothing is lost'}")
    verdict.check(bool(lost), f"the cuts are real: without syncs {len(lost)} exceptions (at least 1)")


if __name__ == "__main__":
    main()
