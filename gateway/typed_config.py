"""From plain data to typed settings: msgspec's checks, in words that name the place and the remedy."""

from __future__ import annotations

import difflib
import re
from typing import Any, TypeVar

import msgspec

from gateway.strict_yaml import Document, KeyPath

T = TypeVar("T")

_PLACE = re.compile(r" - at `(?:key in )?\$(?P<path>[^`]*)`$")
_PART = re.compile(r"\.([A-Za-z_][\w-]*)|\[(\d+)\]|\[(\.\.\.)\]")
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>[^`]*)`")
_TYPE = re.compile(r"Expected `(?P<expected>[^`]*)`, got `(?P<got>[^`]*)`")
_MISSING = re.compile(r"Object missing required field `(?P<name>[^`]*)`")
_WORDS = {
    "int": "an integer",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "nothing",
}


class Problem(ValueError):
    """A value that has the right type but can't be: raised in ``__post_init__``, with the field's path below it."""

    def __init__(self, path: KeyPath, problem: str) -> None:
        super().__init__(problem)
        self.path = path
        self.problem = problem


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """A mapping with known keys, written in camelCase."""


def typed(document: Document, kind: type[T]) -> T:
    """The document as a ``kind``.

    Raises:
        ConfigError: naming file, line, path, what was expected and what was found.
    """
    try:
        return msgspec.convert(document.data, kind, strict=True)
    except msgspec.ValidationError as refused:
        path, text = _place(str(refused))
        if isinstance(refused.__cause__, Problem):
            raise document.error((*path, *refused.__cause__.path), refused.__cause__.problem) from None
        raise _explain(document, kind, path, text) from None


def section(data: Any, kind: type[T], below: KeyPath) -> T:
    """A mapping whose kind another field decides, as a ``kind``; ``below``: where it stands in its section.

    Raises:
        Problem
    """
    try:
        return msgspec.convert(data, kind, strict=True)
    except msgspec.ValidationError as refused:
        path, text = _place(str(refused))
        if isinstance(refused.__cause__, Problem):
            raise Problem((*below, *path, *refused.__cause__.path), refused.__cause__.problem) from None
        if unknown := _UNKNOWN.search(text):
            known = ", ".join(_keys(kind, path))
            raise Problem((*below, *path, unknown["name"]), f"unknown field; known are {known}") from None
        if missing := _MISSING.search(text):
            raise Problem((*below, *path, missing["name"]), "is missing") from None
        raise Problem((*below, *path), f"{text[:1].lower()}{text[1:]}, got {show(_value(data, path))}") from None


def _place(message: str) -> tuple[KeyPath, str]:
    found = _PLACE.search(message)
    if found is None:
        return (), message
    parts: list[str | int] = []
    for name, index, _ in _PART.findall(found["path"]):
        if name:
            parts.append(name)
        elif index:
            parts.append(int(index))
    return tuple(parts), message[: found.start()]


def _explain(document: Document, kind: type, path: KeyPath, text: str) -> Exception:
    if unknown := _UNKNOWN.search(text):
        known = _keys(kind, path)
        close = difflib.get_close_matches(unknown["name"], known, 1)
        hint = f"; did you mean {close[0]}?" if close else (f"; known are {', '.join(known)}" if known else "")
        return document.error((*path, unknown["name"]), f"unknown field{hint}")
    if missing := _MISSING.search(text):
        return document.error((*path, missing["name"]), "is missing")
    value = _value(document.data, path)
    if mismatch := _TYPE.search(text):
        expected = " or ".join(_WORDS.get(word.strip(), word.strip()) for word in mismatch["expected"].split("|"))
        remedy = ""
        if "str" in mismatch["expected"] and isinstance(value, (int, float)) and not isinstance(value, bool):
            remedy = "; put it in quotes"
        place = document.places.get(path)
        got = f"the number {place.written}" if remedy and place and place.written else show(value)
        return document.error(path, f"expected {expected}, got {got}{remedy}")
    return document.error(path, f"{text[:1].lower()}{text[1:]}, got {show(value)}")


def show(value: Any) -> str:
    """A value as an error names it."""
    if isinstance(value, str):
        return f'"{value[:80]}"'
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "nothing"}[value]
    if isinstance(value, (int, float)):
        return f"the number {value}"
    return "a list" if isinstance(value, list) else "a mapping"


def _value(data: Any, path: KeyPath) -> Any:
    for part in path:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return None
    return data


def _keys(kind: Any, path: KeyPath) -> list[str]:
    """The keys that a mapping at this path may have."""
    info = msgspec.inspect.type_info(kind)
    for part in path:
        info = _below(info, part)
    info = _below(info, None)
    return [field.encode_name for field in getattr(info, "fields", ())]


def _below(info: Any, part: str | int | None) -> Any:
    for option in getattr(info, "types", ()):  # a union: the one that has members
        if hasattr(option, "fields") or hasattr(option, "item_type"):
            info = option
            break
    if part is None:
        return info
    if isinstance(part, int):
        return getattr(info, "item_type", None)
    return next((field.type for field in getattr(info, "fields", ()) if field.encode_name == part), None)
