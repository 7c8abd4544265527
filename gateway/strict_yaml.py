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
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import yaml

MAX_DOCUMENT_BYTES = 64 * 1024
"""Longest document. Manifests have some 4 KiB at most; PyYAML needs 0.2 s for 64 KiB on a small core."""

MAX_FILE_BYTES = 1024 * 1024
"""Longest text of several documents."""

MAX_DEPTH = 32
"""Deepest nesting. A manifest uses five levels; the rest is for the opaque `options` of a worker."""

KeyPath = tuple[str | int, ...]
"""Keys and indexes from the root of a document to a value."""

_NULL = re.compile(r"(?:null|Null|NULL|~|)\Z")
_BOOLEAN = re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z")
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)\Z")
_FLOAT = re.compile(r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?\Z")
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
    try:
        return list(_Builder(text, source).documents())
    except yaml.reader.ReaderError as refused:
        line = text.count("\n", 0, refused.position) + 1
        code = refused.character if isinstance(refused.character, int) else ord(refused.character)
        raise ConfigError(source, line, "", f"the character U+{code:04X} is not allowed") from refused
    except yaml.MarkedYAMLError as refused:
        mark = refused.problem_mark or refused.context_mark
        at = None if mark is None else mark.line + 1
        problem = refused.problem or refused.context or "is no YAML"
        raise ConfigError(source, at, "", f"is not valid YAML: {problem}") from refused


class _Builder:
    """Builds plain data from the parse events of one text."""

    def __init__(self, text: str, source: str) -> None:
        # JSON may be indented with tabs, which YAML refuses even within brackets. JSON has no raw tab in a string.
        self._text = text.replace("\t", " ") if text.lstrip("\ufeff \t\r\n").startswith(("{", "[")) else text
        self._source = source
        self._places: dict[KeyPath, Place] = {}
        self._document_start = 0
        self._events = self._checked_events()

    def documents(self) -> Iterator[Document]:
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                self._places = {}
                if event.tags:
                    self._refuse(event, (), "tag directives are not allowed")
                data = self._value(next(self._events), ())
                yield Document(self._source, data, self._places)

    def _checked_events(self) -> Iterator[Any]:
        """The events of the text; a document is measured while it is read: a long one costs no more than 64 KiB."""
        events: Iterator[Any] = yaml.parse(self._text, Loader=yaml.SafeLoader)
        for event in events:
            begins: bool = isinstance(event, yaml.DocumentStartEvent)
            if begins:
                self._document_start = event.start_mark.index
            elif event.end_mark.index - self._document_start > MAX_DOCUMENT_BYTES // 4:
                # Characters are counted in bytes only where that could matter; UTF-8 has at most four a character.
                read = self._text[self._document_start : event.end_mark.index]
                if len(read.encode(errors="surrogatepass")) > MAX_DOCUMENT_BYTES:
                    self._refuse(event, (), f"the document is longer than {MAX_DOCUMENT_BYTES // 1024} KiB")
            yield event

    def _value(self, event: Any, path: KeyPath, key_line: int | None = None) -> Any:
        """The value that begins with an event, its places noted.

        Args:
            event: scalar, start of a mapping or sequence, or alias.
            path: where the value is.
            key_line: line of its key; a mapping or list is said to stand where its key does.
        """
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            self._refuse(event, path, "anchors and aliases (`&name`, `*name`) are not allowed; write the value out")
        if event.tag is not None:
            self._refuse(event, path, f"tags such as {json.dumps(event.tag)} are not allowed")
        if isinstance(event, yaml.ScalarEvent):
            plain = not event.style
            self._places[path] = Place(_line(event), event.value if plain else None)
            return self._plain(event, path) if plain else self._quoted(event, path)
        self._places[path] = Place(key_line or _line(event))
        if len(path) >= MAX_DEPTH:
            self._refuse(event, path[:4], f"is nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(path)
        return self._sequence(path)

    def _sequence(self, path: KeyPath) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._value(event, (*path, len(items))))
        return items

    def _mapping(self, path: KeyPath) -> dict[str, Any]:
        entries: dict[str, Any] = {}
        lines: dict[str, int] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._key(event, path)
            if key in entries:
                self._refuse(event, (*path, key), f"is given twice; the first one is on line {lines[key]}")
            lines[key] = _line(event)
            entries[key] = self._value(next(self._events), (*path, key), lines[key])
        return entries

    def _key(self, event: Any, path: KeyPath) -> str:
        if isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            self._refuse(event, path, "a key must be a string, not a mapping or list")
        inside = (*path, "")
        key = self._value(event, inside)
        del self._places[inside]
        if not isinstance(key, str):
            self._refuse(event, path, f"the key {event.value or 'null'} is not a string; put it in quotes")
        if key == "<<" and not event.style:
            self._refuse(event, path, "merge keys (`<<`) are not allowed; write the values out")
        return key

    def _plain(self, event: Any, path: KeyPath) -> Any:
        written: str = event.value
        if _NULL.match(written):
            return None
        if _BOOLEAN.match(written):
            return written in ("true", "True", "TRUE")
        number: float
        if _INTEGER.match(written):
            # Twenty characters hold every integer of 64 bits; Python itself refuses to read more than 4300.
            if len(written) <= 20 and -(2**63) <= (number := int(written)) < 2**63:
                return number
            self._refuse(event, path, f"{_shortened(written)} does not fit 64 bits; put it in quotes if it is a label")
        if _FLOAT.match(written):
            if math.isfinite(number := float(written)):
                return number
            self._refuse(event, path, f"{_shortened(written)} is too large a number; put it in quotes if it is a label")
        return written

    def _quoted(self, event: Any, path: KeyPath) -> str:
        written: str = event.value
        try:
            # JSON writes characters beyond the first plane as two escapes, which PyYAML leaves as two halves.
            return written.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError as refused:
            raise ConfigError(self._source, _line(event), shown_path(path), "has half of a surrogate pair") from refused

    def _refuse(self, event: Any, path: KeyPath, problem: str) -> NoReturn:
        raise ConfigError(self._source, _line(event), shown_path(path), problem)


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _shortened(written: str) -> str:
    return written if len(written) <= 24 else f"{written[:21]}..."
