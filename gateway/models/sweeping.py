"""Sweeping: the store loses the files of versions that went."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.models.catalog import Catalog
from gateway.models.store import Store


async def keep_swept(catalog: Catalog, store: Store, emit: Callable[..., None], at_once: bool) -> None:
    """Sweep whenever there are files that no version wants any more, and ``at_once``. Until cancelled."""
    changed, wanted = asyncio.Event(), catalog.wanted
    unsubscribe = catalog.subscribe(changed.set)
    try:
        await asyncio.to_thread(store.collect, 0)  # the limit may have been lowered
        while True:
            if at_once or not wanted <= catalog.wanted:
                at_once = False
                for gone in await asyncio.to_thread(store.sweep):
                    emit("store-swept", f"{gone}: no version wants it any more")
            wanted = catalog.wanted
            await changed.wait()
            changed.clear()
    finally:
        unsubscribe()
