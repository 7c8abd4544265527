"""Which schemes and hosts models may come from, looked at before every connection."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.models.artifact import ArtifactRefused
from gateway.models.sources.uris import shown


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
