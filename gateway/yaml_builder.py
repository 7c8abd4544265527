"""Builds the plain data of strict YAML from PyYAML's parse events; ``gateway.strict_yaml`` says what strict means."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any, NoReturn

import yaml

from gateway.strict_yaml import MAX_DEPTH, MAX_DOCUMENT_BYTES, ConfigError, Document, KeyPath, Place, shown_path

_NULL = re.compile(r"(?:null|Null|NULL|~|)\Z")
_BOOLEAN = re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z")
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)\Z")
_FLOAT = re.compile(r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?\Z")


def build(text: str, source: str) -> list[Document]:
    """Every document of the text. Raises ConfigError."""
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
