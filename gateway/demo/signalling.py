"""Signals to workers' processes: who is killed, who is stopped and goes on later."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable

from gateway.demo.scenario import Signal


class Signaller:
    """Sends a scenario's signals, by pidfd: a process that got the number of one that has ended is never hit."""

    def __init__(self, pid_of: Callable[[str], int]) -> None:
        """``pid_of``: a worker's name -> its process id, 0 while it has none."""
        self._pid_of = pid_of
        self._stopped: dict[str, int] = {}
        """Worker -> pidfd of the process that was stopped, which may have been replaced meanwhile."""

    def send(self, what: Signal) -> int:
        """Send it; the process id that was hit, 0 where there was none."""
        if what.name == "SIGCONT":
            return self._go_on(what.worker)
        pid = self._pid_of(what.worker)
        if not pid:
            return 0
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            return 0
        reached = _reached(fd, getattr(signal, what.name))
        if reached and what.name == "SIGSTOP":
            self._go_on(what.worker)
            self._stopped[what.worker] = fd
        else:
            os.close(fd)
        return pid if reached else 0

    def close(self) -> None:
        """Whoever is still stopped goes on."""
        for worker in list(self._stopped):
            self._go_on(worker)

    def _go_on(self, worker: str) -> int:
        fd = self._stopped.pop(worker, None)
        if fd is not None:
            _reached(fd, signal.SIGCONT)
            os.close(fd)
        return 0


def _reached(fd: int, what: signal.Signals) -> bool:
    with contextlib.suppress(ProcessLookupError):  # it has ended by itself
        signal.pidfd_send_signal(fd, what)
        return True
    return False
