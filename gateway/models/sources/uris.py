"""What URIs of models say besides where to connect to."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

_LONGEST = 200
_UNSEEN = re.compile(r"[^\x20-\x7e]")


def suffix_of(uri: str) -> str:
    """What kind of model it is, by its name: ``.onnx``. An artifact in a registry has a name only after ``#``, and is
    ONNX without one.
    """
    if uri.startswith("oci:"):
        return PurePosixPath(unquote(uri.partition("#")[2])).suffix or ".onnx"
    return PurePosixPath(unquote(urlsplit(uri).path)).suffix


def beside(uri: str, name: str) -> str:
    """The URI of another file at the same place; ``name`` has no folders."""
    if uri.startswith("oci:"):
        return f"{uri.partition('#')[0]}#{name}"
    return f"{uri.partition('?')[0].rpartition('/')[0]}/{name}"


def shown(text: str) -> str:
    """Foreign text for a message: one line, printable, not long."""
    line = _UNSEEN.sub("?", text)
    return line if len(line) <= _LONGEST else line[: _LONGEST - 3] + "..."


def masked(uri: str) -> str:
    """The URI for a message: without user, password and query, which may hold keys."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        return shown(uri.partition("?")[0].rpartition("@")[2])
    host, query = parts.netloc.rpartition("@")[2], "?..." if parts.query else ""
    slashes = "//" if parts.netloc or parts.scheme == "file" else ""
    file = f"#{parts.fragment}" if parts.scheme == "oci" and parts.fragment else ""
    return shown(f"{parts.scheme}:{slashes}{host}{parts.path}{query}{file}")
