"""The route table: model name -> deployment as the hot path sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.errors import NotFound, Unavailable
from gateway.request import Request
from gateway.routing.split import Split
from gateway.target import Version

CURRENT = "current"
PREVIOUS = "previous"


@dataclass(frozen=True, slots=True)
class Route:
    """One deployment in force. Never changed: replaced whole when versions come or go."""

    name: str
    versions: Mapping[str, Version]
    """Loaded ones, by label."""
    known: frozenset[str]
    """Labels that exist but may not be loaded (yet)."""
    split: Split
    current: str | None
    previous: str | None
    budget: float | None = None
    """Seconds, as the current version's manifest says."""
    reject_infeasible: bool = False
    degrade: str = "allow"
    shadow: tuple[Version, ...] = ()
    """Those that get copies of requests which others answer."""

    def resolve(self, version: str) -> str | None:
        """The label that a pinned version, an alias or nothing (the current one) means; None: there is none now."""
        return {"": self.current, CURRENT: self.current, PREVIOUS: self.previous}.get(version, version)

    def choose(self, request: Request) -> Version:
        """The version that serves this request, decided once.

        Raises:
            NotFound: a pinned version that does not exist.
            Unavailable: it exists but is not ready, or none is.
        """
        label = self.resolve(request.version) if request.version else self.split.choose(request.route_key)
        if label is None:
            raise Unavailable(f"model {self.name} has no {request.version or 'version'} that is ready")
        version = self.versions.get(label)
        if version is not None:
            return version
        if label in self.known:
            raise Unavailable(f"version {label} of model {self.name} is not ready")
        raise NotFound(f"model {self.name} has no version {request.version}")


@dataclass(slots=True)
class Table:
    """Owner: the catalog, which replaces routes. Reader: the pipeline."""

    routes: dict[str, Route] = field(default_factory=dict)

    def find(self, name: str) -> Route:
        """Raises NotFound."""
        route = self.routes.get(name)
        if route is None:
            raise NotFound(f"no model is called {name!r}")
        return route
