"""The files of one revision on their way here: side by side, each tried again for as long as that may help."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial

from gateway.models.artifact import Artifact, LinkLost, Told

FIRST_DELAY, LONGEST_DELAY = 2.0, 300.0
"""Seconds until a file is asked for again, after the fetcher has given up; each time twice as long."""


class FetchEnded(Exception):
    """Nobody wants the file any more: raised in the thread that fetches it."""


class Fetches:
    """Files by a name for each. Belongs to the loop, but for what the fetching threads tell."""

    def __init__(self, threads: Executor, progress: Callable[[tuple[int, int] | None], None]) -> None:
        """``progress((had, in all))`` is called from the threads, over all files; (0: not known); None: no file is on
        its way.
        """
        self._threads = threads
        self._progress = progress
        self._bytes: dict[str, tuple[int, int]] = {}
        self._tasks: dict[str, asyncio.Task[Artifact]] = {}
        self._others: set[asyncio.Task[object]] = set()
        self._ended = False

    def start(
        self, name: str, fetch: Callable[[Told], Artifact], waits: Callable[[str], None] = lambda reason: None
    ) -> asyncio.Task[Artifact]:
        """Fetch a file, unless that is under way already.

        Args:
            name: of the file.
            fetch: blocks; raises ArtifactRefused for good, LinkLost when a later try may go better.
            waits: is told for what the next try waits, and an empty text when it begins.
        """
        task = self._tasks.get(name)
        if task is None:
            task = self._tasks[name] = asyncio.create_task(self._have(name, fetch, waits), name=f"fetch {name}")
            task.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may wait for it
        return task

    def add(self, task: asyncio.Task[object]) -> None:
        """Have it end with the files: it waits for one."""
        self._others.add(task)
        task.add_done_callback(self._others.discard)

    def end(self) -> None:
        """Stop what is under way; a thread that fetches ends when it has the next bytes."""
        self._ended = True
        for task in [*self._tasks.values(), *self._others]:
            task.cancel()
        self._progress(None)

    async def _have(self, name: str, fetch: Callable[[Told], Artifact], waits: Callable[[str], None]) -> Artifact:
        attempt = 1
        loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    return await loop.run_in_executor(self._threads, fetch, partial(self._told, name))
                except LinkLost as lost:
                    attempt += 1
                    delay = retry_delay(attempt)
                    waits(f"attempt {attempt} in {delay:.0f} s: {lost}")
                    await asyncio.sleep(delay)
                    waits("")
        finally:
            self._bytes.pop(name, None)
            if not self._ended and not self._bytes:
                self._progress(None)

    def _told(self, name: str, had: int, total: int) -> None:
        """Raises FetchEnded."""
        if self._ended:
            raise FetchEnded
        self._bytes[name] = had, total
        every = list(self._bytes.values())
        known = all(total for _, total in every)
        self._progress((sum(had for had, _ in every), sum(total for _, total in every) if known else 0))


def retry_delay(attempt: int) -> float:
    """Seconds before an attempt, the first of which is number 1 and waits for nothing."""
    return 0.0 if attempt < 2 else float(min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(attempt - 2, 30)))
