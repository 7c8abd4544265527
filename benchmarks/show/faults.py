"""Page faults of the gateway per request with 0.9 and 4.9 MB, beside a server that leaves the allocator as it is."""

from __future__ import annotations

import argparse

from benchmarks.bench.rows import BY_NAME
from benchmarks.counts import faults
from benchmarks.harness import Verdict


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=300, help="of each size")
    options = parser.parse_args()
    verdict = Verdict("minor page faults per request")
    plain, ours = faults.of_plain_server(options.calls), faults.of_gateway(options.calls)
    for case in faults.CASES:
        row = BY_NAME[f"faults-{case.name}"]
        size = f"{case.nbytes / 1e6:.1f} MB"
        verdict.control(f"{size}: {plain[case.name]:.1f} in a server that leaves the allocator as it is")
        verdict.check(row.holds(ours[case.name]), f"{size}: {ours[case.name]:.2f} (at most {row.bound:g})")
        verdict.check(not row.holds(plain[case.name]), f"{size}: the bound tells the two apart")
    verdict.end()


if __name__ == "__main__":
    main()
