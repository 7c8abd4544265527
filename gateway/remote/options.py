"""``options`` of a worker whose backend is ``remote``."""

from __future__ import annotations

import re
from typing import Annotated

from msgspec import Meta

from gateway.typed_config import Problem, Section, show

_TCP = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):(?P<port>[0-9]{1,5})")
_LOOPBACK = ("127.", "localhost:", "[::1]:")


class RemoteTls(Section, frozen=True):
    """Files and names for TLS. ``ca``: who may have signed the endpoint's certificate, by default whom the system
    trusts. ``cert`` and ``key``: shown to an endpoint that asks. ``serverName``: what its certificate must say, where
    that is not the host of the URL.
    """

    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise Problem(
                ("key" if self.key is None else "cert",), "cert and key belong together; one of them is missing"
            )


class RemoteOptions(Section, frozen=True):
    """Where the endpoint is and how it is spoken to. ``model`` and ``version``: what it calls the model, by default as
    the deployment does, and whatever version it chooses. ``maxInFlight``: runs that it is given at a time.
    """

    url: str
    model: Annotated[str, Meta(min_length=1)] | None = None
    version: str = ""
    tls: RemoteTls | None = None
    insecure: bool = False
    connect_seconds: Annotated[float, Meta(gt=0, le=60)] = 2.0
    max_in_flight: Annotated[int, Meta(ge=1, le=1024)] = 16

    def __post_init__(self) -> None:
        if problem := _url_problem(self.url):
            raise Problem(("url",), problem)
        if self.unix:
            if self.tls is not None:
                raise Problem(("tls",), "has no effect on a Unix socket; leave it out")
        elif self.tls is not None and self.insecure:
            raise Problem(("insecure",), "contradicts tls; leave one of them out")
        elif self.tls is None and not self.insecure and not self.url.startswith(_LOOPBACK):
            raise Problem(
                ("url",),
                f"{self.url} is beyond loopback, where anybody on the way could read the tensors and forge answers: "
                "configure tls, or allow plain text with insecure: true",
            )

    @property
    def unix(self) -> bool:
        return self.url.startswith("unix:")


def _url_problem(url: str) -> str:
    if url.startswith("unix:"):
        path = url.removeprefix("unix:")
        return "" if path.startswith("/") else f"a socket path must be absolute, got {show(path)}"
    found = _TCP.fullmatch(url)
    if found is None:
        return f"expected HOST:PORT (gRPC) or unix:/PATH, got {show(url)}"
    return "" if 0 < int(found["port"]) < 65536 else f"a port is 1 to 65535, got {found['port']}"
