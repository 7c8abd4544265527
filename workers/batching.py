"""Micro-batching: which waiting runs go together in one run of the model, and how long they wait for others.

Pure decisions: values in, values out, no clock and no lock.
"""

from __future__ import annotations

import math
from typing import Callable, Dict, Hashable, List, NamedTuple, Sequence, Tuple

CAUTION = 1.25
"""Times its expected time that a batch is given: its members' budgets must hold if it takes a little longer."""

ANSWER = 0.001
"""Seconds that an answer may take to where its budget ends."""

Estimate = Callable[[int], float]
"""Bytes of inputs -> seconds that a run on them should take."""


def seconds_for(input_bytes: int, estimate: Estimate) -> float:
    """What a run on so many bytes is given, from its start to the end of the first budget."""
    return CAUTION * estimate(input_bytes) + ANSWER


class Limits(NamedTuple):
    """What the deployment allows."""

    size: int
    """Rows of a batch, at most."""
    delay: float
    """Seconds that a run waits for others, at most."""


class Member(NamedTuple):
    """A run that may go with others, as far as deciding needs it."""

    number: int
    order: Tuple[float, ...]
    """Lower goes first: priority, then deadline."""
    rows: int
    input_bytes: int
    received: float
    end: float
    """Monotonic seconds at which its budget is over; infinite: it has none."""


class Gathered(NamedTuple):
    """Runs that wait for others, summed up."""

    rows: int
    input_bytes: int
    first: float
    """When the first one came."""
    half_time: float
    """The first moment at which half of a budget is over."""

    def joined_by(self, member: Member) -> Gathered:
        return Gathered(
            self.rows + member.rows,
            self.input_bytes + member.input_bytes,
            min(self.first, member.received),
            min(self.half_time, (member.received + member.end) / 2),
        )


NOBODY = Gathered(0, 0, math.inf, math.inf)


def ripe_at(gathered: Gathered, limits: Limits, estimate: Estimate) -> float:
    """When these runs must go, whoever else may come: at once (-infinity) when they fill a batch, else when the first
    one has waited for as long as it may, or when waiting has cost half of what the tightest budget leaves beside the
    run. Not all of it: a machine that is busy keeps no appointment to the millisecond.
    """
    if gathered.rows >= limits.size:
        return -math.inf
    run = seconds_for(gathered.input_bytes, estimate)
    return min(gathered.first + limits.delay, gathered.half_time - run / 2)


def together(members: Sequence[Member], now: float, limits: Limits, estimate: Estimate) -> List[Member]:
    """Those that go in one run now: the first one in order, and with it as many of the next ones as there is room for.

    One that would make the run too long for the budget of another, which is in time without it, stays behind. A budget
    that is lost already holds nobody back.
    """
    taken: List[Member] = []
    rows, size, tightest = 0, 0, math.inf
    for member in sorted(members, key=lambda member: (member.order, member.number)):
        finish = now + seconds_for(size + member.input_bytes, estimate)
        if taken and (rows + member.rows > limits.size or finish > tightest):
            continue
        taken.append(member)
        rows, size = rows + member.rows, size + member.input_bytes
        if finish <= member.end:
            tightest = min(tightest, member.end)
    return taken


class Gathering:
    """Runs that wait for others to go with, by group. A group is due as a whole; how it is split is decided when an
    instance is free (``together``).
    """

    def __init__(self) -> None:
        self._groups: Dict[Hashable, _Group] = {}
        self._group_of: Dict[int, Hashable] = {}

    def add(self, group: Hashable, member: Member, limits: Limits, estimate: Estimate) -> None:
        found = self._groups.get(group)
        if found is None:
            found = self._groups[group] = _Group(limits, estimate)
        found.add(member)
        self._group_of[member.number] = group

    def remove(self, number: int) -> bool:
        """Whether it was here."""
        group = self._group_of.pop(number, None)
        if group is None:
            return False
        found = self._groups[group]
        found.remove(number)
        if not found.members:
            del self._groups[group]
        return True

    def due(self, now: float) -> List[int]:
        """Take out what need not wait any more; the order is that of arrival within a group."""
        numbers: List[int] = []
        for group in [group for group, found in self._groups.items() if found.at <= now]:
            numbers.extend(self._groups.pop(group).members)
        for number in numbers:
            del self._group_of[number]
        return numbers

    def next_at(self) -> float:
        """When the next group is due; infinite: none waits."""
        return min((found.at for found in self._groups.values()), default=math.inf)

    def __len__(self) -> int:
        return len(self._group_of)


class _Group:
    def __init__(self, limits: Limits, estimate: Estimate) -> None:
        self._limits = limits
        self._estimate = estimate
        self._sum = NOBODY
        self.members: Dict[int, Member] = {}
        self.at = math.inf

    def add(self, member: Member) -> None:
        self.members[member.number] = member
        self._sum = self._sum.joined_by(member)
        self.at = ripe_at(self._sum, self._limits, self._estimate)

    def remove(self, number: int) -> None:
        del self.members[number]
        self._sum = NOBODY
        for member in self.members.values():
            self._sum = self._sum.joined_by(member)
        self.at = ripe_at(self._sum, self._limits, self._estimate)
