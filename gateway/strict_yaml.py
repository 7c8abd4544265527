"""YAML read strictly: plain data and the line of every value, or one error that names source, line and path.

YAML 1.1, which PyYAML implements, has surprises that a device must not meet in the field: `off` is False, `010` is 8,
`1:30` is 90, `2024-01-01` is a date, the last of two equal keys wins, aliases grow a small file without bound and tags
build objects. So only PyYAML's parser is used, never its resolvers and constructors: the values are built here from
parse events, and an unquoted scalar means exactly this (YAML 1.2's core schema without octal, hexadecimal, infinity):

    null, Null, NULL, ~ and nothing at all      null
    true, True, TRUE, false, False, FALSE       boolean
    0, -7, +12; no leading zeros, no `_`        integer of 64 bits
    0.5, .5, 1e-2, 3.                           float, finite
    everything else                             string: yes, off, 010, 0x1F, 1:30, 2024-01-01, sha256:...

Anchors, aliases, tags, merge keys, duplicate keys, keys that are no strings, more than `MAX_DEPTH` levels and documents
of more than `MAX_DOCUMENT_BYTES` are refused. JSON is read as well, since it is a subset of what is left.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_DOCUMENT_BYTES = 64 * 1024
"""Longest document. Manifests have some 4 KiB at most; PyYAML needs 0.2 s for 64 KiB on a small core."""

MAX_FILE_BYTES = 1024 * 1024
"""Longest text of several documents."""

MAX_DEPTH = 32
"""Deepest nesting. A manifest uses five levels; the rest is for the opaque `options` of a worker."""

KeyPath = tuple[str | int, ...]
"""Keys and indexes from the root of a document to a value."""

_PATH_STEP = re.compile(r"\.([^.\[\]]+)|\[([0-9]+)\]")
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*\Z")


class ConfigError(ValueError):
    """Something in a configuration file or a manifest is wrong; `str()` is one line: `source:line: path: problem`.

    Attributes:
        source: file name, or what else the text came from.
        line: 1-based line in the source; None where there is none (the file cannot be read, the data came as a dict).
        path: where in the document, as in `spec.artifacts[0].uri`; empty for the document itself.
        problem: what was expected, what was found and, where there is one, the remedy.
    """

    def __init__(self, source: str, line: int | None, path: str, problem: str) -> None:
        self.source = source
        self.line = line
        self.path = path
        self.problem = " ".join(problem.split())
        place = source if line is None else f"{source}:{line}"
        super().__init__(": ".join(part for part in (place, path, self.problem) if part))


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands, and how it is written there when it is an unquoted scalar (`1.10` is not `1.1`)."""

    line: int
    written: str | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML document: plain data (None, bool, int, float, str, list, dict with string keys) and its places."""

    source: str
    data: Any
    places: Mapping[KeyPath, Place]

    def line(self, path: str | KeyPath) -> int | None:
        """The 1-based line of a value, or of the nearest value around it; None for data that was never a text.

        Args:
            path: keys and indexes, or the same written as `$.spec.artifacts[0].uri`.
        """
        keys = key_path(path) if isinstance(path, str) else path
        for end in range(len(keys), -1, -1):
            if place := self.places.get(keys[:end]):
                return place.line
        return None

    def error(self, path: KeyPath, problem: str) -> ConfigError:
        """The error that says what is wrong with the value at a path."""
        return ConfigError(self.source, self.line(path), shown_path(path), problem)


def key_path(path: str) -> KeyPath:
    """Keys and indexes of a path written as `$.workers[0].name`."""
    return tuple(key or int(index) for key, index in _PATH_STEP.findall(path))


def shown_path(path: KeyPath) -> str:
    """A path as errors show it: `spec.artifacts[0].uri`, with odd keys in quotes: `metadata.labels["a.b"]`."""
    shown = ""
    for step in path:
        if isinstance(step, int):
            shown += f"[{step}]"
        elif _PLAIN_KEY.match(step):
            shown += f".{step}" if shown else step
        else:
            shown += f"[{json.dumps(step)}]"
    return shown


def parse(text: str, source: str) -> Document:
    """The one document of a text; its data is None when the text is empty or only comments.

    Args:
        text: YAML or JSON.
        source: what errors call the text, usually the file's name.

    Raises:
        ConfigError: the text is not strict YAML (see the module), or has more than one document.
    """
    documents = parse_all(text, source)
    if len(documents) > 1:
        raise ConfigError(
            source, documents[1].line(()), "", "expected a single document, found another one after `---`"
        )
    return documents[0] if documents else Document(source, None, {(): Place(1)})


def parse_all(text: str, source: str) -> list[Document]:
    """Every document of a text with `---` between them; empty documents are kept, with None as data.

    Raises:
        ConfigError: one of the documents is not strict YAML (see the module).
    """
    if len(text.encode(errors="surrogatepass")) > MAX_FILE_BYTES:
        raise ConfigError(source, 1, "", f"is longer than {MAX_FILE_BYTES // 1024} KiB")
    from gateway.yaml_builder import build  # here: PyYAML takes 15 ms to import, and many a start needs none

    return build(text, source)
