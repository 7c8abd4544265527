"""Graded shedding: which priorities leave an accelerator as it warms."""

from __future__ import annotations

LEVELS = ("nominal", "warm", "hot", "critical")
"""From cool to hot; what shedding acts on is one of them."""
_FIRST_SHED = {"nominal": 10, "warm": 7, "hot": 4, "critical": 0}
"""Smallest priority number that leaves: low is 7-9, normal 4-6, high 1-3."""
_DEFAULT_PRIORITY = 5
"""What 0 means."""


def sheds(level: str, priority: int) -> bool:
    """Whether requests of this priority (1 highest to 9, 0: default) leave an accelerator at this level."""
    return (priority or _DEFAULT_PRIORITY) >= _FIRST_SHED[level]
