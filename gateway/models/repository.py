"""The model repository: Triton-style folders ``NAME/VERSION/model.onnx``, no configuration needed."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

INTERVAL = 0.25
"""Seconds between two looks: a change is taken on the second look that finds it the same, so within a second."""
KEPT_VERSIONS = 2
"""Newest versions of a model that are loaded: one current, one previous."""
_SUFFIXES = (".onnx", ".tflite", ".plan")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True)
class Found:
    """One model file of the repository; ``stamp`` changes whenever the file does."""

    name: str
    version: str
    path: Path
    stamp: tuple[int, int, int]


def scan(root: Path) -> dict[str, list[Found]]:
    """Models by name, each with its versions, oldest first (numbers by value, before them other labels by name).

    Folders with unusable names, and versions without a model file, are left out.
    """
    models: dict[str, list[Found]] = {}
    for model in _folders(root):
        versions = []
        for version in _folders(Path(model.path)):
            for suffix in _SUFFIXES:
                path = Path(version.path) / f"model{suffix}"
                try:
                    status = path.stat()
                except OSError:
                    continue
                stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
                versions.append(Found(model.name, version.name, path, stamp))
                break
        if versions:
            models[model.name] = sorted(versions, key=_age)
    return models


def _folders(root: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(root) as entries:
            return [entry for entry in entries if _NAME.fullmatch(entry.name) and entry.is_dir()]
    except OSError:
        return []


def _age(found: Found) -> tuple[bool, int, str]:
    number = int(found.version) if found.version.isascii() and found.version.isdigit() else 0
    return found.version.isdigit(), number, found.version


async def follow(root: Path, changed: Callable[[dict[str, list[Found]]], Awaitable[None]]) -> None:
    """Call ``changed`` with the whole repository at once and after every change. Ends by cancellation.

    A file that is still being written has a new stamp at every look, so only what stayed the same for one interval
    is taken.
    """
    known = await asyncio.to_thread(scan, root)
    await changed(known)
    before = known
    while True:
        await asyncio.sleep(INTERVAL)
        now = await asyncio.to_thread(scan, root)
        if now == before and now != known:
            known = now
            await changed(known)
        before = now
