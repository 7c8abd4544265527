"""Drift of a classifier whose camera is turned, and its accuracy by labels that come late.

    python -m benchmarks.show.drift [--reference 1000] [--recorded 1000] [--turned 500] [--starts 100]
                                    [--replayed 3000000]

The digits model answers, through a gateway, frames of handwritten digits that its training never saw: those of one half
are the reference, those of the other half, upright and turned by 20 degrees, are recorded. Recorded answers, drawn with
replacement, are replayed through the observer's decision code, which scores each 25th answer over the newest 250:

- starts: between 250 and 500 upright answers, then turned ones: how many until the first alarm (score above 0.2);
- upright answers only: alarms, each score above the limit being one;
- the control: the same starts, turned by 0 degrees.

Then the same once for real: a gateway, a camera that is turned after a while, the score in ``edgeway get deployments``,
and labels by ``edgeway feedback`` after all of it, compared with what the answers say themselves.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.harness import Gateway, Verdict, manifest, scratch, wait_for
from edgeway.client import Client
from workers.observing.drift import DriftWatch, Reference

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"
sys.path.insert(0, str(DIGITS))
from frames import Frames  # noqa: E402

CONFIG: dict[str, object] = {"budget": {"defaultMs": 20000}, "workers": [{"name": "cpu", "backend": "cpu"}]}
MODEL, OUTPUT = "digits", "scores"
WINDOW, LIMIT, DEGREES = 250, 0.2, 20.0
WITHIN = 500
"""Requests from the turn to the alarm."""
FALSE_ALARMS = 30
"""In 3 million upright answers."""
Bins = list[tuple[list[int], ...]]


def asked(client: Client, frames: Frames, count: int, prefix: str = "") -> Iterator[tuple[np.ndarray, int]]:
    """Scores and label of so many frames; ``prefix``: of the ids that requests get."""
    for number in range(count):
        frame, label = frames.next()
        request_id = f"{prefix}{number}" if prefix else ""
        yield client.infer(MODEL, {"frame": frame}, request_id=request_id)[OUTPUT], label


def recorded(client: Client, count: int, seed: int, split: str, degrees: float = 0.0) -> np.ndarray:
    """(count, 10): answers."""
    frames = Frames(seed, split)
    frames.degrees = degrees
    return np.stack([scores for scores, _ in asked(client, frames, count)])


def until_alarm(reference: Reference, upright: Bins, after: Bins, random: np.random.Generator) -> int | None:
    """Answers from the turn to the first alarm, at most ``WITHIN``; 0: it was before; None: there was none."""
    watch = DriftWatch(reference, WINDOW, LIMIT)
    for index in random.integers(len(upright), size=int(random.integers(WINDOW, 2 * WINDOW))).tolist():
        if watch.add(upright[index]) and watch.score is not None and watch.score.alarm:
            return 0
    for number, index in enumerate(random.integers(len(after), size=WITHIN).tolist(), 1):
        if watch.add(after[index]) and watch.score is not None and watch.score.alarm:
            return number
    return None


def alarms_of(reference: Reference, upright: Bins, count: int, random: np.random.Generator) -> tuple[int, float]:
    """Alarms in so many answers, and the highest score."""
    watch = DriftWatch(reference, WINDOW, LIMIT)
    alarms, highest, left = 0, 0.0, count
    while left > 0:
        for index in random.integers(len(upright), size=min(left, 100_000)).tolist():
            if watch.add(upright[index]) and watch.score is not None:
                alarms += watch.score.alarm
                highest = max(highest, watch.score.value)
        left -= 100_000
    return alarms, highest


def replays(options: argparse.Namespace, reference: Reference, upright: Bins, turned: Bins, verdict: Verdict) -> None:
    random = np.random.default_rng(1)
    found = [until_alarm(reference, upright, turned, random) for _ in range(options.starts)]
    late = sorted(number for number in found if number)
    middle, last = (late[len(late) // 2], late[-1]) if late else (0, 0)
    verdict.check(
        len(late) >= 0.95 * options.starts,
        f"turned by {DEGREES:g} degrees: alarm within {WITHIN} answers in {len(late)} of {options.starts} starts "
        f"(at least 95 %); the middle one after {middle}, the last after {last}",
    )
    same = sum(until_alarm(reference, upright, upright, random) is not None for _ in range(options.starts))
    verdict.control(f"turned by 0 degrees: {same} of {options.starts} starts with an alarm")
    began = time.perf_counter()
    alarms, highest = alarms_of(reference, upright, options.replayed, random)
    took = time.perf_counter() - began
    verdict.check(
        alarms <= FALSE_ALARMS * options.replayed / 3e6,
        f"upright: {alarms} alarms in {options.replayed} answers (at most {FALSE_ALARMS} in 3 million); the highest "
        f"score {highest:.3f}; {took / options.replayed * 1e6:.1f} us an answer",
    )


def live(gateway: Gateway, client: Client, verdict: Verdict) -> None:
    """A camera that is turned after a while, and labels when all is over."""
    frames = Frames(99, "test")
    hits: dict[str, tuple[int, int]] = {}

    def some(count: int, prefix: str) -> None:
        for number, (scores, label) in enumerate(asked(client, frames, count, prefix)):
            hits[f"{prefix}{number}"] = int(scores.argmax()), label

    def status() -> dict[str, object]:
        (deployment,) = gateway.get("deployments", MODEL)
        return next(version for version in deployment["versions"] if version["current"])

    some(WINDOW + 50, "upright-")
    before = wait_for(lambda: status().get("drift") is not None and status(), 20, "a first score")
    verdict.control(f"for real, upright: drift {before['drift']:.3f} after {WINDOW + 50} requests")
    frames.degrees = DEGREES
    requests, score = 0, float(before["drift"])
    while requests < WITHIN and score <= LIMIT:
        some(50, f"turned-{requests}-")
        requests += 50
        score = float(status()["drift"])
    verdict.check(
        float(before["drift"]) <= LIMIT < score,
        f"for real, turned: drift {score:.3f} (above {LIMIT:g}) in get deployments {requests} requests after the turn "
        f"(at most {WITHIN})",
    )
    lines = [f"{request},{label}" for request, (_, label) in hits.items()]
    wrong_first = [f"{request},99" for request in list(hits)[:20]]  # replaced by the right ones that follow
    np.random.default_rng(2).shuffle(lines)
    sent = gateway.run("feedback", MODEL, "--file", "-", text="\n".join([*wrong_first, *lines]) + "\n")
    right = sum(predicted == label for predicted, label in hits.values())
    expected = right / len(hits)
    wait_for(lambda: status().get("accuracy") == expected or None, 10, "the accuracy") if not sent.returncode else None
    accuracy = status().get("accuracy")
    verdict.check(
        sent.returncode == 0 and accuracy == expected,
        f"{len(hits)} late labels: accuracy {accuracy} in get deployments; {right} of {len(hits)} are right by the "
        f"answers themselves, {expected} (the same){sent.stderr[-300:] if sent.returncode else ''}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=int, default=1000, help="frames of the reference")
    parser.add_argument("--recorded", type=int, default=1000, help="upright frames that replays draw from")
    parser.add_argument("--turned", type=int, default=500, help="turned frames that replays draw from")
    parser.add_argument("--starts", type=int, default=100)
    parser.add_argument("--replayed", type=int, default=3_000_000)
    options = parser.parse_args()
    verdict = Verdict("drift of a classifier whose camera is turned")
    model = (DIGITS / "models" / "digits-1.1.onnx").read_bytes()
    with scratch() as folder, Gateway(folder, CONFIG) as gateway, Client(gateway.unix) as client:

        def apply(version: str, more: str = "") -> None:
            done = gateway.run("apply", "-f", manifest(folder, MODEL, version, model, more), "--wait")
            if done.returncode:
                raise SystemExit(done.stderr)

        apply("1.1")
        known = recorded(client, options.reference, 11, "validation")
        upright = recorded(client, options.recorded, 12, "test")
        turned = recorded(client, options.turned, 13, "test", DEGREES)
        reference = Reference(known, WINDOW)
        replays(options, reference, reference.sort(upright), reference.sort(turned), verdict)
        np.savez(folder / "reference.npz", **{OUTPUT: known})
        digest = hashlib.sha256((folder / "reference.npz").read_bytes()).hexdigest()
        named = f"reference: 'file:reference.npz', checksum: 'sha256:{digest}'"
        apply("1.1-watched", f"drift: {{{named}, window: {WINDOW}}}")
        live(gateway, client, verdict)
    verdict.end()


if __name__ == "__main__":
    main()
