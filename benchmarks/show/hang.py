"""A hung accelerator, by SIGSTOP and inside a run: answers stay in budget, and it comes back without an operator."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import time

import numpy as np

from benchmarks.chaos import Class, play
from benchmarks.harness import Gateway, Verdict, manifest, scratch, slow_for
from edgeway.v1 import control_pb2 as control
from gateway.cli.control import Control

RATE, BUDGET_MS = 50.0, 20.0
LATEST_MS = 60.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="of load after the hang began")
    parser.add_argument("--hang", type=float, default=10.0, help="seconds that the hang inside the run lasts")
    options = parser.parse_args()
    verdict = Verdict(f"accelerator hangs for {options.hang:g} s, {RATE:g} requests/s, budget {BUDGET_MS:g} ms")
    before = 3.0
    for how in ("SIGSTOP", "hang inside the run call"):
        sim: dict[str, object] = {"serviceMs": 3}
        origin = time.monotonic() + 6.0 + before
        if how != "SIGSTOP":
            sim |= {"origin": origin, "faults": [{"at": 0, "hang": True, "seconds": options.hang}]}

        config = {
            "workers": [
                {"name": "sim", "backend": "simulated", "options": sim},
                {"name": "cpu", "backend": "cpu", "instances": 1},
            ]
        }
        with scratch() as folder, Gateway(folder, config) as gateway:
            more = f"targets: [sim, cpu]\nlatency: {{budgetMs: {BUDGET_MS:g}}}"
            path = manifest(folder, "m", "1", slow_for(0.002).SerializeToString(), more, "simulated")
            applied = gateway.run("apply", "-f", path, "--wait")
            assert applied.returncode == 0, applied.stderr
            admin = Control(gateway.control)

            def worker(admin: Control = admin) -> control.Accelerator:
                return admin.call("GetAccelerators", control.GetRequest(name="sim")).accelerators[0]

            old = worker().pid
            hung_at: list[float] = []
            back: list[float] = []

            async def trouble(
                began: float,
                how: str = how,
                origin: float = origin,
                hung_at: list[float] = hung_at,
                old: int = old,
                back: list[float] = back,
                worker=worker,
            ) -> None:
                if how == "SIGSTOP":
                    await asyncio.sleep(before)
                    os.kill(old, signal.SIGSTOP)
                    hung_at.append(time.monotonic() - began)
                else:
                    await asyncio.sleep(max(0.0, origin - time.monotonic()))
                    hung_at.append(origin - began)
                stop = time.monotonic() + options.seconds
                while time.monotonic() < stop:
                    now = await asyncio.to_thread(worker)
                    if now.pid not in (0, old) and now.state == "ready":
                        back.append(time.monotonic() - began - hung_at[0])
                        return
                    await asyncio.sleep(0.05)

            seconds = (before if how == "SIGSTOP" else max(0.0, origin - time.monotonic())) + options.seconds
            inputs = {"x": np.ones(1, np.float32)}
            tally = asyncio.run(
                play(gateway.unix, "m", inputs, [Class("normal", RATE, BUDGET_MS)], seconds, beside=trouble)
            )
            after = tally.of(since=hung_at[0])
            first = sorted(after.samples, key=lambda s: s.sent)[:10]
            second = after.of(until=hung_at[0] + 1.0)
            print(f"{how}:")
            for line in tally.lines():
                print(f"  {line}")
            verdict.control(f"{how}: before it {tally.of(until=hung_at[0]).share_in_budget():.1%} in budget")
            verdict.check(after.share_in_budget() >= 0.99, f"{how}: {after.share_in_budget():.2%} in budget (99 %)")
            verdict.check(
                sum(s.in_budget for s in first) >= 9, f"{how}: {sum(s.in_budget for s in first)} of the first 10 (9)"
            )
            verdict.check(
                second.share_in_budget() >= 0.95, f"{how}: {second.share_in_budget():.1%} of the first second (95 %)"
            )
            verdict.check(
                after.slowest() <= LATEST_MS, f"{how}: slowest {after.slowest():.0f} ms (at most {LATEST_MS:g})"
            )
            verdict.check(after.count("failed") == 0, f"{how}: {after.count('failed')} failed (0)")
            serving = tally.of(since=hung_at[0] + options.seconds - 3.0)
            again = sum(s.target == "sim" for s in serving.samples)
            verdict.check(
                bool(back) and again > 0,
                f"{how}: another process ready after {back[0] if back else float('nan'):.1f} s; "
                f"{again} of the last {len(serving.samples)} served by it (some)",
            )
    verdict.end()


if __name__ == "__main__":
    main()
