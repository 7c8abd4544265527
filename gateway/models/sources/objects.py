"""``s3://BUCKET/KEY``, ``gs://BUCKET/KEY`` and ``az://CONTAINER/KEY``: object stores, through obstore."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit

from gateway.config import ObjectStore
from gateway.models.artifact import ArtifactRefused
from gateway.models.sources.allowed import Allowed
from gateway.models.sources.http import trouble_with
from gateway.models.sources.source import LinkTrouble
from gateway.models.sources.uris import masked

if TYPE_CHECKING:
    from obstore import GetOptions, GetResult

T = TypeVar("T")

_STATUS = re.compile(r"status code: (\d{3})")
_NOBODY = re.compile(r"Account must be specified|performing [A-Z]+ http://(169\.254\.169\.254|metadata\.google)")
"""Without credentials of its own the library asks the cloud's machine for some."""
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}


class ObjectSource:
    """An object. Credentials are the environment's, as each cloud's own tools take them."""

    def __init__(self, uri: str, settings: ObjectStore, allowed: Allowed, timeout: float) -> None:
        """``timeout``: seconds without a byte.

        Raises:
            ArtifactRefused
        """
        parts = urlsplit(uri)
        self._scheme, self._key, self._timeout = parts.scheme.lower(), unquote(parts.path).lstrip("/"), timeout
        if not parts.netloc or "@" in parts.netloc or not self._key:
            raise ArtifactRefused(f"expected {self._scheme}://BUCKET/KEY, got {masked(uri)}")
        allowed.check_host(parts.netloc)
        self._waiting: _Waiting | None = None
        try:
            self._store = _store(self._scheme, parts.netloc, settings, timeout)
        except ImportError as missing:
            raise ArtifactRefused(f"{self._scheme}: needs obstore: pip install 'edgeway[s3]'") from missing
        except Exception as refused:  # obstore has several classes for bad settings, and no common one
            raise self._meaning(refused) from refused

    def open(self, offset: int, validator: str) -> ObjectDownload:
        options: GetOptions = {}
        if offset:
            options["range"] = {"offset": offset}
        if offset and validator.startswith('"'):
            options["if_match"] = validator
        from obstore import get_async
        from obstore.exceptions import BaseError, PreconditionError

        async def asked() -> GetResult:
            return await get_async(self._store, self._key, options=options)

        self._waiting = waiting = _Waiting()
        try:
            found = waiting.run(asked(), 2 * self._timeout)  # one for the connection, one for all of the headers
        except (BaseError, OSError, ValueError) as failed:
            waiting.close()
            again = isinstance(failed, PreconditionError) or _status(failed) == 416
            if offset and again:  # another object by now
                return self.open(0, "")
            raise self._meaning(failed) from failed
        except BaseException:
            waiting.close()
            raise
        download = ObjectDownload(waiting, found, self._meaning)
        if offset and (download.start != offset or download.validator != (validator or download.validator)):
            download.close()
            return self.open(0, "")
        return download

    def abort(self) -> None:
        if self._waiting is not None:
            self._waiting.end()

    def _meaning(self, failed: BaseException) -> Exception:
        """In our words: theirs hold addresses, answers and a dump of their insides."""
        from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

        text, status = str(failed), _status(failed)
        credentials = f"give the gateway {_CREDENTIALS[self._scheme]}, or set fetch.objectStore.anonymous"
        if isinstance(failed, FileNotFoundError):
            return ArtifactRefused("there is no such object or bucket")
        if isinstance(failed, (PermissionDeniedError, UnauthenticatedError)):
            return ArtifactRefused(f"the object store refuses these credentials; {credentials}")
        if _NOBODY.search(text):
            return ArtifactRefused(f"no credentials; {credentials}")
        if "incorrectly configured region" in text or status == 301:
            return ArtifactRefused("the bucket is in another region: set fetch.objectStore.region")
        if status is not None:
            return trouble_with(status)
        if "source: BadScheme" in text:
            return ArtifactRefused("the endpoint speaks plain http, which needs fetch.objectStore.allowHttp: true")
        if "kind: Timeout" in text:
            return LinkTrouble(f"nothing came for {self._timeout:g} s")
        return LinkTrouble("no connection to the object store" if "sending request" in text else "the link was cut")


class ObjectDownload:
    """An answer whose body is being read."""

    def __init__(self, waiting: _Waiting, found: GetResult, meaning: Callable[[BaseException], Exception]) -> None:
        meta = found.meta
        self.size: int | None = meta["size"]
        self.start = found.range[0]
        self.validator = meta["e_tag"] or meta["last_modified"].isoformat()
        self._stream = found.stream(min_chunk_size=1)
        self._waiting = waiting
        self._meaning = meaning
        self._left = memoryview(b"")

    def read(self, most: int) -> bytes:
        from obstore.exceptions import BaseError

        if not self._left:
            try:
                chunk = self._waiting.run(self._next(), None)
            except (BaseError, OSError) as failed:
                raise self._meaning(failed) from failed
            self._left = memoryview(chunk or b"")
        taken, self._left = self._left[:most], self._left[most:]
        return bytes(taken)

    async def _next(self) -> Any:
        return await anext(self._stream, None)

    def abort(self) -> None:
        self._waiting.end()

    def close(self) -> None:
        self._waiting.close()


class _Waiting:
    """A loop of its own, so that another thread can end what this one waits for."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[Any] | None = None

    def run(self, coming: Coroutine[Any, Any, T], seconds: float | None) -> T:
        """Raises LinkTrouble: it took too long, or was ended."""
        task = self._task = self._loop.create_task(asyncio.wait_for(coming, seconds))
        try:
            found: T = self._loop.run_until_complete(task)
        except asyncio.CancelledError:
            raise LinkTrouble("ended") from None
        except asyncio.TimeoutError:
            raise LinkTrouble(f"no answer within {seconds:g} s") from None
        return found

    def end(self) -> None:
        if self._task is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._task.cancel)

    def close(self) -> None:
        self._loop.close()


def _status(failed: BaseException) -> int | None:
    found = _STATUS.search(str(failed))
    return int(found[1]) if found else None


def _store(scheme: str, bucket: str, settings: ObjectStore, timeout: float) -> Any:
    """Raises ImportError, or what obstore says of settings."""
    from obstore import store as stores

    client: Any = {
        "allow_http": settings.allow_http,
        "connect_timeout": timedelta(seconds=timeout),
        "read_timeout": timedelta(seconds=timeout),
        "timeout": timedelta(days=365),  # of a whole download: how long that takes is not for us to say
    }
    config: Any = {"skip_signature": True} if settings.anonymous else {}
    retry: Any = {"max_retries": 0}  # we try again ourselves, with the file's progress in view
    if scheme == "gs":
        if settings.endpoint:
            config["base_url"] = settings.endpoint
        return stores.GCSStore(bucket, config=config, client_options=client, retry_config=retry)
    if settings.endpoint:
        config["endpoint"] = settings.endpoint
    if scheme == "az":
        return stores.AzureStore(bucket, config=config, client_options=client, retry_config=retry)
    if settings.region:
        config["region"] = settings.region
    return stores.S3Store(bucket, config=config, client_options=client, retry_config=retry)
