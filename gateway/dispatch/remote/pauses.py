"""When the next try or look at an endpoint is due."""

from __future__ import annotations

import asyncio

FIRST_DELAY = 0.2
LONGEST_DELAY = 30.0
LOOK_EVERY = 1.0
"""Seconds between two looks at whether the endpoint and its models are ready."""


def delay_after(failures: int) -> float:
    """Seconds before the next try, after so many in a row: 0, 0.2, 0.4 ... 30."""
    return 0.0 if failures == 0 else min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** (min(failures, 20) - 1))


async def set_or_later(event: asyncio.Event, seconds: float = LOOK_EVERY) -> None:
    """Returns when the event is set, or after so long. (``wait_for`` of Python 3.11 may swallow a cancellation.)"""
    waiting = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({waiting}, timeout=seconds)
    finally:
        waiting.cancel()
