"""Where a version is while its targets load it, and why those do not have it that don't."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.target import Target


def stage(waiting: Sequence[Target], targets: Sequence[Target], late: bool) -> str:
    """State of a version of which those that are waited for may still come; ``late``: they have had their time."""
    in_reach = [target for target in waiting if not target.out_of_reach]
    if in_reach:
        return "warming" if any(target.warming for target in in_reach) else "loading"
    if late or all(target.barred for target in waiting):
        return "barred" if any(target.barred for target in targets) else "failed"
    return "loading"


def reasons(targets: Sequence[Target]) -> str:
    """Why targets do not load the version."""
    found = ((t.name, t.out_of_reach or t.failure or ("" if t.worker else "no such worker here")) for t in targets)
    return "; ".join(f"{name}: {why}" for name, why in found if why)
