"""Room on the disk for model files: what the store may take, and which files go first when it is short."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.config import StoreSettings

_MB = 1 << 20
_NAMED = 5
"""So many of the largest holders are named when there is no room."""


@dataclass(frozen=True, slots=True)
class Item:
    """Something that the store has: a file, or a folder with a model and its external data.

    ``keys``: of the files that a manifest may want it by. ``size``: bytes. ``used``: seconds since the epoch.
    """

    path: Path
    keys: frozenset[str]
    size: int
    used: float


def to_go(items: Iterable[Item], kept: Collection[str], short: int) -> list[Item]:
    """What to delete so that ``short`` bytes come free: oldest use first, nothing kept, no more than needed.

    It may come free of less: then these are all that may go.
    """
    going: list[Item] = []
    for item in sorted(items, key=lambda item: (item.used, item.path)):
        if short <= 0:
            break
        if item.keys.isdisjoint(kept):
            going.append(item)
            short -= item.size
    return going


def free_room(folder: Path, taken: int, settings: StoreSettings) -> tuple[int, str]:
    """Bytes that may still be taken (less than 0: too much is taken already), and which limit that is.

    Raises:
        OSError: the disk does not say.
    """
    disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize - settings.reserve_mb * _MB
    if settings.max_mb is not None and settings.max_mb * _MB - taken < free:
        return settings.max_mb * _MB - taken, f"store.maxMB is {settings.max_mb}"
    return free, f"of the disk {settings.reserve_mb} MB stay free, see store.reserveMB"


def no_room(name: str, needed: int, free: int, limit: str, items: Iterable[Item], holders: Mapping[str, str]) -> str:
    """What the operator is told."""
    largest = sorted(items, key=lambda item: -item.size)
    held = [f"{_holder(item, holders)} {in_mb(item.size)}" for item in largest[:_NAMED]]
    more = [f"{len(largest) - _NAMED} more"] if len(largest) > _NAMED else []
    return (
        f"no room for {name}: {in_mb(needed)} needed, {in_mb(max(free, 0))} free ({limit}); "
        f"held by {', '.join(held + more) or 'no model file'}"
    )


def _holder(item: Item, holders: Mapping[str, str]) -> str:
    names = sorted({holders[key] for key in item.keys if key in holders})
    return " and ".join(names) or item.path.name[:12]


def in_mb(size: int) -> str:
    return f"{size / _MB:.1f} MB"
