"""A camera of labelled frames that asks a gateway what it sees, and prints one JSON object per frame.

    python camera.py --seconds 10

A frame whose time has passed while the one before was answered is dropped, as a camera would.
"""

from __future__ import annotations

import argparse
import json
import time

from edgeway.client import Client, InferenceError
from frames import Frames

MODEL = "digits"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--address", help="unix:/PATH or HOST:PORT; default: the socket in the runtime directory")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=30.0, help="frames per second")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--start", type=float, help="time.monotonic() of the first frame; default: now")
    arguments = parser.parse_args()
    frames = Frames(arguments.seed)
    start = time.monotonic() if arguments.start is None else arguments.start
    with Client(arguments.address) as client:
        frame, label = frames.next()
        number = 0
        while number < arguments.seconds * arguments.rate:
            time.sleep(max(0.0, start + number / arguments.rate - time.monotonic()))
            line = {"at": round(time.monotonic() - start, 4), "label": label}
            try:
                result = client.infer(MODEL, {"frame": frame})
            except InferenceError as failed:
                line |= {"error": f"{failed.code.name}: {failed}"}
            else:
                line |= {
                    "digit": int(result["scores"].argmax()),
                    "ms": round(result.wall_ms, 3),
                    "servedBy": result.served_by,
                    "kind": result.kind,
                    "reason": result.reason,
                    "budgetLeftMs": result.budget_left_ms,
                }
            print(json.dumps(line), flush=True)
            frame, label = frames.next()  # composed while no request is under way: a real camera costs the CPU nothing
            number = max(number + 1, int((time.monotonic() - start) * arguments.rate))


if __name__ == "__main__":
    main()
