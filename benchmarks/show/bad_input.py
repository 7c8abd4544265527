"""Bad requests: the right code, a message that names tensor, expected and got, and everybody stays up."""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterator, Sequence

import grpc
from onnx import TensorProto, helper

from benchmarks.harness import Gateway, Verdict, model_of, put, scratch, value
from edgeway.v1 import open_inference_pb2 as oip

INFER = oip.SERVICES["inference.GRPCInferenceService"]["ModelInfer"]
INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
EXPLAINED = ("expected", "got")
TOO_MUCH = grpc.StatusCode.RESOURCE_EXHAUSTED


def request(
    model: str = "add", version: str = "", tensors: Sequence[tuple[str, str, Sequence[int]]] | None = None
) -> oip.ModelInferRequest:
    """A request for c = a + b with a and b FP32 [2, 3], no data yet."""
    message = oip.ModelInferRequest(model_name=model, model_version=version)
    for name, datatype, shape in tensors or (("a", "FP32", [2, 3]), ("b", "FP32", [2, 3])):
        message.inputs.add(name=name, datatype=datatype, shape=shape)
    return message


def raw(message: oip.ModelInferRequest, *sizes: int) -> bytes:
    message.raw_input_contents.extend(bytes(size) for size in sizes)
    return message.SerializeToString()


def typed(message: oip.ModelInferRequest, *counts: int, field: str = "fp32_contents") -> bytes:
    for tensor, count in zip(message.inputs, counts, strict=True):
        getattr(tensor.contents, field).extend([1] * count)
    return message.SerializeToString()


Case = tuple[str, bytes, grpc.StatusCode, tuple[str, ...]]
A, B = ("a", "FP32", [2, 3]), ("b", "FP32", [2, 3])


def cases() -> Iterator[Case]:
    """(title, message, code, words that the error must hold)."""
    yield "unknown model", raw(request("nope"), 24, 24), NOT_FOUND, ("nope",)
    yield "unknown version", raw(request(version="9"), 24, 24), NOT_FOUND, ("9",)
    for kind, fill in (("raw", raw), ("typed", typed)):
        unit = 4 if kind == "raw" else 1
        yield f"missing tensor, {kind}", fill(request(tensors=[A]), 6 * unit), INVALID, ("b",)
        extra = request(tensors=[A, B, ("z", "FP32", [1])])
        yield f"extra tensor, {kind}", fill(extra, 6 * unit, 6 * unit, unit), INVALID, ("z",)
        shape = request(tensors=[("a", "FP32", [3, 2]), B])
        yield f"wrong shape, {kind}", fill(shape, 6 * unit, 6 * unit), INVALID, ("a", "[2, 3]", "[3, 2]")
        rank = request(tensors=[("a", "FP32", [6]), B])
        yield f"wrong rank, {kind}", fill(rank, 6 * unit, 6 * unit), INVALID, ("a", "[2, 3]", "[6]")
        short = request()
        yield f"too little data, {kind}", fill(short, 5 * unit, 6 * unit), INVALID, ("a", str(6 * unit), str(5 * unit))
        long = request()
        yield f"too much data, {kind}", fill(long, 6 * unit, 7 * unit), INVALID, ("b", str(6 * unit), str(7 * unit))
        negative = request(tensors=[("a", "FP32", [-2, -3]), B])
        yield f"negative dims, {kind}", fill(negative, 6 * unit, 6 * unit), INVALID, ("a", "-2")
        huge = request(tensors=[("a", "FP32", [1 << 62, 8]), B])
        yield f"overflowing dims, {kind}", fill(huge, 6 * unit, 6 * unit), INVALID, ("a", str(1 << 62))
        wrapping = request(tensors=[("a", "FP32", [1 << 32, 1 << 32]), B])
        yield f"dims whose product wraps to 0, {kind}", fill(wrapping, 0, 6 * unit), INVALID, ("a",)
    dtype = request(tensors=[("a", "FP64", [2, 3]), B])
    yield "wrong dtype, raw", raw(dtype, 48, 24), INVALID, ("a", "FP32", "FP64")
    dtype = request(tensors=[("a", "INT64", [2, 3]), ("b", "INT64", [2, 3])])
    yield "wrong dtype, typed", typed(dtype, 6, 6, field="int64_contents"), INVALID, ("a", "FP32", "INT64")
    yield "unknown dtype", raw(request(tensors=[("a", "FP99", [2, 3]), B]), 24, 24), INVALID, ("a", "FP99")
    yield "wrong field", typed(request(), 6, 6, field="fp64_contents"), INVALID, ("a", "fp32_contents", "fp64_contents")
    twice = request(tensors=[A, A])
    yield "a tensor twice", raw(twice, 24, 24), INVALID, ("a",)
    both = request()
    both.inputs[0].contents.fp32_contents.extend([1] * 6)
    yield "raw and typed", raw(both, 24, 24), INVALID, ("a",)
    yield "fewer raw tensors", raw(request(), 24), INVALID, ("2", "1")
    output = request()
    output.outputs.add(name="nothing")
    yield "unknown output", raw(output, 24, 24), INVALID, ("nothing",)
    late = request()
    late.parameters["timeout"].string_param = "soon"
    yield "timeout of a wrong type", raw(late, 24, 24), INVALID, ("timeout",)


