"""What shadow traffic costs those whose requests are copied: nothing that they could notice.

    python -m benchmarks.show.shadow [--rounds 5] [--count 300] [--bound 1.5]

One gateway with the same model of 5 ms three times: ``plain``, ``slow`` with a shadow that takes ten times as long, and
``killed`` with one that kills the process it runs in. Each gets Poisson arrivals in turn, an eighth of what two cores
could do, and all answers are compared to the truth. The figure is the median over the rounds of p99 with a shadow over
p99 without one.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.harness import Gateway, Verdict, manifest, model_of, scratch, slow, slow_for, value, wait_for
from edgeway.client import AsyncClient, InferenceError
from edgeway.v1 import control_pb2 as control
from gateway.cli.control import Control

RUN, RATE, BUDGET_MS = 0.005, 50.0, 1000.0
NAMES = ("plain", "slow", "killed")


def killer() -> onnx.ModelProto:
    """Takes what the others do; an element of -1 kills the process (see ``harness.poisonable``)."""
    weights = [numpy_helper.from_array(np.int32(number), name) for name, number in (("two", 2), ("one", 1))]
    weights.append(numpy_helper.from_array(np.int32(-(2**31)), "least"))
    nodes = [
        helper.make_node("Cast", ["x"], ["whole"], to=TensorProto.INT32),
        helper.make_node("Mul", ["whole", "two"], ["even"]),
        helper.make_node("Add", ["even", "one"], ["odd"]),
        helper.make_node("Div", ["least", "odd"], ["quotient"]),
        helper.make_node("Cast", ["quotient"], ["y"], to=TensorProto.FLOAT),
    ]
    return model_of(nodes, [value("x", TensorProto.FLOAT, [1])], [value("y", TensorProto.FLOAT, [1])], weights)


def deploy(gateway: Gateway, folder: Path, loops: int) -> None:
    real, shadow = slow(loops), "targets: [cpu]\ntraffic: {percent: 0, shadow: true}"
    paths = [manifest(folder, name, "1", real.SerializeToString(), "targets: [cpu]") for name in NAMES]
    paths.append(manifest(folder, "slow", "2", slow(10 * loops).SerializeToString(), shadow))
    paths.append(manifest(folder, "killed", "2", killer().SerializeToString(), shadow))
    for path in paths:
        done = gateway.run("apply", "-f", path, "--wait")
        if done.returncode:
            raise RuntimeError(done.stderr)


def loops_of(model: onnx.ModelProto) -> int:
    return int(next(numpy_helper.to_array(w) for w in model.graph.initializer if w.name == "trips"))


async def ask(address: str, name: str, count: int, chance: random.Random) -> tuple[list[float], int]:
    """Seconds of each answer, and how many were wrong or none."""
    took: list[float] = []
    bad = 0

    async with AsyncClient(address) as client:

        async def one() -> None:
            nonlocal bad
            began = time.perf_counter()
            try:
                result = await client.infer(name, {"x": np.array([-1.0], np.float32)}, budget_ms=BUDGET_MS)
                bad += bool(result["y"][0] != -1.0 or result.version != "1")
            except InferenceError:
                bad += 1
            took.append(time.perf_counter() - began)

        asked = []
        for _ in range(count):
            asked.append(asyncio.create_task(one()))
            await asyncio.sleep(chance.expovariate(RATE))
        await asyncio.gather(*asked)
    return took, bad


def shadow_of(gateway: Gateway, name: str) -> control.VersionStatus:
    answer = Control(gateway.control).call("GetDeployments", control.GetRequest(name=name))
    return next(each for each in answer.deployments[0].versions if each.version == "2")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--bound", type=float, default=1.5)
    options = parser.parse_args()
    verdict, chance = Verdict("Shadow versions: ten times as slow, and deadly"), random.Random(1)
    tails: dict[str, list[float]] = {name: [] for name in NAMES}
    bad = asked = 0
    with scratch() as folder, Gateway(folder) as gateway:
        deploy(gateway, folder, loops_of(slow_for(RUN)))
        for name in NAMES:
            asyncio.run(ask(gateway.unix, name, 30, chance))
        for _ in range(options.rounds):
            for name in NAMES:
                took, wrong = asyncio.run(ask(gateway.unix, name, options.count, chance))
                tails[name].append(float(np.percentile(took, 99)))
                bad, asked = bad + wrong, asked + len(took)
        wait_for(lambda: shadow_of(gateway, "killed").agreement_detail.total, 10, "the deadly shadow's figure")
        slow_one, deadly = shadow_of(gateway, "slow"), shadow_of(gateway, "killed")
        deaths = [event for event in gateway.get("events") if event["kind"] == "worker-died"]
    verdict.check(bad == 0, f"{bad} of {asked} answers wrong, of another version, or none (0)")
    for name in NAMES[1:]:
        pairs = zip(tails[name], tails["plain"], strict=True)
        ratio, bound = statistics.median(beside / without for beside, without in pairs), options.bound
        verdict.check(ratio <= bound, f"{name}: p99 {ratio:.2f} times that without a shadow (at most {bound:g})")
    verdict.control(f"p99 without a shadow: {statistics.median(tails['plain']) * 1e3:.1f} ms")
    copies = slow_one.agreement_detail
    enough = max(5, options.count * options.rounds // 50)
    verdict.check(
        copies.total >= enough and copies.right == copies.total,
        f"slow: {copies.right} of {copies.total} copies agree (all, of at least {enough})",
    )
    verdict.check(deadly.agreement == 0.0, f"killed: agreement {deadly.agreement:g} (0)")
    elsewhere = [event for event in deaths if event["worker"] != "shadow"]
    verdict.check(
        len(deaths) >= 1 and not elsewhere,
        f"{len(deaths)} deaths of the shadows' own process (some), {len(elsewhere)} of others (0)",
    )
    verdict.end()


if __name__ == "__main__":
    main()
