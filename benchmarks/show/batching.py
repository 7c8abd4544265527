"""What joining requests into one run gains, and what it costs one that is alone.

    python -m benchmarks.show.batching [--rounds 3] [--seconds 3]

One gateway with the same model twice: ``plain``, and ``batched`` with ``batching: {maxSize: 16, maxDelayMs: 3}``. The
model is three dense layers of 2560 x 2560: a run of one row has to fetch as many weights from memory as one of sixteen.
Sixteen callers in closed loops ask one of the two for some seconds, then the other, and so on in turn; the figure is
the median over the rounds of the ratio of answers per second. Then one caller alone asks both in turn: what its
requests wait before their run begins, by the answers' own account, is the delay and no more. Every answer is compared
to what the model says of the same input.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from dataclasses import dataclass

import grpc
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.harness import Gateway, Verdict, manifest, model_of, scratch, value
from edgeway import parameters as names
from edgeway.v1 import open_inference_pb2 as oip

METHOD = oip.SERVICES["inference.GRPCInferenceService"]["ModelInfer"].path
CALLERS = 16
WIDTH = 2560
DELAY_MS = 3.0
GAIN = 2.0
"""Times the answers per second without batching, at least."""
WAKE_MS = 1.0
"""What a timer and a wake-up may take beyond the delay."""
INPUTS = 8


def dense() -> onnx.ModelProto:
    """y = tanh(tanh(x A) B) C of rows of ``WIDTH``."""
    generator = np.random.default_rng(1)
    nodes, weights, before = [], [], "x"
    for layer in range(3):
        matrix = (generator.standard_normal((WIDTH, WIDTH)) / np.sqrt(WIDTH)).astype(np.float32)
        weights.append(numpy_helper.from_array(matrix, f"w{layer}"))
        last = layer == 2
        nodes.append(helper.make_node("MatMul", [before, f"w{layer}"], ["y" if last else f"m{layer}"]))
        if not last:
            nodes.append(helper.make_node("Tanh", [f"m{layer}"], [f"t{layer}"]))
            before = f"t{layer}"
    shape = ["batch", WIDTH]
    return model_of(nodes, [value("x", TensorProto.FLOAT, shape)], [value("y", TensorProto.FLOAT, shape)], weights)


def message(model: str, row: np.ndarray) -> bytes:
    request = oip.ModelInferRequest(model_name=model)
    request.inputs.add(name="x", datatype="FP32", shape=row.shape)
    request.raw_input_contents.append(row.tobytes())
    return request.SerializeToString()


@dataclass
class Load:
    """Callers in closed loops over one channel each."""

    address: str
    rows: list[np.ndarray]
    truth: list[np.ndarray]
    wrong: int = 0
    answers: int = 0

    async def ask(self, model: str, callers: int, seconds: float) -> tuple[float, list[float]]:
        """(answers per second, ms that each one's run waited)."""
        waits: list[float] = []
        messages = [message(model, row) for row in self.rows]
        began = time.perf_counter()

        async def one(caller: int) -> int:
            count = 0
            async with grpc.aio.insecure_channel(self.address) as channel:
                call = channel.unary_unary(METHOD)
                while time.perf_counter() - began < seconds:
                    index = (caller + count) % len(messages)
                    answer = oip.ModelInferResponse.FromString(await call(messages[index], timeout=30))
                    got = np.frombuffer(answer.raw_output_contents[0], np.float32)
                    self.wrong += not np.allclose(got, self.truth[index].reshape(-1), rtol=1e-3, atol=1e-4)
                    waits.append(answer.parameters[names.QUEUE_US].int64_param / 1e3)
                    count += 1
            return count

        counts = await asyncio.gather(*(one(caller) for caller in range(callers)))
        self.answers += sum(counts)
        return sum(counts) / (time.perf_counter() - began), waits


async def measure(load: Load, rounds: int, seconds: float, verdict: Verdict) -> None:
    rates: dict[str, list[float]] = {"plain": [], "batched": []}
    for _ in range(rounds):
        for model, taken in rates.items():
            taken.append((await load.ask(model, CALLERS, seconds))[0])
    gain = statistics.median(b / p for b, p in zip(rates["batched"], rates["plain"], strict=True))
    plain, batched = (statistics.median(taken) for taken in rates.values())
    verdict.control(f"{CALLERS} callers without batching: {plain:.0f} answers/s")
    verdict.check(gain >= GAIN, f"with batching: {batched:.0f} answers/s, {gain:.1f} x (at least {GAIN:g} x)")
    waits = {}
    for model in ("plain", "batched"):
        waits[model] = statistics.median((await load.ask(model, 1, seconds / 2))[1])
    verdict.control(f"a lone caller without batching: its run waits {waits['plain']:.2f} ms (p50)")
    most = DELAY_MS + WAKE_MS
    verdict.check(waits["batched"] <= most, f"with batching: {waits['batched']:.2f} ms (p50, at most {most:g} ms)")
    verdict.check(not load.wrong, f"{load.wrong} of {load.answers} answers differ from the model's (none)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="per model and round")
    options = parser.parse_args()
    verdict = Verdict("requests that go in one run of the model")
    import onnxruntime as ort

    with scratch() as folder:
        content = dense().SerializeToString()
        session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
        rows = [np.random.default_rng(i).standard_normal((1, WIDTH)).astype(np.float32) for i in range(INPUTS)]
        truth = [session.run(None, {"x": row})[0] for row in rows]
        del session
        with Gateway(folder, {"budget": {"defaultMs": 20000}}) as gateway:
            for name, more in (
                ("plain", ""),
                ("batched", f"batching: {{maxSize: {CALLERS}, maxDelayMs: {DELAY_MS:g}}}"),
            ):
                done = gateway.run("apply", "-f", manifest(folder, name, "1", content, more, "cpu"), "--wait")
                if done.returncode:
                    raise SystemExit(done.stderr)
            asyncio.run(measure(Load(gateway.unix, rows, truth), options.rounds, options.seconds, verdict))
    verdict.end()


if __name__ == "__main__":
    main()
