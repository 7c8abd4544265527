"""Stock clients, each in a process of its own, over TCP and over a Unix socket."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks.harness import Gateway, Verdict, identity, put, scratch

STOCK = Path(__file__).parent / "stock"
LIMIT = 120.0


def health(address: str) -> str:
    """What ``grpc.health.v1`` says of the server and of the model."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        states = [
            stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=5).status for name in ("", "identity")
        ]
    return "ok" if states == [health_pb2.HealthCheckResponse.SERVING] * 2 else f"states {states}"


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    verdict = Verdict("stock clients: metadata, config, statistics, index, health, inference")
    with scratch() as folder:
        put(folder / "models", "identity", identity())
        with Gateway(folder, flags=["--model-repository", str(folder / "models")]) as gateway:
            for transport, address in (("tcp", gateway.address), ("unix", gateway.unix)):
                for program in sorted(STOCK.glob("*.py")):
                    done = subprocess.run(
                        [sys.executable, str(program), address], capture_output=True, text=True, timeout=LIMIT
                    )
                    said = (done.stdout.strip() or (done.stderr.strip().splitlines() or ["nothing"])[-1])[-200:]
                    verdict.check(done.returncode == 0, f"{program.stem} over {transport}: {said}")
                said = health(address)
                verdict.check(said == "ok", f"grpc.health.v1 over {transport}: {said}")
    verdict.end()


if __name__ == "__main__":
    main()
