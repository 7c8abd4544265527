"""The gateway's view of a remote endpoint."""

from __future__ import annotations

from collections.abc import Callable

from gateway.config import WorkerConfig
from gateway.dispatch.pool import Worker
from gateway.target import LoadOrder, Target


class RemoteWorker(Worker):
    """To load means to ask for the model's metadata, and a probe."""

    def __init__(self, config: WorkerConfig, emit: Callable[..., None], changed: Callable[[], None]) -> None:
        """As of other workers."""
        self.options = config.remote()
        super().__init__(config, self.options.max_in_flight, emit, changed)
        self.kind = config.backend
        self.reason = f"connecting to {self.options.url}"
        self.remote = True

    def ratio(self, now: float) -> float | None:
        """None: its times say nothing of heat here."""
        return None

    def detach(self, reason: str, code: str = "", remedy: str = "") -> None:
        """The endpoint is lost, or never came."""
        for wanted in self._wanted.values():
            wanted.target.failure, wanted.target.barred = "", False  # it was of a model there
        super().detach(reason, code, remedy)

    def target_of(self, handle: int) -> tuple[Target, LoadOrder] | None:
        """Which model a handle means; None: it is not wanted any more."""
        wanted = self._wanted.get(handle)
        return (wanted.target, wanted.order) if wanted is not None else None

    def keep_out(self, handle: int, reason: str, barred: bool = False) -> None:
        """This model can't be asked there for now. Who waits for it goes on waiting: it may come."""
        wanted = self._wanted.get(handle)
        if wanted is None:
            return
        wanted.target.handle, wanted.target.failure, wanted.target.barred = 0, reason, barred
        self.tell("target-kept-out", reason, wanted.order)
        self._changed()
