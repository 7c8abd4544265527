"""The states of a version, and which may follow which. docs/lifecycle.md shows this table; a test compares them."""

from __future__ import annotations

from collections.abc import Mapping

TRANSITIONS: Mapping[str, frozenset[str]] = {
    "new": frozenset({"fetching", "verifying", "ready", "unloaded", "rolledBack"}),
    "fetching": frozenset({"fetching", "verifying", "loading", "failed", "rolledBack"}),
    "verifying": frozenset({"fetching", "verifying", "loading", "failed", "rolledBack"}),
    "loading": frozenset({"warming", "ready", "barred", "failed", "rolledBack"}),
    "warming": frozenset({"loading", "ready", "barred", "failed", "rolledBack"}),
    "ready": frozenset({"failed", "unloaded", "rolledBack"}),
    "failed": frozenset({"fetching", "verifying", "loading", "ready", "rolledBack"}),
    "barred": frozenset({"loading", "rolledBack"}),
    "unloaded": frozenset({"fetching", "verifying", "loading", "rolledBack"}),
    "rolledBack": frozenset({"fetching", "verifying"}),
}
"""From a state to those that may follow. ``new`` is what a version is before its first; it is never shown. Other
content for the same version, or a deletion, begins and ends the whole at any time.
"""

COMING = frozenset({"fetching", "verifying", "loading", "warming"})
"""On its way up."""
OVER = frozenset({"failed", "barred", "rolledBack", "unloaded"})
"""Neither in service nor on its way up."""


class ForbiddenTransition(Exception):
    """The code wants a version to become what it can't."""


def follow(state: str, wanted: str) -> str:
    """``wanted``, where it may follow ``state``. Raises ForbiddenTransition."""
    if wanted not in TRANSITIONS[state]:
        raise ForbiddenTransition(f"{state} -> {wanted}")
    return wanted
