"""Model files that are wrong: refused with the reason, and the version before keeps serving."""

from __future__ import annotations

import argparse
import threading

import numpy as np

from benchmarks.harness import Gateway, Verdict, manifest, scaled, scratch
from edgeway.client import Client, InferenceError


class Watch:
    """Asks all the time, and notes who answered and what failed."""

    def __init__(self, address: str) -> None:
        self.versions: set[str] = set()
        self.failures: list[str] = []
        self.count = 0
        self._address = address
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def _ask(self) -> None:
        with Client(self._address) as client:
            while not self._stop.wait(0.005):
                try:
                    result = client.infer("m", {"x": np.ones(2, np.float32)})
                    self.versions.add(result.version)
                    if result["y"].tolist() != [2.0, 2.0]:
                        self.failures.append(f"wrong answer {result['y']}")
                except InferenceError as failed:
                    self.failures.append(str(failed))
                self.count += 1

    def end(self) -> None:
        self._stop.set()
        self._thread.join()


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    verdict = Verdict("model files that are wrong")
    good = scaled(2.0).SerializeToString()
    with scratch() as folder, Gateway(folder) as gateway:
        first = gateway.run("apply", "-f", manifest(folder, "m", "1.0", good), "--wait")
        verdict.control(f"a right file: apply --wait exits {first.returncode}")
        watch = Watch(gateway.unix)
        for version, content, checksum, word in (
            ("other-checksum", good, "0" * 64, "sha256"),
            ("truncated", good[: len(good) // 2], None, ""),
            ("no-onnx", b"#!/bin/sh\necho hello\n" * 20, None, ""),
            ("empty", b"", None, ""),
        ):
            path = manifest(folder, "m", version, content, checksum=checksum)
            done = gateway.run("apply", "-f", path, "--wait", "--timeout", "20")
            versions = {v["version"]: v for v in gateway.get("deployments", "m")[0]["versions"]}
            state, reason = versions[version]["state"], versions[version]["reason"]
            verdict.check(
                done.returncode == 1 and state == "failed" and bool(reason) and word in reason,
                f"{version}: apply --wait exits {done.returncode}, get deployments says {state}: {reason}",
            )
        watch.end()
        verdict.check(
            not watch.failures and watch.versions == {"1.0"} and watch.count > 50,
            f"meanwhile {watch.count} requests, served by {watch.versions}, {len(watch.failures)} failed (none)",
        )
        second = gateway.run("apply", "-f", manifest(folder, "m", "2.0", good), "--wait")
        versions = {v["version"]: v for v in gateway.get("deployments", "m")[0]["versions"]}
        verdict.check(
            second.returncode == 0 and versions["2.0"]["current"],
            f"a right 2.0 takes over: {versions['2.0']['state']}, {versions['2.0']['percent']} %",
        )
    verdict.end()


if __name__ == "__main__":
    main()
