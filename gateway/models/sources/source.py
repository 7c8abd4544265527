"""What a place that models come from must do, and how it says that it can't."""

from __future__ import annotations

from typing import Protocol


class LinkTrouble(Exception):
    """The download ended for a reason that may pass, so it is tried again. One line, without credentials.

    What can't get better is ``ArtifactRefused``.
    """


class Download(Protocol):
    """One answer of a source: the file's bytes from ``start`` on."""

    @property
    def size(self) -> int | None:
        """Bytes of the whole file; None: the source does not say."""
        ...

    @property
    def start(self) -> int:
        """Where it really begins: 0 when the source gives no parts, or the file is another than ``validator`` says."""
        ...

    @property
    def validator(self) -> str:
        """Equal as long as the file is the same: an ETag, a date, a digest. Empty: the source has none."""
        ...

    def read(self, most: int) -> bytes:
        """What has come, at most so many bytes; waits for the first. Empty: the end.

        Raises:
            LinkTrouble
        """
        ...

    def abort(self) -> None:
        """From another thread: a ``read`` that waits ends."""
        ...

    def close(self) -> None: ...


class Source(Protocol):
    """One file at one place."""

    def open(self, offset: int, validator: str) -> Download:
        """The file from ``offset`` on, if it is still the one that ``validator`` is of; else from its beginning.

        Raises:
            LinkTrouble: it may be there later.
            ArtifactRefused: it won't.
        """
        ...

    def abort(self) -> None:
        """From another thread: an ``open`` that waits for an answer ends, as far as that can be had."""
        ...
