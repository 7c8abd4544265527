"""Shares of versions through a real gateway: exact in every hundred answers, and keys that move where they must."""

from __future__ import annotations

import argparse
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.harness import Gateway, Verdict, manifest, scaled, scratch
from edgeway.client import Client
from gateway.routing.places import place_of

Shares = dict[str, int]
INPUT = {"x": np.ones(1, np.float32)}


def put(gateway: Gateway, folder: Path, version: str, percent: int | None) -> None:
    """Apply the version's manifest; a second time it differs in its percent only."""
    traffic = "" if percent is None else f"traffic: {{percent: {percent}}}"
    path = manifest(folder, "m", version, scaled(float(version)).SerializeToString(), traffic)
    done = gateway.run("apply", "-f", path, "--wait")
    if done.returncode:
        raise RuntimeError(done.stderr)


def asked(gateway: Gateway, hundreds: int, clients: int) -> Counter[str]:
    """Versions that answered, of requests without a key from several clients at once."""
    with ThreadPoolExecutor(clients) as pool:
        shares = [(hundreds * 100 + client) // clients for client in range(clients)]
        return sum(pool.map(lambda count: _ask(gateway.unix, count), shares), Counter())


def _ask(address: str, count: int) -> Counter[str]:
    with Client(address) as client:
        return Counter(client.infer("m", INPUT).version for _ in range(count))


def in_turn(gateway: Gateway, count: int) -> list[str]:
    """Versions that answered one client, in the order of its requests: that of the decisions."""
    with Client(gateway.unix) as client:
        return [client.infer("m", INPUT).version for _ in range(count)]


def placed(gateway: Gateway, keys: Sequence[str], clients: int) -> dict[str, str]:
    """Which version each key meets."""
    met: dict[str, str] = {}
    lock = threading.Lock()

    def ask(part: Sequence[str]) -> None:
        with Client(gateway.unix) as client:
            found = {key: client.infer("m", INPUT, route_key=key).version for key in part}
        with lock:
            met.update(found)

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(ask, [keys[start::clients] for start in range(clients)]))
    return met


def off(counts: Counter[str], shares: Shares, requests: int) -> float:
    """The largest difference from a share, in requests."""
    return max(abs(counts[version] - requests * percent / 100) for version, percent in shares.items())


def windows(versions: Sequence[str], shares: Shares) -> float:
    """The largest difference from a share in any hundred in a row."""
    return max(off(Counter(versions[start : start + 100]), shares, 100) for start in range(len(versions) - 99))


def show(verdict: Verdict, keys: int, hundreds: int, clients: int) -> None:
    names = [f"robot-{number}" for number in range(keys)]
    with scratch() as folder, Gateway(folder) as gateway:
        put(gateway, folder, "1", None)
        verdict.check(
            asked(gateway, 2, clients) == {"1": 200}, "100 : 0 is that: 200 of 200 answers from the only version"
        )
        put(gateway, folder, "2", 10)
        shares = {"1": 90, "2": 10}
        seen = in_turn(gateway, 100 * hundreds + 37)
        verdict.check(
            windows(seen, shares) <= 1,
            f"90 : 10, one client: any hundred in a row is off by at most {windows(seen, shares):.0f} (1), "
            f"{len(seen) - 99} of them looked at",
        )
        counts = asked(gateway, hundreds, clients)
        verdict.check(
            off(counts, shares, 100 * hundreds) <= 1,
            f"90 : 10, {clients} clients at once: {dict(counts)} of {100 * hundreds} (within 1)",
        )
        before = placed(gateway, names, clients)
        again = placed(gateway, names[: keys // 10], clients)
        verdict.check(all(before[key] == met for key, met in again.items()), "a key asked again meets the same version")
        seen = in_turn(gateway, 60)
        put(gateway, folder, "2", 20)
        seen += in_turn(gateway, 40)
        verdict.check(
            10 <= Counter(seen)["2"] <= 20,
            f"the hundred across the change to 20 %: {Counter(seen)['2']} from the canary (10 to 20)",
        )
        after = placed(gateway, names, clients)
        moved = Counter((before[key], after[key]) for key in names if before[key] != after[key])
        share = moved["1", "2"] / keys
        verdict.check(
            set(moved) <= {("1", "2")} and 0.5 < share / 0.1 < 1.5,
            f"10 -> 20 % moves {sum(moved.values())} of {keys} keys, all to the canary (a tenth)",
        )
        naive = sum(anew(key, 10) != anew(key, 20) for key in names)
        verdict.control(f"hashing keys anew with the shares would move {naive}")
        put(gateway, folder, "3", 30)
        shares = {"1": 50, "2": 20, "3": 30}
        counts = asked(gateway, hundreds, clients)
        verdict.check(
            off(counts, shares, 100 * hundreds) <= 1,
            f"50 : 20 : 30, {clients} clients at once: {dict(counts)} of {100 * hundreds} (within 1)",
        )
        three = placed(gateway, names, clients)
        moved = Counter((after[key], three[key]) for key in names if after[key] != three[key])
        verdict.check(
            set(moved) <= {("1", "3")} and 0.8 < sum(moved.values()) / (0.3 * keys) < 1.2,
            f"a third version with 30 % moves {sum(moved.values())} of {keys} keys, all from the first one",
        )
        assert gateway.process is not None
        gateway.process.kill()
        gateway.process.wait()
        gateway.start()
        restarted = placed(gateway, names, clients)
        verdict.check(
            restarted == three, "after SIGKILL and a new start every key meets the version that it met before"
        )


def anew(key: str, percent: int) -> bool:
    """Whether a key would be the canary's if its place depended on the shares."""
    return place_of(f"{percent} {key}") < percent


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--keys", type=int, default=10_000)
    arguments.add_argument("--hundreds", type=int, default=20)
    arguments.add_argument("--clients", type=int, default=8)
    given = arguments.parse_args()
    verdict = Verdict(f"shares of two and three versions, {given.keys} keys, {given.clients} clients at once")
    show(verdict, given.keys, given.hundreds, given.clients)
    verdict.end()


if __name__ == "__main__":
    main()
