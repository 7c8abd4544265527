"""Breaker: whether one target may be the first choice, from what became of its last attempts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FAULTS = 3
"""Failed attempts in a row that eject a target; one expired attempt is enough, because the next would expire too."""
FIRST_EJECTION = 0.25
"""Seconds; doubled each time, until the target has answered for longer than it had been ejected."""
LONGEST_EJECTION = 30.0
RAMP_START = 0.1
"""Share of the requests that a target gets right after a good probe; it grows linearly to all of them."""
LONGEST_RAMP = 5.0
"""Seconds. A ramp lasts as long as the ejection before it, so that a short one is soon forgotten."""
PROBE_LIMIT = 10.0
"""Seconds after which a probe without an answer no longer keeps another from being sent."""

Gate = Literal["closed", "ramp", "probe", "shut"]


@dataclass(slots=True)
class Breaker:
    """Consecutive faults of one version on one worker: ejected, probed by one request, brought back by degrees.

    Deterministic: time is passed in, and the ramp counts requests instead of throwing dice. It only says who comes
    first: an ejected target stays usable for a request that has no other.
    """

    reason: str = ""
    """``slow`` (an attempt expired), ``failed`` or ``lost``; empty while closed."""
    since: float = 0.0
    """Monotonic seconds of the last ejection or return."""
    faults: int = 0
    ejections: int = 0
    """In a row, without a calm time between."""
    open_until: float = 0.0
    probed_at: float = 0.0
    """When the probe that is out was sent; 0: none is."""
    ramp_from: float = 0.0
    ramp_until: float = 0.0
    _credit: float = 0.0

    def gate(self, now: float) -> Gate:
        """What may be sent: all, a part (ask ``admit``), one probe, or nothing while another target can serve."""
        if self.reason:
            if now < self.open_until or (self.probed_at and now - self.probed_at < PROBE_LIMIT):
                return "shut"
            return "probe"
        return "ramp" if now < self.ramp_until else "closed"

    def admit(self, now: float) -> bool:
        """Whether this request is of the part that a ramping target gets; asked once per request."""
        length = self.ramp_until - self.ramp_from
        share = RAMP_START + (1 - RAMP_START) * max(0.0, now - self.ramp_from) / length if length > 0 else 1.0
        self._credit += min(1.0, share)
        if self._credit < 1.0:
            return False
        self._credit -= 1.0
        return True

    def probing(self, now: float) -> None:
        """The probe has been sent."""
        self.probed_at = now

    def fault(self, now: float, reason: str) -> bool:
        """An attempt failed by the target's fault; whether that ejects it (again)."""
        self.faults += 1
        if self.reason and not self.probed_at:
            return False  # of an attempt that began before the ejection
        if not self.reason and self.faults < FAULTS:
            return False
        self._eject(now, reason)
        return True

    def expired(self, now: float) -> bool:
        """An attempt's time was up before it answered; whether that ejects it (again)."""
        if self.reason and not self.probed_at:
            return False
        self._eject(now, "slow")
        return True

    def answered(self, now: float, probe: bool = False) -> bool:
        """A run ended well; whether that ends an ejection.

        After a probe the target comes back by degrees. An attempt that expired and has answered after all shows that
        the target lives: it comes back whole, and its estimate says whether it is quick enough.
        """
        self.faults = 0
        if not self.reason:
            if self.ejections and now - self.since > ejection(self.ejections):
                self.ejections = 0
            return False
        length = min(LONGEST_RAMP, ejection(self.ejections)) if probe else 0.0
        self.reason, self.since, self.probed_at = "", now, 0.0
        self.ramp_from, self.ramp_until, self._credit = now, now + length, 0.0
        return True

    def renewed(self, now: float) -> None:
        """The target is a new process: what is held against it is soon found out by a probe."""
        self.faults = 0
        self.open_until, self.probed_at = min(self.open_until, now), 0.0

    def inconclusive(self) -> None:
        """The probe ended without saying anything of the target."""
        self.probed_at = 0.0

    def _eject(self, now: float, reason: str) -> None:
        self.ejections += 1
        self.reason, self.since = reason, now
        self.open_until = now + ejection(self.ejections)
        self.probed_at, self.faults, self.ramp_until = 0.0, 0, 0.0


def ejection(times: int) -> float:
    """Seconds of the n-th ejection in a row: 0.25, 0.5, 1 ... 30."""
    return min(LONGEST_EJECTION, FIRST_EJECTION * 2.0 ** (min(times, 20) - 1)) if times else 0.0
