"""Models beside each other on one CPU worker: a cheap one beside long runs, many at once, and calls given up."""

from __future__ import annotations

import argparse
import threading
import time

import numpy as np
import tritonclient.grpc as triton

from benchmarks.harness import Gateway, Verdict, identity, put, scratch, slow_for, wait_for


def call(client: triton.InferenceServerClient, model: str, timeout: float | None = None) -> float:
    """Seconds that one inference took."""
    size = 1000 if model == "cheap" else 1  # not the size of the warm-up
    tensor = triton.InferInput("x", [size], "FP32")
    tensor.set_data_from_numpy(np.ones(size, np.float32))
    began = time.monotonic()
    client.infer(model, [tensor], client_timeout=timeout)
    return time.monotonic() - began


def cheap_beside_long(address: str, verdict: Verdict, seconds: float) -> None:
    """The cheap model's worst wait while the long model is always running."""
    client = triton.InferenceServerClient(address)
    stop = threading.Event()
    runs: list[float] = []

    def keep_busy() -> None:
        own = triton.InferenceServerClient(address)
        while not stop.is_set():
            runs.append(call(own, "long", 30.0))

    threads = [threading.Thread(target=keep_busy) for _ in range(3)]
    for thread in threads:
        thread.start()
    waits = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        waits.append(call(client, "cheap", 5.0))
        time.sleep(0.05)
    stop.set()
    for thread in threads:
        thread.join()
    alone = max(call(client, "cheap") for _ in range(20))
    verdict.control(
        f"cheap alone: at most {alone * 1e3:.1f} ms; a long run beside: {np.median(runs):.2f} s in its queue"
    )
    verdict.check(max(waits) <= 0.5, f"cheap beside 1.5 s runs: at most {max(waits):.3f} s of {len(waits)} (0.5 s)")


def many_at_once(address: str, verdict: Verdict, count: int = 200) -> None:
    client = triton.InferenceServerClient(address)
    tensor = triton.InferInput("x", [1], "FP32")
    tensor.set_data_from_numpy(np.ones(1, np.float32))
    answers: list[object] = []
    began = time.monotonic()
    for _ in range(count):
        client.async_infer("cheap", [tensor], lambda result, error: answers.append(error or result), client_timeout=30)
    wait_for(lambda: len(answers) == count, 40, "the answers")
    failed = [answer for answer in answers if isinstance(answer, Exception)]
    first = f": {failed[0]}" if failed else ""
    took = time.monotonic() - began
    verdict.check(not failed, f"{count} at once: {count - len(failed)} answered in {took:.2f} s (all){first}")


def given_up(address: str, verdict: Verdict) -> None:
    """Six calls of 2 s are abandoned after 0.3 s; how long does the next call take?"""
    client = triton.InferenceServerClient(address)
    alone = call(client, "short", 10.0)

    def abandon() -> None:
        try:
            call(triton.InferenceServerClient(address), "longer", 0.3)
        except triton.InferenceServerException:
            return
        raise AssertionError("a call of 2 s was answered in 0.3 s")

    threads = [threading.Thread(target=abandon) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = call(client, "short", 10.0)
    verdict.control(f"a call of 0.3 s alone: {alone:.2f} s")
    verdict.check(after <= alone + 0.4, f"after six abandoned calls of 2 s: {after:.2f} s (at most 0.4 s more)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="of cheap calls beside long ones")
    options = parser.parse_args()
    verdict = Verdict("models beside each other on one CPU worker")
    with scratch() as folder:
        put(folder / "models", "cheap", identity())
        for name, seconds in (("long", 1.5), ("longer", 2.0), ("short", 0.3)):
            put(folder / "models", name, slow_for(seconds))
        config = {"budget": {"defaultMs": 30000}}
        with Gateway(folder, config, ["--model-repository", str(folder / "models")]) as gateway:
            cheap_beside_long(gateway.unix, verdict, options.seconds)
            many_at_once(gateway.unix, verdict)
            given_up(gateway.unix, verdict)
    verdict.end()


if __name__ == "__main__":
    main()
