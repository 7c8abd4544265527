"""What happens to which run, and when: decided from the run's number, the time and the seed alone."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Dict, List, Optional, Sequence, Set

from workers.simulation.options import Fault, Lie, Options, Queue

ONCE = 1.0
"""Seconds within which a crash or hang without a duration happens, so that the next process is spared."""


@dataclass(frozen=True)
class Decision:
    """What becomes of one run. Seconds."""

    service: float
    """Floor of its whole time, for a chip that is not throttled."""
    crash: bool = False
    hang: float = 0.0
    """``math.inf``: for ever."""
    error: bool = False
    vanished: bool = False
    wrong: bool = False


class Script:
    """The faults and the queue of a simulated accelerator. Times are seconds of the script.

    One process begins to count its runs at 1, warm-up included. Random draws depend on seed, purpose and run only, so
    that the same runs fare the same whatever the threads do.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._faults: Sequence[Fault] = options.faults
        self._began: Dict[int, float] = {}
        """Fault that waited for a run -> when that came."""
        self._met: Set[int] = set()
        """Crashes and hangs that a run of this process has met."""

    def backlog(self, now: float) -> float:
        """Seconds that others' work will still take before ours begins, as the device knows it."""
        return max((queue.backlog for queue in self._queue(now)), default=0.0)

    def wait(self, run: int, now: float) -> float:
        """Seconds that others' work really takes before this run."""
        return max((queue.backlog + queue.jitter * self._draw("queue", run) for queue in self._queue(now)), default=0.0)

    def decide(self, run: int, now: float) -> Decision:
        """What becomes of the run that begins now. It may set off a crash or a hang, so each run asks once."""
        for index, fault in enumerate(self._faults):
            if fault.after_runs is not None and run >= fault.after_runs:
                self._began.setdefault(index, now)
        jitter = self._options.jitter * self._draw("jitter", run)
        slow = math.prod(self._faults[index].amount for index in self._due("slow", now))
        return Decision(
            service=(self._options.service + jitter) * slow,
            crash=bool(self._set_off("crash", now)),
            hang=max((self._left(index, now) for index in self._set_off("hang", now)), default=0.0),
            error=any(self._draw(f"error {i}", run) < self._faults[i].amount for i in self._due("error", now)),
            vanished=self.vanished(now),
            wrong=bool(self._due("wrong", now)),
        )

    def vanished(self, now: float) -> bool:
        """Whether the accelerator is gone."""
        return bool(self._due("vanish", now))

    def lie(self, now: float) -> Optional[Lie]:
        """What the sensor says instead of the truth, if it lies; the latest entry of the script holds."""
        due = self._due("lie", now)
        return self._faults[due[-1]].lie if due else None

    def _queue(self, now: float) -> List[Queue]:
        return [queue for queue in self._options.queue if queue.at <= now < queue.end]

    def _due(self, kind: str, now: float) -> List[int]:
        """Faults of a kind that are on; one without a duration stays."""
        return [
            index
            for index, fault in enumerate(self._faults)
            if fault.kind == kind and self._begin(index) <= now < self._begin(index) + (fault.seconds or math.inf)
        ]

    def _set_off(self, kind: str, now: float) -> List[int]:
        """Crashes or hangs that a run which begins now meets. One without a duration stays once a run has met it.

        One whose time is over is not made up for: the process that replaces a crashed one would crash again.
        """
        for index, fault in enumerate(self._faults):
            length = fault.seconds or (ONCE if fault.after_runs is None else math.inf)
            if fault.kind == kind and self._begin(index) <= now < self._begin(index) + length:
                self._met.add(index)
        return [index for index in self._met if self._faults[index].kind == kind and self._left(index, now) > 0]

    def _left(self, index: int, now: float) -> float:
        """Seconds that the fault goes on."""
        seconds = self._faults[index].seconds
        return self._begin(index) + seconds - now if seconds else math.inf

    def _begin(self, index: int) -> float:
        fault = self._faults[index]
        return fault.at if fault.after_runs is None else self._began.get(index, math.inf)

    def _draw(self, purpose: str, run: int) -> float:
        """From 0 to below 1, the same for the same seed, purpose and run."""
        digest = hashlib.blake2b(f"{self._options.seed} {purpose} {run}".encode(), digest_size=6).digest()
        return int.from_bytes(digest, "big") / 2.0**48
