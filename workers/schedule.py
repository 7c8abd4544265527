"""Which run is next: priority, then deadline, or what has waited too long; short runs have an instance of their own.

Runs of a model that batches gather for a moment before they are in the queue, and leave it together.
"""

from __future__ import annotations

import heapq
import math
import threading
import time
from collections import OrderedDict
from typing import Any, Callable, Dict, Hashable, List, NamedTuple, Optional, Tuple

from workers.batching import Estimate, Gathering, Limits, Member, together

LONG = 0.1
"""Seconds. Runs that are expected to take longer keep off the reserved instance."""
_TOLERATED = 64
"""Entries of runs that have left: a heap keeps up to as many again as still wait, and these."""

_Key = Tuple[int, float, int]
_CANCELLING = threading.Lock()
"""For all runs: held for a few assignments, it costs less than a lock of each run's own."""


class Company(NamedTuple):
    """With which others a run may go."""

    group: Hashable
    """Those of an equal one."""
    member: Member
    limits: Limits
    estimate: Estimate


class Run:
    """One run from its frame to its reply. ``cancel`` comes from the reading thread, all else from a model thread."""

    __slots__ = (
        "_stop",
        "batch",
        "cancelled",
        "company",
        "deadline",
        "finished",
        "form",
        "key",
        "number",
        "outputs",
        "priority",
        "received",
        "regions",
        "running",
        "shared",
        "started",
    )

    def __init__(self, number: int, priority: int, deadline: float, received: float, form: Any = None) -> None:
        """``deadline``: monotonic seconds by which it must have begun; ``form``: what is run on what."""
        self.number = number
        self.priority = priority
        self.deadline = deadline
        self.received = received
        self.form = form
        self.company: Optional[Company] = None
        """None: it goes alone."""
        self.batch: Any = None
        """The cancellation of the batch that it is part of now."""
        self.shared = 1
        """Requests that the run of the model which answers this one answers."""
        self.regions: Any = None
        """What it has to do with regions, see ``workers.regions``; None: nothing."""
        self.started = 0.0
        """Monotonic seconds at which the backend got it; 0: it never did."""
        self.finished = 0.0
        self.cancelled = False
        self.running = False
        self.outputs: Optional[List[Any]] = None
        """Kept after the run while a larger slot is on its way."""
        self.key: _Key = (priority, deadline, number)
        self._stop: Optional[Callable[[], None]] = None

    def on_cancel(self, stop: Callable[[], None]) -> None:
        """Call ``stop`` when the run is cancelled, at once if it has been."""
        with _CANCELLING:
            self._stop = stop
            late = self.cancelled
        if late:
            stop()

    def cancel(self) -> bool:
        """Nobody waits for it. True when it was over, and only its outputs were kept, which are dropped."""
        with _CANCELLING:
            self.cancelled = True
            stop, self._stop = self._stop, None
            kept, self.outputs = self.outputs is not None, None
        if stop is not None:
            stop()
        return kept

    def keep(self, outputs: List[Any]) -> bool:
        """Keep the outputs until there is room for them; False when the run was cancelled meanwhile.

        Either ``cancel`` finds them or this finds the cancellation: else a run would never be answered.
        """
        with _CANCELLING:
            if not self.cancelled:
                self.outputs = outputs
            return not self.cancelled

    def done(self) -> None:
        """The backend has returned: a cancellation that comes now stops nothing."""
        with _CANCELLING:
            self._stop = None
            self.running = False


class Lane:
    """Runs that wait, by priority and deadline, and by arrival. Each step costs O(log n), the rare clean-up apart."""

    def __init__(self) -> None:
        self.runs: OrderedDict[int, Run] = OrderedDict()
        """By number, in the order of arrival. (A plain dict would search its first entry among those that left.)"""
        self._heap: List[Tuple[_Key, Run]] = []

    def add(self, run: Run) -> None:
        self.runs[run.number] = run
        heapq.heappush(self._heap, (run.key, run))

    def first(self, before: float) -> Run:
        """The one that came first, if that was earlier than ``before``, else the best. There must be one."""
        oldest = next(iter(self.runs.values()))
        if oldest.received < before:
            return oldest
        heap = self._heap
        while heap[0][0][2] not in self.runs:
            heapq.heappop(heap)
        return heap[0][1]

    def remove(self, request_id: int) -> Optional[Run]:
        run = self.runs.pop(request_id, None)
        if not self.runs:
            self._heap.clear()
        elif len(self._heap) > 2 * len(self.runs) + _TOLERATED:
            self._heap = [(each.key, each) for each in self.runs.values()]
            heapq.heapify(self._heap)
        return run


class Waiting:
    """The order of runs, as a pure decision: no clock, no lock. Runs are added in the order in which they came."""

    def __init__(self, starvation: float) -> None:
        """``starvation``: seconds after which a run goes before all that came later, whatever their priority."""
        self._starvation = starvation
        self._short = Lane()
        self._long = Lane()

    def add(self, run: Run, short: bool) -> None:
        (self._short if short else self._long).add(run)

    def take(self, now: float, short_only: bool) -> Optional[Run]:
        """The next run, which is taken out: the one that came first if it is starving, else the best; None: no run."""
        before = now - self._starvation
        lane = self._lane(before, short_only)
        return lane.remove(lane.first(before).number) if lane.runs else None

    def _lane(self, before: float, short_only: bool) -> Lane:
        """The one that has the next run."""
        if short_only or not self._long.runs:
            return self._short
        if not self._short.runs:
            return self._long
        return min((self._short, self._long), key=lambda lane: _rank(lane.first(before), before))

    def remove(self, request_id: int) -> Optional[Run]:
        """Take a run out, if it still waits."""
        return self._short.remove(request_id) or self._long.remove(request_id)

    def __len__(self) -> int:
        return len(self._short.runs) + len(self._long.runs)


