"""Fetching: a file that a manifest names comes in over a link that may be bad, and is checked as it comes."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from gateway.config import FetchSettings
from gateway.models.artifact import ArtifactRefused, LinkLost, Told, Wanted
from gateway.models.sources.allowed import Allowed
from gateway.models.sources.file import FileSource
from gateway.models.sources.pace import Pace
from gateway.models.sources.partial import Partial
from gateway.models.sources.source import Download, LinkTrouble, Source
from gateway.models.sources.uris import masked

_TELL_EVERY = 0.1
_LOOK_EVERY = 0.2
"""Seconds; while waiting for the next try, somebody may stop wanting the file."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 30.0
"""Seconds between tries: a link that is back is found soon, one that is away for hours is asked 120 times an hour."""


class Fetcher:
    """Brings files in, several at a time if asked by several threads, within what the device config allows."""

    def __init__(
        self, settings: FetchSettings, clock: Callable[[], float] = time.monotonic, first_pause: float = _FIRST_PAUSE
    ) -> None:
        """``first_pause``: seconds before a second try; a link that was cut but had brought something gets less."""
        self._settings = settings
        self._allowed = Allowed(settings.schemes, settings.hosts)
        self._clock = clock
        self._first_pause = first_pause
        self._ended = threading.Event()
        rate = settings.max_mb_per_second
        self._pace = Pace(rate * (1 << 20) if rate else None, clock, self._ended.wait)
        self._unlimited = Pace(None, clock, self._ended.wait)
        self._lock = threading.Lock()
        self._open: set[Download | Source] = set()

    def close(self) -> None:
        """End all that is under way, from any thread; what is here of the files stays for the next start."""
        self._ended.set()
        with self._lock:
            for each in self._open:
                each.abort()

    def fetch(self, wanted: Wanted, partial: Path, told: Told) -> str:
        """Bring the file to ``partial``, going on with what lies there already.

        Returns:
            its SHA-256 as hex digits: the one wanted, if one is. The file is not synced to the disk.

        Raises:
            LinkLost: not now; what came stays, and a later call goes on from there. So it is with what ``told`` raises.
            ArtifactRefused: never, as things are. Nothing of use is left.
            OSError: the file can't be written. Nothing is left: half a file would only fill the disk further.
        """
        try:
            source = self._source(wanted)
            with Partial(partial, wanted.uri) as here:
                try:
                    return self._bring(source, wanted, here, _Teller(told, here, wanted.size, self._clock))
                except OSError:
                    here.discard()
                    raise
        except ArtifactRefused as refused:
            raise type(refused)(f"{masked(wanted.uri)}: {refused}") from refused

    def _source(self, wanted: Wanted) -> Source:
        """What it takes is imported only here: a gateway that fetches nothing starts 10 ms earlier."""
        settings, scheme = self._settings, wanted.uri.partition(":")[0].lower()
        self._allowed.check_scheme(scheme)
        if scheme == "file":
            return FileSource(wanted.uri)
        if scheme in ("http", "https"):
            from gateway.models.sources.http import HttpSource

            return HttpSource(wanted.uri, self._allowed, settings.timeout_seconds)
        if scheme in ("s3", "gs", "az"):
            from gateway.models.sources.objects import ObjectSource

            return ObjectSource(wanted.uri, settings.object_store, self._allowed, settings.timeout_seconds)
        if scheme == "oci":
            from gateway.models.sources.oci import OciSource

            plain = settings.plain_registries
            return OciSource(wanted.uri, wanted.sha256, plain, self._allowed, settings.timeout_seconds)
        raise ArtifactRefused(f"{scheme}: can't be fetched by this gateway")

    def _bring(self, source: Source, wanted: Wanted, here: Partial, teller: _Teller) -> str:
        again = True
        if here.position > self._limit(wanted):
            here.restart()
        while True:
            self._complete(source, wanted, here, teller)
            got, expected = here.hexdigest(), wanted.sha256.lower()
            if expected in ("", got):
                here.done()
                return got
            if here.in_one_piece or not again:
                here.discard()
                raise ArtifactRefused(f"checksum mismatch: expected sha256:{expected}, got sha256:{got}")
            again = False  # it may be the pieces that do not fit, after a power cut or a change that nobody told
            here.restart()

    def _complete(self, source: Source, wanted: Wanted, here: Partial, teller: _Teller) -> None:
        """Answer by answer, until all of it is here."""
        from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

        patience = self._settings.patience_seconds
        tries = Retrying(
            retry=retry_if_exception_type(LinkTrouble),
            wait=wait_random_exponential(multiplier=2 * self._first_pause, max=_LONGEST_PAUSE, min=self._first_pause),
            stop=stop_after_delay(patience),
            sleep=lambda seconds: self._pause(seconds, teller),
            reraise=True,
        )
        ends: set[int] = set()
        try:
            while not tries(self._answer, source, wanted, here, teller, ends):
                self._pause(self._first_pause * random.uniform(0.25, 1), teller)  # noqa: S311  # noqa: S311
        except LinkTrouble as trouble:
            raise LinkLost(f"given up after {patience:g} s without a new byte: {trouble}") from trouble
        teller.tell()

    def _answer(self, source: Source, wanted: Wanted, here: Partial, teller: _Teller, ends: set[int]) -> bool:
        """Take in one answer of the source. True: all is here. False: some came, but not all."""
        before = here.best
        try:
            if not here.complete:
                self._take(source, wanted, here, teller)
            self._check_end(wanted, here, ends)
        except LinkTrouble:
            if self._ended.is_set():
                raise LinkLost("the gateway stops") from None
            if here.best == before:
                raise
            return False
        finally:
            here.flush()
        return True

    def _take(self, source: Source, wanted: Wanted, here: Partial, teller: _Teller) -> None:
        limit = self._limit(wanted)
        pace = self._unlimited if isinstance(source, FileSource) else self._pace
        with self._abortable(source):
            download = source.open(here.position, here.validator)
        if download.start and download.size != here.total:  # another file, of a server that knows no validators
            download.close()
            download = source.open(0, "")
        with contextlib.closing(download), self._abortable(download):
            self._check_size(wanted, download.size)
            here.begin(download.start, download.size, download.validator)
            teller.tell_now_and_then()
            while chunk := download.read(min(pace.most, limit + 1 - here.position)):
                here.write(chunk)
                if here.position > limit:
                    here.discard()
                    raise ArtifactRefused(self._too_long(wanted))
                teller.tell_now_and_then()
                pace.spend(len(chunk))
                if self._ended.is_set():
                    raise LinkLost("the gateway stops")

    @contextlib.contextmanager
    def _abortable(self, waiting: Download | Source) -> Iterator[None]:
        with self._lock:
            self._open.add(waiting)
        try:
            if self._ended.is_set():
                raise LinkLost("the gateway stops")
            yield
        finally:
            with self._lock:
                self._open.discard(waiting)

    def _limit(self, wanted: Wanted) -> int:
        """Bytes; at the first one more the download ends."""
        return wanted.size if wanted.size is not None else self._settings.max_file_mb << 20

    def _too_long(self, wanted: Wanted) -> str:
        if wanted.size is not None:
            return f"too long: it goes on after the {wanted.size} bytes that the manifest says"
        return f"too long: it goes on after the {self._settings.max_file_mb} MB of fetch.maxFileMB"

    def _check_size(self, wanted: Wanted, size: int | None) -> None:
        if size is None:
            return
        if wanted.size is not None and size != wanted.size:
            raise ArtifactRefused(f"wrong length: the manifest says {wanted.size} bytes, the source has {size}")
        if size > self._limit(wanted):
            raise ArtifactRefused(f"too long: {size} bytes, and fetch.maxFileMB is {self._settings.max_file_mb}")

    def _check_end(self, wanted: Wanted, here: Partial, ends: set[int]) -> None:
        """An answer that ends too early without a word may have been cut, unless it ends at the same place twice."""
        expected, at = wanted.size if wanted.size is not None else here.total, here.position
        if expected is None or at >= expected:
            return
        if at in ends:
            here.discard()
            who = "manifest" if wanted.size is not None else "source"
            raise ArtifactRefused(f"wrong length: the {who} says {expected} bytes, and it ends after {at}")
        ends.add(at)
        raise LinkTrouble(f"it ended after {at} of {expected} bytes")

    def _pause(self, seconds: float, teller: _Teller) -> None:
        until = self._clock() + seconds
        while (left := until - self._clock()) > 0:
            if self._ended.wait(min(left, _LOOK_EVERY)):
                raise LinkLost("the gateway stops")
            teller.tell()


class _Teller:
    """Tells how far it is, not too often."""

    def __init__(self, told: Told, here: Partial, size: int | None, clock: Callable[[], float]) -> None:
        self._told = told
        self._here = here
        self._size = size
        self._clock = clock
        self._next = 0.0

    def tell(self) -> None:
        self._told(self._here.position, self._size or self._here.total or 0)

    def tell_now_and_then(self) -> None:
        now = self._clock()
        if now >= self._next:
            self._next = now + _TELL_EVERY
            self._here.flush()
            self.tell()
