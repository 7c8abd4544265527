"""Which schemes and hosts models may come from, and how a URI is shown to people."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from gateway.models.store import ArtifactRefused

_LONGEST = 200
_UNSEEN = re.compile(r"[^\x21-\x7e]")


@dataclass(frozen=True, slots=True)
class Allowed:
    """An allow-list. An empty one allows all. ``*.example.com`` means every name below example.com, not itself."""

    schemes: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()

    def check_scheme(self, scheme: str) -> None:
        """Raises ArtifactRefused."""
        if self.schemes and scheme.lower() not in self.schemes:
            allowed = ", ".join(self.schemes)
            raise ArtifactRefused(f"{scheme}: is not one of the schemes that fetch.schemes allows ({allowed})")

    def check_host(self, host: str, port: int | None = None) -> None:
        """A host or bucket, as it will be connected to.

        Raises:
            ArtifactRefused
        """
        name = host.lower().strip("[]").removesuffix(".")
        if self.hosts and not any(_matches(entry.lower(), name, port) for entry in self.hosts):
            raise ArtifactRefused(f"{shown(host)} is not one of the hosts that fetch.hosts allows")


def _matches(entry: str, name: str, port: int | None) -> bool:
    if port is not None and entry.endswith(f":{port}") and (entry.count(":") == 1 or entry.startswith("[")):
        entry = entry.removesuffix(f":{port}")
    entry = entry.strip("[]")
    return name.endswith(entry[1:]) if entry.startswith("*.") else name == entry


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
    return shown(f"{parts.scheme}:{slashes}{host}{parts.path}{query}")
