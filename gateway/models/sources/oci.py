"""``oci://REGISTRY/REPOSITORY:TAG`` or ``@sha256:DIGEST``, ``#FILE`` where there are several: models in registries.

A model is a layer of an OCI artifact, as ``oras push REGISTRY/REPOSITORY:TAG model.onnx`` makes it.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from gateway.models.artifact import ArtifactRefused
from gateway.models.sources.allowed import Allowed
from gateway.models.sources.http import MOST_REDIRECTS, reason, trouble_with
from gateway.models.sources.sockets import Sockets
from gateway.models.sources.source import LinkTrouble
from gateway.models.sources.uris import masked, shown

if TYPE_CHECKING:
    import requests

_REFERENCE = re.compile(
    r"oci://(?P<host>[a-z0-9.-]+|\[[0-9a-f:]+\])(:(?P<port>\d{1,5}))?"
    r"/(?P<repository>[a-z0-9]+([._/-]+[a-z0-9]+)*)"
    r"(:(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?(@(?P<digest>sha256:[0-9a-f]{64}))?(#(?P<file>[^#]{1,255}))?",
    re.IGNORECASE,
)
_MANIFESTS = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
_LONGEST_MANIFEST = 4 << 20
"""Bytes; the specification lets registries refuse larger ones."""
_LONGEST_TOKEN = 256 << 10
_TITLE = "org.opencontainers.image.title"
_RANGE = re.compile(r"bytes (\d+)-\d+/\d+")


@dataclass(frozen=True, slots=True)
class Layer:
    """One file of an artifact."""

    digest: str
    size: int
    title: str


class OciSource:
    """A file of an artifact. Credentials are those that ``docker login`` or ``oras login`` left in ``~/.docker``."""

    def __init__(self, uri: str, sha256: str, plain: Sequence[str], allowed: Allowed, timeout: float) -> None:
        """``plain``: registries that speak http. ``timeout``: seconds without a byte.

        Raises:
            ArtifactRefused
        """
        found = _REFERENCE.fullmatch(uri)
        if found is None or not (found["tag"] or found["digest"]):
            raise ArtifactRefused(f"expected oci://REGISTRY/REPOSITORY:TAG or @sha256:DIGEST, got {masked(uri)}")
        host = found["host"].lower()
        port = int(found["port"]) if found["port"] else None
        allowed.check_host(host, port)
        self._registry = host if port is None else f"{host}:{port}"
        self._base = f"{self._registry}/v2/{found['repository']}"
        self._reference: str = found["digest"] or found["tag"]
        self._file = unquote(found["file"] or "")
        self._sha256 = sha256.lower()
        self._scheme = "http" if self._registry in plain else "https"
        self._allowed = allowed
        self._timeout = timeout
        self._sockets = Sockets()
        try:
            import oras.auth  # noqa: F401
            import requests  # noqa: F401
        except ImportError as missing:
            raise ArtifactRefused("oci: needs oras: pip install 'edgeway[oci]'") from missing

    def abort(self) -> None:
        self._sockets.shut()

    def open(self, offset: int, validator: str) -> OciDownload:
        self._sockets = Sockets()
        asking = _Asking(self._registry, self._scheme, self._checked, self._timeout, self._sockets)
        try:
            layer = self._layer(asking)
            if validator != layer.digest:  # the tag points to something else by now
                offset = 0
            headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={offset}-"} if offset else {})}
            response = asking.get(f"{self._base}/blobs/{layer.digest}", headers)
        except BaseException:
            asking.close()
            raise
        found = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if response.status_code == 206 and found and int(found[1]) == offset:
            return OciDownload(response, asking, offset, layer, self._timeout)
        if response.status_code == 200:
            return OciDownload(response, asking, 0, layer, self._timeout)
        asking.close()
        if offset and response.status_code in (206, 416):
            return self.open(0, "")
        raise trouble_with(response.status_code)

    def _checked(self, url: str) -> None:
        """Every connection is checked: also to where the registry sends us, for tokens or for the bytes."""
        from urllib3.util import parse_url

        parts = parse_url(url)
        if parts.scheme != "https" and parts.scheme != self._scheme:
            raise ArtifactRefused(
                f"the registry leads from https to {masked(url)}, which anybody could change on the way"
            )
        self._allowed.check_host(parts.host or "", parts.port)

    def _layer(self, asking: _Asking) -> Layer:
        response = asking.get(f"{self._base}/manifests/{self._reference}", {"Accept": _MANIFESTS})
        if response.status_code != 200:
            raise trouble_with(response.status_code)
        content = asking.body(response, _LONGEST_MANIFEST)
        if self._reference.startswith("sha256:") and hashlib.sha256(content).hexdigest() != self._reference[7:].lower():
            raise ArtifactRefused("the registry's manifest is not the one of that digest")
        return choose(layers_of(content), self._sha256, self._file)


def layers_of(manifest: bytes) -> list[Layer]:
    """The files of an artifact.

    Raises:
        ArtifactRefused: this is no artifact's manifest.
    """
    try:
        raw = json.loads(manifest)
        if "manifests" in raw:
            raise ArtifactRefused("the reference is an index of several artifacts: name one of them by its digest")
        layers = []
        for layer in raw["layers"]:
            title = (layer.get("annotations") or {}).get(_TITLE, "")
            layers.append(Layer(str(layer["digest"]), int(layer["size"]), str(title)))
        if not all(re.fullmatch(r"sha(256:[0-9a-f]{64}|512:[0-9a-f]{128})", each.digest) for each in layers):
            raise ValueError("digest")
        if any(each.size < 0 for each in layers):
            raise ValueError("size")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as damaged:
        raise ArtifactRefused(f"the registry's manifest can't be read ({type(damaged).__name__})") from damaged
    return layers


def choose(layers: Sequence[Layer], sha256: str, file: str) -> Layer:
    """The layer with the wanted bytes; else the one of that title; else the only one.

    Raises:
        ArtifactRefused: which one is meant can't be said.
    """
    by_digest = [layer for layer in layers if layer.digest == f"sha256:{sha256}"]
    if by_digest:
        return by_digest[0]
    titles = ", ".join(shown(layer.title or "untitled") for layer in layers[:10])
    fitting = [layer for layer in layers if layer.title == file] if file else list(layers)
    if len(fitting) == 1:
        return fitting[0]
    if file:
        raise ArtifactRefused(f"the artifact has no file {shown(file)}; it has: {titles or 'none'}")
    raise ArtifactRefused(f"the artifact has {len(layers)} files, so add #FILE to the URI; it has: {titles or 'none'}")


class _Asking:
    """Requests to one registry, with its token once it asked for one."""

    def __init__(
        self, registry: str, scheme: str, check: Callable[[str], None], timeout: float, sockets: Sockets
    ) -> None:
        import oras.auth
        import oras.container
        import requests

        self._scheme = scheme
        self._timeout = timeout
        self._sockets = sockets
        self._session = requests.Session()
        self._session.max_redirects = MOST_REDIRECTS
        adapter = _checking_adapter(check, timeout, sockets)
        self._session.mount("https://", adapter)
        self._session.mount("http://", adapter)
        self._auth = oras.auth.get_auth_backend("token", self._session, insecure=scheme == "http")
        logging.getLogger("oras.logger").setLevel(logging.CRITICAL)  # it tells stderr what it asks whom
        try:
            self._auth.load_configs(oras.container.Container(f"{registry}/x"))
        except (OSError, ValueError, AttributeError) as damaged:
            raise ArtifactRefused(
                "~/.docker/config.json, which has the registries' credentials, can't be read"
            ) from damaged

    def get(self, path: str, headers: dict[str, str]) -> requests.Response:
        """Raises LinkTrouble, ArtifactRefused."""
        import requests

        try:
            response = self._send(path, headers)
            if response.status_code in (401, 403):
                response.close()
                headers, changed = self._auth.authenticate_request(response, headers)
                if changed:
                    response = self._send(path, headers)
        except requests.TooManyRedirects as loop:
            raise ArtifactRefused(f"redirected more than {MOST_REDIRECTS} times") from loop
        except requests.exceptions.InvalidURL as bad:
            raise ArtifactRefused("redirected to what is no URI") from bad
        except (requests.RequestException, OSError) as failed:
            raise LinkTrouble(f"the registry: {reason(failed, self._timeout)}") from failed
        except (ValueError, TypeError, AttributeError, KeyError) as confused:  # oras takes the answer for granted
            raise ArtifactRefused("the registry asks for credentials in a way that can't be understood") from confused
        return response

    def _send(self, path: str, headers: dict[str, str]) -> requests.Response:
        return self._session.get(f"{self._scheme}://{path}", headers=headers, stream=True)

    def body(self, response: requests.Response, most: int) -> bytes:
        """All of it.

        Raises:
            ArtifactRefused: it is longer.
            LinkTrouble
        """
        import requests

        content = b""
        try:
            with self._sockets.within(2 * self._timeout):
                for chunk in response.iter_content(64 << 10):
                    content += chunk
                    if len(content) > most:
                        raise ArtifactRefused(f"the registry's manifest is longer than {most} bytes")
        except (requests.RequestException, OSError) as failed:
            raise LinkTrouble(f"the registry: {reason(failed, self._timeout)}") from failed
        finally:
            response.close()
        return content

    def close(self) -> None:
        self._session.close()


@dataclass(slots=True, eq=False)
class OciDownload:
    """A blob that is being read."""

    _response: requests.Response
    _asking: _Asking
    start: int
    _layer: Layer
    _timeout: float

    @property
    def size(self) -> int | None:
        return self._layer.size

    @property
    def validator(self) -> str:
        return self._layer.digest

    def read(self, most: int) -> bytes:
        import urllib3

        try:
            chunk: bytes = self._response.raw.read1(most, decode_content=False)
        except (urllib3.exceptions.HTTPError, OSError) as failed:
            raise LinkTrouble(reason(failed, self._timeout)) from failed
        return chunk

    def abort(self) -> None:
        try:
            self._response.raw.shutdown()
        except (ValueError, RuntimeError, OSError):  # it has just ended by itself
            return

    def close(self) -> None:
        self._response.close()
        self._asking.close()


def _checking_adapter(check: Callable[[str], None], timeout: float, sockets: Sockets) -> Any:
    from requests.adapters import HTTPAdapter

    class Checking(HTTPAdapter):
        """Looks at each request before it is connected, redirects and token requests included, and bounds what requests
        reads by itself: bodies of redirects and tokens.
        """

        def send(
            self, request: requests.PreparedRequest, stream: bool = False, *args: Any, **more: Any
        ) -> requests.Response:
            check(request.url or "")
            response = super().send(request, True, *args, **{**more, "timeout": (timeout, timeout)})
            if response.is_redirect or not stream:
                raw = response.raw
                response.raw = io.BytesIO(
                    b"" if response.is_redirect else raw.read(_LONGEST_TOKEN, decode_content=True)
                )
                raw.close()
            return response

    return Checking(max_retries=0)
