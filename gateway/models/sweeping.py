"""Sweeping: the store loses the files of versions that went."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from gateway.models.catalog import Catalog
from gateway.models.store import Store

AGAIN = 1.0
"""Seconds until the next look at what is still being fetched, though nobody wants it any more."""


async def keep_swept(catalog: Catalog, store: Store, emit: Callable[..., None], at_once: bool) -> None:
    """Sweep whenever there are files that no version wants any more, and ``at_once``. Until cancelled."""
    changed, wanted, due = asyncio.Event(), catalog.wanted, at_once
    unsubscribe = catalog.subscribe(changed.set)
    try:
        await asyncio.to_thread(store.collect, 0)  # the limit may have been lowered
        while True:
            due = due or not wanted <= catalog.wanted
            wanted = catalog.wanted
            if due:
                gone, due = await asyncio.to_thread(store.sweep)
                for name in gone:
                    emit("store-swept", f"{name}: no version wants it any more")
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(changed.wait(), AGAIN if due else None)
            changed.clear()
    finally:
        unsubscribe()
