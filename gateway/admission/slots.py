"""Bounded concurrency: how many requests, and how many of their bytes, may be in the gateway at once."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.errors import Shed


@dataclass(slots=True)
class InFlight:
    """Counts what is in flight, waiting or running. Shed at once beyond a limit: a full queue only makes late."""

    max_requests: int
    max_bytes: int
    requests: int = 0
    bytes: int = 0

    def enter(self, nbytes: int) -> None:
        """Take a place for a request of ``nbytes``; give it back with ``leave``.

        Raises:
            Shed: a limit is reached. One request alone is never refused for its bytes.
        """
        if self.requests >= self.max_requests:
            raise Shed(f"{self.requests} requests are in flight, the limit (limits.maxInFlight)")
        if self.requests and self.bytes + nbytes > self.max_bytes:
            raise Shed(
                f"{self.bytes} bytes of requests are in flight, {nbytes} more would pass the limit of "
                f"{self.max_bytes} (limits.maxInFlightMB)"
            )
        self.requests += 1
        self.bytes += nbytes

    def leave(self, nbytes: int) -> None:
        self.requests -= 1
        self.bytes -= nbytes