class Schedule:
    """Runs waiting for an instance. With two instances or more, one takes short runs only.

    So a cheap model answers while another model's long runs keep the rest busy.
    """

    def __init__(
        self, starvation: float, clock: Callable[[], float] = time.monotonic, instances: float = math.inf
    ) -> None:
        """``instances``: runs at a time, whoever takes them."""
        self._clock = clock
        self._instances = instances
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._waiting = Waiting(starvation)
        self._taken = 0
        self._gathering = Gathering()
        self._gathered: Dict[int, Tuple[Run, bool]] = {}
        """What gathers, by number, and whether it is short."""
        self._groups: Dict[Hashable, Dict[int, Run]] = {}
        """What may go together, whether it gathers or is in the queue."""
        self._alarm = math.inf
        """When one of the takers that wait will look again by itself."""

    def put(self, run: Run, short: bool) -> None:
        with self._changed:
            company = run.company
            if company is not None:
                self._groups.setdefault(company.group, {})[run.number] = run
                self._gathered[run.number] = run, short
                self._gathering.add(company.group, company.member, company.limits, company.estimate)
                at = self._gathering.next_at()
                if at < self._alarm:
                    self._alarm = at
                    self._changed.notify()  # one keeps the time, see ``take``
                return
            self._waiting.add(run, short)
            # Several kinds of takers wait; the one that is woken must be one that may take this run.
            if short:
                self._changed.notify()
            else:
                self._changed.notify_all()

    def take(self, short_only: bool, until: Optional[Callable[[], bool]] = None) -> List[Run]:
        """The next run for an instance, and those that go with it; waits for one. Empty once ``until()`` holds."""
        with self._changed:
            while True:
                if until is not None and until():
                    self._changed.notify()  # it may have been woken for a run that another has to take now
                    return []
                now = self._clock()
                moved = bool(self._gathered) and self._queue_what_is_due(now)
                run = self._waiting.take(now, short_only) if self._taken < self._instances else None
                runs = [] if run is None else [run]
                if run is not None and run.company is not None:
                    runs = self._with_others(run, run.company, now)
                if moved and self._waiting:
                    self._changed.notify_all()  # there is more than this one takes, or other than it may take
                elif runs and self._gathered:
                    self._changed.notify()  # another has to keep the time
                if runs:
                    self._taken += 1
                    return runs
                self._alarm = at = self._gathering.next_at()
                self._changed.wait(None if at == math.inf else max(0.0, at - now))

    def _queue_what_is_due(self, now: float) -> bool:
        """Whether there was something."""
        due = self._gathering.due(now)
        for number in due:
            self._waiting.add(*self._gathered.pop(number))
        return bool(due)

    def _with_others(self, run: Run, company: Company, now: float) -> List[Run]:
        """A run that was taken out of the queue, and those that are taken out to go with it."""
        peers = self._groups[company.group]
        members = [company.member._replace(order=())]  # it is this one's turn, whatever its priority
        members.extend(peer.company.member for peer in peers.values() if peer is not run and peer.company is not None)
        runs = []
        for member in together(members, now, company.limits, company.estimate):
            peer = peers.pop(member.number)
            if peer is not run:
                self._withdraw(member.number)
            runs.append(peer)
        if not peers:
            del self._groups[company.group]
        return runs

    def _withdraw(self, request_id: int) -> Optional[Run]:
        if self._gathering.remove(request_id):
            return self._gathered.pop(request_id)[0]
        return self._waiting.remove(request_id)

    def done(self) -> None:
        """A run that was taken is over."""
        with self._lock:
            self._taken -= 1
            if self._waiting and self._taken + 1 >= self._instances:
                self._changed.notify_all()  # some may have found no place for a run that they could take

    def widen(self, by: int) -> None:
        """So many more runs at a time; fewer, where negative."""
        with self._lock:
            self._instances += by

    @property
    def taken(self) -> int:
        """Runs that instances are at."""
        return self._taken

    def claim(self) -> bool:
        """Take a run that was never put, if none waits and none is taken; ``done`` ends it."""
        with self._lock:
            if self._taken or self._waiting:
                return False
            self._taken = 1
            return True

    def remove(self, request_id: int) -> Optional[Run]:
        """Take a waiting run out, if it still waits."""
        with self._lock:
            run = self._withdraw(request_id)
            if run is not None and run.company is not None:
                peers = self._groups[run.company.group]
                del peers[request_id]
                if not peers:
                    del self._groups[run.company.group]
            return run

    def wake(self) -> None:
        """Have all takers look at their ``until`` again."""
        with self._changed:
            self._changed.notify_all()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._gathered)


def _rank(run: Run, before: float) -> Tuple[float, ...]:
    """Sorts the first ones of the lanes."""
    return (0, run.received, run.number) if run.received < before else (1, *run.key)
