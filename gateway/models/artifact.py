"""What is wanted of the store, what it gives, and why it does not."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from gateway.models.sources.uris import masked, suffix_of

SUFFIX = r"\.[A-Za-z0-9]{1,16}"
"""What follows the digest in a file's name, as a regular expression."""

Told = Callable[[int, int], None]
"""Is told of bytes had and bytes in all (0: not known), from the thread that fetches. What it raises ends the fetch."""


class ArtifactRefused(Exception):
    """The file can't be had, or is not what the manifest says. The message says which."""


class LinkLost(ArtifactRefused):
    """The source can't be reached any more. What came so far is kept, and the next fetch goes on from there."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One file that a manifest names. ``name``: of external data, as the model names it. ``sha256``: hex digest; empty:
    any content will do, and it is fetched anew when ``edition`` changes.
    """

    uri: str
    sha256: str
    size: int | None = None
    name: str = ""
    edition: str = ""

    @property
    def key(self) -> str:
        """64 hex digits that the store has it by."""
        return self.sha256.lower() or hashlib.sha256(f"{self.edition} {self.uri}".encode()).hexdigest()

    @property
    def suffix(self) -> str:
        """``.onnx``; empty: its name has none."""
        suffix = suffix_of(self.uri)
        return suffix if re.fullmatch(SUFFIX, suffix) else ""

    @property
    def label(self) -> str:
        """What messages call it."""
        return self.name or PurePosixPath(unquote(urlsplit(self.uri).path)).name or masked(self.uri)


@dataclass(frozen=True, slots=True)
class Artifact:
    """A model file that was verified. ``suffix``: ``.onnx``."""

    path: Path
    sha256: str
    suffix: str
    external: tuple[tuple[str, str], ...] = ()
    """Name and SHA-256 of each file of external data, which lie beside ``path``."""


Fetch = Callable[[Wanted, Path, Told], str]
"""Completes the file at the path, where a beginning may be, and gives the hex digest of all of it. Raises LinkLost when
a later call may go on, ArtifactRefused when it may not, OSError when the file can't be written.
"""
