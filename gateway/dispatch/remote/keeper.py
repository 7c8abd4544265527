"""Keeps a remote endpoint connected."""

from __future__ import annotations

import asyncio
from time import monotonic

from edgeway.v1 import worker_pb2
from gateway.dispatch.remote.link import RemoteLink
from gateway.dispatch.remote.pauses import delay_after, set_or_later
from gateway.dispatch.remote.ports import Connect, Endpoint
from gateway.dispatch.remote.worker import RemoteWorker
from gateway.errors import Code
from gateway.remote.failure import NotServing, RemoteFailure

SERVED = 1.0
"""Seconds after which an endpoint that was ready is tried again at once when it is lost."""


class RemoteKeeper:
    """What ``Supervisor`` is to a process: keeps one endpoint connected until ``stop``."""

    def __init__(self, worker: RemoteWorker, connect: Connect, max_bytes: int) -> None:
        """``max_bytes``: largest answer."""
        self._worker = worker
        self._connect = connect
        self._max_bytes = max_bytes
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._worker.introduced.set()  # what it can load needs no file: nobody has to wait for it
        self._task = asyncio.create_task(self._run(), name=f"keeper of {self._worker.name}")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        failures = 0
        while True:
            served = await self._one_life()
            failures = 0 if served else failures + 1
            await asyncio.sleep(delay_after(failures))

    async def _one_life(self) -> bool:
        """One connection from its beginning to its end. Returns whether it was of use."""
        worker, options = self._worker, self._worker.options
        endpoint: Endpoint | None = None
        try:
            endpoint = self._connect(options, self._max_bytes)
            who = await endpoint.introduce(options.connect_seconds)
        except RemoteFailure as failed:
            worker.detach(_reason(options.url, failed, options.connect_seconds))
            if endpoint is not None:
                await endpoint.close()
            return False
        link = RemoteLink(endpoint, worker, asyncio.get_running_loop(), who)
        began = monotonic()
        try:
            hello = worker_pb2.Hello(
                backend=worker.backend,
                kind=worker.kind,
                instances=options.max_in_flight,
                runtime=who,
                device=options.url,
            )
            worker.attach(link, hello)
            reason, leaving = await self._watch(endpoint, link)
            worker.detach(reason)
            worker.restarts += 1
            if leaving:
                await link.leave()
            link.close(reason)
        finally:
            link.close("the gateway closed the link")
            await endpoint.close()
        return monotonic() - began >= SERVED

    async def _watch(self, endpoint: Endpoint, link: RemoteLink) -> tuple[str, bool]:
        """Returns when the endpoint is lost: why, and whether it still answers what it has."""
        url, seconds = self._worker.options.url, self._worker.hang_seconds
        while True:
            await set_or_later(link.doubts)
            if link.closed:
                return link.closed, False
            try:
                await endpoint.check(seconds)
            except NotServing as leaving:
                return f"{url}: {leaving}", True
            except RemoteFailure as failed:
                return _reason(url, failed, seconds), False
            link.doubts.clear()


def _reason(url: str, failed: RemoteFailure, seconds: float) -> str:
    if failed.code == Code.DEADLINE_EXCEEDED:
        return f"{url}: hung or out of reach: no answer within {seconds:g} s"
    return f"{url}: {failed}"
