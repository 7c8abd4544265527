"""Copies of a tensor's bytes on their way through the gateway, beside a server that makes a known one."""

from __future__ import annotations

from benchmarks.bench.rows import BY_NAME
from benchmarks.counts.copies import count, total
from benchmarks.harness import Verdict


def main() -> None:
    verdict = Verdict("copies of tensor bytes per request: 4 MB in, 4 MB out")
    counted = count()
    bare, wasteful, gateway = counted["raw"], counted["wasteful"], counted["gateway"]
    verdict.control(f"a server that hands the message straight back: {bare.fresh:.2f} buffers, gRPC's own")
    more = wasteful.fresh - bare.fresh
    verdict.check(0.75 <= more <= 1.25, f"one copy more in that server is counted as {more:.2f} (0.75 to 1.25)")
    row, copies = BY_NAME["copies"], total(counted)
    verdict.check(row.holds(copies), f"the gateway: {copies:.2f} (2 and 1 for the output; at most {row.bound:g})")
    verdict.control(f"of them in buffers {gateway.fresh - bare.fresh:.2f}, into the slot {gateway.slots - 1:.2f}")
    verdict.end()


if __name__ == "__main__":
    main()