def malformed(count: int) -> Iterator[bytes]:
    """Messages that are no ModelInferRequest: cut, overlong, wrong wire types, noise; repeatable."""
    good = raw(request(), 24, 24)
    noise = random.Random(0)
    yield good[:-3]
    yield good[:9]
    yield b"\x0a\xff\xff\xff\xff\x0f"
    yield b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"
    yield b"\x3a\x80\x80\x80\x80\x80\x80\x80\x80\x7f"
    yield b"\x08"
    yield b"\x0b\x0c"
    yield b"\x00\x01"
    yield b"\x0a\x01\xff"  # a name that is no UTF-8
    yield b"\x2a\x02\x0a\x05"
    for _ in range(count - 10):
        yield b"\x2a\x7f" + noise.randbytes(noise.randrange(1, 60))


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    verdict = Verdict("bad input")
    shape = [value(name, TensorProto.FLOAT, [2, 3]) for name in "abc"]
    add = model_of([helper.make_node("Add", ["a", "b"], ["c"])], shape[:2], shape[2:])
    with scratch() as folder:
        put(folder / "models", "add", add)
        with Gateway(folder, flags=["--model-repository", str(folder / "models")]) as gateway:
            options = [("grpc.max_send_message_length", -1)]
            with grpc.insecure_channel(gateway.unix, options) as channel:
                infer = channel.unary_unary(INFER.path)
                before = (gateway.process.pid if gateway.process else 0, gateway.worker()["pid"])
                run(infer, verdict)
                infer(raw(request(), 24, 24), timeout=5)
            worker = gateway.worker()
            after = (gateway.process.pid if gateway.process else 0, worker["pid"])
            verdict.check(after == before and not worker["restarts"], "gateway and worker are the same processes still")
    verdict.end()


def run(infer: Callable[..., bytes], verdict: Verdict) -> None:
    assert infer(raw(request(), 24, 24), timeout=5)
    assert infer(typed(request(), 6, 6), timeout=5)
    verdict.control("the same request, right, raw and typed: answered")
    for title, message, code, words in cases():
        got, said = outcome(infer, message)
        lacking = [word for word in (*words, *EXPLAINED * (code is INVALID)) if word not in said]
        verdict.check(
            got is code and not lacking, f"{title}: {got.name}: {said}" + (f"; lacks {lacking}" * bool(lacking))
        )
    codes = {outcome(infer, message)[0] for message in malformed(50)}
    verdict.check(codes == {INVALID}, f"50 malformed messages: {', '.join(sorted(code.name for code in codes))}")
    got, said = outcome(infer, bytes(200 << 20))
    verdict.check(got is TOO_MUCH, f"200 MB: {got.name}: {said}")


def outcome(infer: Callable[..., bytes], message: bytes) -> tuple[grpc.StatusCode, str]:
    try:
        infer(message, timeout=20)
    except grpc.RpcError as failed:
        return failed.code(), failed.details() or ""  # type: ignore[attr-defined]
    return grpc.StatusCode.OK, ""


if __name__ == "__main__":
    main()
