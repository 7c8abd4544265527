"""Memory of gateway and workers after many requests of 0.9 MB, and page faults per request.

    python -m benchmarks.memory [--requests 10000] [-o json]

Memory is proportional (PSS of /proc/PID/smaps_rollup): a page that n processes share counts 1/n for each. Other
processes on the machine that use the same libraries make it smaller, so ``private`` is shown beside it. Page faults are
minor ones (/proc/PID/stat), of gateway and worker together, after a warm-up. The control is the same model in one
Python gRPC process (``benchmarks/direct.py``) after the same requests.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks import direct
from benchmarks.harness import Gateway, Verdict, descendants, model_of, put, scratch, value
from edgeway.upkeep import QUIET
from edgeway.v1 import open_inference_pb2 as oip

BOUND_MB, AIM_MB = 200, 130
"""Of gateway and CPU worker together, right after the requests."""
FRAMES = {"0.9 MB": ((480, 640, 3), 5.0, 1.0), "4.9 MB": ((1080, 1512, 3), 60.0, 10.0)}
"""Size -> shape of a UINT8 frame, page faults a request may take, and the aim."""
WARM = 200
METHOD = oip.SERVICES["inference.GRPCInferenceService"]["ModelInfer"].path


def first_bytes() -> onnx.ModelProto:
    """y = the first 16 bytes of a frame x of any size: the smallest model that takes one."""
    numbers = {"flat": [-1], "zero": [0], "end": [16]}
    weights = [numpy_helper.from_array(np.array(number, np.int64), name) for name, number in numbers.items()]
    nodes = [
        helper.make_node("Reshape", ["x", "flat"], ["row"]),
        helper.make_node("Slice", ["row", "zero", "end"], ["y"]),
    ]
    inputs = [value("x", TensorProto.UINT8, ["h", "w", 3])]
    return model_of(nodes, inputs, [value("y", TensorProto.UINT8, [16])], weights)


def message(shape: tuple[int, ...]) -> bytes:
    frame = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    request = oip.ModelInferRequest(model_name="m")
    request.inputs.add(name="x", datatype="UINT8", shape=shape)
    request.raw_input_contents.append(frame.tobytes())
    return request.SerializeToString()


def ask(address: str, content: bytes, requests: int) -> None:
    """One after the other; each must be answered."""
    with grpc.insecure_channel(address, direct.OPTIONS) as channel:
        infer: Any = channel.unary_unary(METHOD)
        for _ in range(requests):
            infer(content, timeout=20)


def memory(pid: int) -> dict[str, float]:
    """Proportional, private and resident memory of a process in MB."""
    kb: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, number = line.partition(":")
        kb[name] = int(number.split()[0])
    private = kb["Private_Clean"] + kb["Private_Dirty"]
    return {
        "pssMB": round(kb["Pss"] / 1024, 1),
        "privateMB": round(private / 1024, 1),
        "rssMB": round(kb["Rss"] / 1024, 1),
    }


def faults(pid: int) -> int:
    """Minor page faults of a process so far."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[7])


def roles(gateway: Gateway) -> dict[str, int]:
    """Process ids of gateway, CPU worker, and the two that stand by for a worker's death."""
    assert gateway.process is not None
    found = {"gateway": gateway.process.pid, "worker": int(gateway.worker()["pid"])}
    for pid in descendants(gateway.process.pid):
        if pid not in found.values():
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            found["zygote" if parent == gateway.process.pid else "standby"] = pid
    return found


def measure(requests: int, frames: int, quiet: bool) -> dict[str, Any]:
    """``requests`` of 0.9 MB for the memory; ``frames`` of each size for the page faults; ``quiet``: look again when
    nothing was asked for a while.
    """
    figures: dict[str, Any] = {"requests": requests, "faultsPerRequest": {}}
    with scratch() as folder:
        path = put(folder / "models", "m", first_bytes())
        contents = {size: message(shape) for size, (shape, _, _) in FRAMES.items()}
        with Gateway(folder, flags=["--model-repository", str(folder / "models")]) as gateway:
            processes = roles(gateway)
            figures["atStart"] = {role: memory(pid) for role, pid in processes.items()}
            ask(gateway.unix, contents["0.9 MB"], requests)
            figures["after"] = {role: memory(pid) for role, pid in roles(gateway).items()}
            for size, content in contents.items():
                figures["faultsPerRequest"][size] = per_request(
                    gateway.unix, content, frames, [processes["gateway"], processes["worker"]]
                )
            if quiet:
                time.sleep(QUIET + 1.0)  # what is measured: a gateway that had nothing to do for so long
                figures["afterQuiet"] = {role: memory(pid) for role, pid in processes.items()}
        address = f"unix:{folder}/direct.sock"
        with direct.served(address, m=path) as server:
            ask(address, contents["0.9 MB"], requests)
            figures["direct"] = memory(server.pid)
            figures["directFaultsPerRequest"] = {
                size: per_request(address, content, frames, [server.pid]) for size, content in contents.items()
            }
    figures["pssMB"] = round(sum(figures["after"][role]["pssMB"] for role in ("gateway", "worker")), 1)
    return figures


def per_request(address: str, content: bytes, requests: int, pids: list[int]) -> float:
    """Minor page faults of these processes for one request, after a warm-up."""
    ask(address, content, WARM)
    before = sum(map(faults, pids))
    ask(address, content, requests)
    return round((sum(map(faults, pids)) - before) / requests, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=10_000, help="of 0.9 MB, before memory is read")
    parser.add_argument("--frames", type=int, default=500, help="of each size, for the page faults")
    parser.add_argument("--no-quiet", action="store_true", help=f"don't look again after {QUIET:g} s without requests")
    parser.add_argument("-o", "--output", choices=["text", "json"], default="text")
    options = parser.parse_args()
    figures = measure(options.requests, options.frames, not options.no_quiet)
    small = figures["pssMB"] <= BOUND_MB
    few = {size: figures["faultsPerRequest"][size] <= bound for size, (_, bound, _) in FRAMES.items()}
    if options.output == "json":
        print(
            json.dumps({**figures, "boundMB": BOUND_MB, "aimMB": AIM_MB, "ok": small and all(few.values())}, indent=2)
        )
        raise SystemExit(not (small and all(few.values())))
    verdict = Verdict(f"memory after {options.requests} requests of 0.9 MB, and page faults of a request")
    after, later = figures["after"], ""
    if quiet := figures.get("afterQuiet"):
        later = f"; {QUIET:g} s later {quiet['gateway']['pssMB']:.0f} + {quiet['worker']['pssMB']:.0f} MB"
    verdict.check(
        small,
        f"gateway {after['gateway']['pssMB']:.0f} MB + CPU worker {after['worker']['pssMB']:.0f} MB = "
        f"{figures['pssMB']:.0f} MB (at most {BOUND_MB} MB, aim {AIM_MB} MB){later}",
    )
    spare = [f"{role} {after[role]['pssMB']:.0f} MB" for role in ("zygote", "standby") if role in after]
    verdict.control(f"what stands by for the worker's death: {', '.join(spare) or 'not up yet'}")
    verdict.control(f"the same model in one Python gRPC process: {figures['direct']['pssMB']:.0f} MB")
    for size, (_, bound, aim) in FRAMES.items():
        verdict.check(
            few[size],
            f"{size}: {figures['faultsPerRequest'][size]:g} page faults a request (at most {bound:g}, aim {aim:g})",
        )
        verdict.control(f"{size}: {figures['directFaultsPerRequest'][size]:g} in the one Python gRPC process")
    verdict.end()


if __name__ == "__main__":
    main()
