"""``http:`` and ``https:``, with ranges; and what went wrong with a connection, in one line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urljoin

from gateway.models.artifact import ArtifactRefused
from gateway.models.sources.allowed import Allowed
from gateway.models.sources.sockets import Sockets
from gateway.models.sources.source import LinkTrouble
from gateway.models.sources.uris import masked, shown

if TYPE_CHECKING:
    import urllib3
    from urllib3.util import Url

MOST_REDIRECTS = 5
_MAY_PASS = (408, 425, 429, 500, 502, 503, 504)
_REDIRECTS = (301, 302, 303, 307, 308)
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
_BAD = re.compile(r"[\x00-\x20\x7f\\]")


class HttpSource:
    """A file on a web server. Redirects are followed by hand, since each may lead where nothing may come from."""

    def __init__(self, uri: str, allowed: Allowed, timeout: float) -> None:
        """``timeout``: seconds without a byte.

        Raises:
            ArtifactRefused
        """
        self._allowed = allowed
        self._timeout = timeout
        self._url = self._checked(uri)
        self._sockets = Sockets()

    def abort(self) -> None:
        self._sockets.shut()

    def open(self, offset: int, validator: str) -> HttpDownload:
        response = self._follow(offset, validator)
        if response.status == 206 and offset:
            found = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
            same = _validator(response) in (validator, "") or not validator
            if found and int(found[1]) == offset and same:
                total = None if found[2] == "*" else int(found[2])
                return HttpDownload(response, offset, total, validator, self._timeout)
        if response.status == 200:
            encoding = response.headers.get("Content-Encoding", "identity")
            if encoding != "identity":
                response.close()
                raise ArtifactRefused(
                    f"the server sent the file encoded ({shown(encoding)}), although that was not asked for: "
                    "turn compression off for it there"
                )
            length = response.headers.get("Content-Length", "")
            total = int(length) if length.isdecimal() and not response.chunked else None
            return HttpDownload(response, 0, total, _validator(response), self._timeout)
        response.close()
        if offset and response.status in (206, 416):  # another part, or of another file: from the beginning then
            return self.open(0, "")
        raise trouble_with(response.status)

    def _follow(self, offset: int, validator: str) -> urllib3.BaseHTTPResponse:
        import urllib3

        url = self._url
        for _ in range(MOST_REDIRECTS + 1):
            headers = {"Accept-Encoding": "identity", "User-Agent": "edgeway"}
            if url.auth and (url.scheme, url.netloc) == (self._url.scheme, self._url.netloc):
                headers.update(urllib3.make_headers(basic_auth=unquote(url.auth)))
            if offset:
                headers["Range"] = f"bytes={offset}-"
                if validator:
                    headers["If-Range"] = validator
            response = self._ask(url, headers)
            target = response.headers.get("Location", "") if response.status in _REDIRECTS else ""
            if not target:
                return response
            response.close()
            url = self._next(url, target)
        raise ArtifactRefused(f"redirected more than {MOST_REDIRECTS} times")

    def _ask(self, url: Url, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
        import urllib3

        pool = self._pool(url)
        longest = 2 * self._timeout  # one for the connection, one for all of the headers
        with self._sockets.within(longest) as late:
            try:
                return pool.urlopen(
                    "GET", url._replace(auth=None).url, headers=headers, retries=False, redirect=False,
                    preload_content=False, decode_content=False,
                )  # fmt: skip
            except (urllib3.exceptions.HTTPError, OSError) as failed:
                why = f"no answer within {longest:g} s" if late.is_set() else reason(failed, self._timeout)
                raise LinkTrouble(f"{shown(url.host or '')}: {why}") from failed

    def _pool(self, url: Url) -> urllib3.PoolManager:
        """Connections to there, through the proxy that the environment names for it, if it does."""
        from urllib.request import getproxies, proxy_bypass  # here: with what it imports it takes 15 ms of the start

        import urllib3

        more: dict[str, Any] = {"timeout": urllib3.Timeout(connect=self._timeout, read=self._timeout)}
        proxy = getproxies().get(url.scheme or "")
        direct = not proxy or bool(proxy_bypass(url.host or ""))
        pool = urllib3.PoolManager(**more) if direct else urllib3.ProxyManager(str(proxy), **more)
        self._sockets = Sockets()
        self._sockets.note(pool)
        return pool

    def _next(self, url: Url, target: str) -> Url:
        try:
            after = self._checked(urljoin(url.url, target))
        except ArtifactRefused as refused:
            raise ArtifactRefused(f"redirected: {refused}") from None
        except ValueError:
            raise ArtifactRefused(f"redirected: {masked(target)} is no URI that names a host") from None
        if url.scheme == "https" and after.scheme != "https":
            raise ArtifactRefused(
                f"redirected from https to {masked(after.url)}: that could be read and changed by all"
            )
        return after

    def _checked(self, uri: str) -> Url:
        """The parts that the connection is made from, so that nothing else can be meant than what was checked."""
        from urllib3.exceptions import LocationParseError
        from urllib3.util import parse_url

        try:
            url = parse_url(uri)
        except LocationParseError:
            url = None
        if url is None or not url.host or _BAD.search(uri):
            raise ArtifactRefused(f"{masked(uri)} is no URI that names a host")
        if url.scheme not in ("http", "https"):
            raise ArtifactRefused(f"{masked(uri)} is neither http: nor https:")
        self._allowed.check_scheme(url.scheme)
        self._allowed.check_host(url.host, url.port)
        return url


@dataclass(slots=True, eq=False)
class HttpDownload:
    """An answer whose body is being read."""

    _response: urllib3.BaseHTTPResponse
    start: int
    size: int | None
    validator: str
    _timeout: float

    def read(self, most: int) -> bytes:
        import urllib3

        try:
            return self._response.read1(most)
        except (urllib3.exceptions.HTTPError, OSError) as failed:
            raise LinkTrouble(reason(failed, self._timeout)) from failed

    def abort(self) -> None:
        try:
            self._response.shutdown()
        except (ValueError, RuntimeError, OSError):  # it has just ended by itself
            return

    def close(self) -> None:
        self._response.close()


def trouble_with(status: int) -> Exception:
    """What a status means for whoever wants the file."""
    if status in _MAY_PASS or status >= 500:
        return LinkTrouble(f"the server answered {status}")
    if status in (401, 403):
        return ArtifactRefused(f"the server answered {status}: it wants other credentials, or gives the file to nobody")
    if status in (404, 410):
        return ArtifactRefused(f"the server answered {status}: there is no such file")
    return ArtifactRefused(f"the server answered {status}")


def reason(failed: BaseException, timeout: float) -> str:
    """Why a connection failed, without the addresses and internals that the libraries put into their messages."""
    import urllib3.exceptions as errors

    chain: list[BaseException] = []
    step: BaseException | None = failed
    while step is not None and step not in chain:
        chain.append(step)
        inner = [a for a in (getattr(step, "reason", None), *step.args) if isinstance(a, BaseException)]
        step = inner[0] if inner else step.__cause__
    for kind, words in (
        (errors.NameResolutionError, "its name can't be resolved"),
        (errors.ConnectTimeoutError, f"no connection within {timeout:g} s"),
        (errors.ReadTimeoutError, f"nothing came for {timeout:g} s"),
        (TimeoutError, f"nothing came for {timeout:g} s"),
        (errors.SSLError, "TLS failed: the certificate or this device's clock is wrong"),
        (errors.NewConnectionError, "no connection"),
        (errors.IncompleteRead, "the link was cut"),
        (ConnectionError, "the link was cut"),
        (errors.ProtocolError, "the link was cut"),
    ):
        if any(isinstance(each, kind) for each in chain):
            return words
    return f"the connection failed ({type(failed).__name__})"


def _validator(response: urllib3.BaseHTTPResponse) -> str:
    """What If-Range takes: a strong ETag or a date."""
    tag = response.headers.get("ETag", "")
    found = tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")
    return found if found.isprintable() and found.isascii() else ""
