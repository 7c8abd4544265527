"""The model repository: Triton-style folders ``NAME/VERSION/model.onnx``, no configuration needed.

What suffix a file may have is for the workers to say, whose backends may be anybody's. A version is one file.
"""

from __future__ import annotations

import asyncio
import os
import re
import stat
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

INTERVAL = 0.25
"""Seconds between two looks: a change is taken on the second look that finds it the same, so within a second."""
KEPT_VERSIONS = 2
"""Newest versions of a model that are loaded: one current, one previous."""
_SUFFIXES = (".onnx", ".tflite", ".plan", ".engine")
"""Where a folder has several model files, which one is taken; behind these, others by name."""
_UNFINISHED = (".tmp", ".part", ".swp")
_FILE = re.compile(r"model(\.[A-Za-z0-9]{1,16})")
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
            for path in _files(version):
                try:
                    status = path.stat()
                except OSError:
                    continue
                if not stat.S_ISREG(status.st_mode):
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


def _files(version: os.DirEntry[str]) -> list[Path]:
    """What may be the model file of a version, best first."""
    try:
        names = [path.name for path in Path(version.path).iterdir() if _FILE.fullmatch(path.name)]
    except OSError:
        return []
    suffixes = sorted(name.removeprefix("model") for name in names)
    rest = [suffix for suffix in suffixes if suffix not in (*_SUFFIXES, *_UNFINISHED)]
    return [Path(version.path) / f"model{suffix}" for suffix in (*[s for s in _SUFFIXES if s in suffixes], *rest)]


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
