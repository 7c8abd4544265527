"""Roll-out: who takes which traffic of a deployment, as values. Commands and verdicts make new values of old ones.

What is ready changes by itself; what was declared and commanded only changes here, and is what the state keeps.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import msgspec
from msgspec import Struct

from gateway.errors import Conflict, InvalidRequest, NotFound
from gateway.routing.split import shares_of

Rank = tuple[int, int]
"""Later is newer: (0, place in the repository) or (1, sequence of the manifest or command)."""


class Standing(Struct, frozen=True):
    """Where one version stands."""

    label: str
    content: str
    """Changes when what was declared does: unchanged content never undoes a command."""
    rank: Rank
    percent: int | None = None
    """Its share. None: all that is left, if it is the newest such one that is ready."""
    steps: tuple[int, ...] = ()
    """Percents still to come."""
    step_seconds: float = 300.0
    step_since: float = 0.0
    """Wall-clock seconds at which it got its present percent and was ready; 0: not yet."""
    shadow: bool = False
    previous_version: str = ""
    """Where a roll-back from it goes."""
    left: str = ""
    """Why it was rolled back; empty: it was not."""

    @property
    def canary(self) -> bool:
        """Whether it is on trial with a part of the traffic."""
        return not self.left and bool(self.percent or self.steps)


class Rollout(Struct, frozen=True):
    """All versions of one deployment, and the places of keys."""

    standings: tuple[Standing, ...] = ()
    """Oldest first."""
    places: tuple[str, ...] = ()
    """Which version each hash place of keys belongs to; empty: there is no split yet."""

    def find(self, label: str) -> Standing | None:
        return next((standing for standing in self.standings if standing.label == label), None)

    def get(self, label: str) -> Standing:
        """Raises NotFound."""
        found = self.find(label)
        if found is None:
            known = ", ".join(standing.label for standing in self.standings) or "none"
            raise NotFound(f"no version is called {label!r}; known: {known}")
        return found

    def current(self, ready: Collection[str]) -> Standing | None:
        """The newest ready one without a percent; where there is none, the newest with a share, else the newest."""
        able = [s for s in self.standings if s.label in ready and not s.left]
        for wanted in ([s for s in able if s.percent is None], [s for s in able if s.percent], able):
            if wanted:
                return wanted[-1]
        return None

    def previous(self, ready: Collection[str]) -> Standing | None:
        """The one that was current before."""
        current = self.current(ready)
        older = [s for s in self.standings if s.label in ready and not s.left and s is not current]
        return next((s for s in reversed(older) if s.percent is None), None)

    def shares(self, ready: Collection[str]) -> list[tuple[str, int]]:
        """(version, percent), in sum 100; empty where nothing is ready."""
        previous = self.previous(ready)
        able = [s for s in self.standings if s.label in ready and not s.left and s is not previous]
        return shares_of([(s.label, s.percent) for s in able])

    def kept(self, able: Collection[str]) -> set[str]:
        """Those of the loaded (or loadable) versions which are to be so: current, previous, where a roll-back goes, and
        all with a percent of their own, also 0, or a shadow.
        """
        kept = {s.label for s in self.standings if not s.left and (s.percent is not None or s.shadow)}
        current, previous = self.current(able), self.previous(able)
        kept |= {standing.label for standing in (current, previous) if standing is not None}
        back = self.find(current.previous_version) if current is not None else None
        if back is not None and not back.left:
            kept.add(back.label)
        return kept & set(able)

    def percents(self) -> dict[str, int]:
        return {s.label: s.percent or 0 for s in self.standings if not s.left}


def declare(rollout: Rollout, standing: Standing) -> Rollout:
    """A version was declared: with new content it stands as declared; with the same it stands as it did.

    A shadow alone gets no share: it is there for copies.
    """
    before = rollout.find(standing.label)
    if before is not None and before.content == standing.content:
        if before.rank[0] or before.rank == standing.rank:
            return rollout
        standing = _change(before, rank=standing.rank)  # the repository has got older versions
    elif standing.shadow and standing.percent is None:
        standing = _change(standing, percent=0)
    return _with(rollout, standing)


def withdraw(rollout: Rollout, labels: Collection[str]) -> Rollout:
    """Versions were deleted."""
    return _of(rollout, [s for s in rollout.standings if s.label not in labels])


def promote(rollout: Rollout, label: str, rank: Rank, ready: Collection[str]) -> Rollout:
    """100 %: trials end, and the one that was current becomes previous.

    Raises:
        NotFound
    """
    chosen = rollout.get(label)
    current = rollout.current(ready)
    changed = []
    for each in rollout.standings:
        if each is chosen:
            changed.append(_change(each, rank=rank, percent=None, steps=(), step_since=0.0, left=""))
        elif each is current:
            changed.append(_change(each, percent=None, steps=(), step_since=0.0))
        elif each.percent or each.steps:
            changed.append(_change(each, percent=0, steps=(), step_since=0.0))
        else:
            changed.append(each)
    return _of(rollout, changed)


def roll_back(
    rollout: Rollout, to: str, rank: Rank, ready: Collection[str], coming: Collection[str], why: str
) -> tuple[Rollout, str, str]:
    """An operator wants to go back: from what is on trial or on its way up, if there is such a one, else from the
    current version to its ``previousVersion``, else to the previous one.

    Args:
        rollout: as it is.
        to: where to go; empty: as above.
        rank: of the version that is gone back to.
        ready: versions that are loaded.
        coming: versions on their way up.
        why: is kept with the version that is left.

    Returns:
        (roll-out, version left, version that serves instead)

    Raises:
        NotFound: ``to`` is no version.
        Conflict: there is nothing to go back from, or nowhere to go.
    """
    current = rollout.current(ready)
    trial = _trial(rollout, current, coming)
    if trial is not None and to in ("", current.label if current else ""):
        return leave(rollout, trial.label, "", rank, ready, why)
    if current is None:
        raise Conflict("no version serves, so there is nothing to go back from")
    target = rollout.get(to) if to else _way_back(rollout, current, ready)
    if target is None:
        raise Conflict(f"there is no version before {current.label} to go back to")
    if target.label == current.label:
        raise Conflict(f"version {to} is the current one already")
    if trial is not None:
        rollout = leave(rollout, trial.label, "", rank, ready, why)[0]
    return leave(rollout, current.label, target.label, rank, ready, why)


def leave(
    rollout: Rollout, label: str, to: str, rank: Rank, ready: Collection[str], why: str
) -> tuple[Rollout, str, str]:
    """Take a version out of all traffic for good. ``to``: the version that gets what it had; empty: whoever is left.

    Raises:
        Conflict: nobody is left.
    """
    left = rollout.get(label)
    changed = _with(
        rollout, _change(left, percent=0, steps=(), step_since=0.0, shadow=False, left=why or "rolled back")
    )
    if to:
        target = changed.get(to)
        changed = _with(changed, _change(target, rank=rank, percent=None, steps=(), step_since=0.0, left=""))
    heir = changed.current(set(ready) | {to} if to else ready)
    if heir is None:
        raise Conflict(f"there is no version that could serve instead of {label}")
    return changed, label, heir.label


def verdict(rollout: Rollout, label: str, rank: Rank, ready: Collection[str], why: str) -> tuple[Rollout, str, str]:
    """A version has failed its trial: leave it for ``previousVersion``, else for whoever serves beside or before it.

    Raises:
        Conflict: there is nobody else.
    """
    failed, current = rollout.get(label), rollout.current(ready)
    back = ""
    if current is None or failed.label == current.label:
        target = _way_back(rollout, failed, ready)
        if target is None:
            raise Conflict(f"there is no version to go back to from {label}")
        back = target.label
    return leave(rollout, label, back, rank, ready, why)


def set_traffic(rollout: Rollout, percents: Mapping[str, int]) -> Rollout:
    """Give versions a share; what they were to get by steps is over.

    Raises:
        NotFound, InvalidRequest: over 100 in sum, or no percent.
    """
    for label, percent in percents.items():
        rollout.get(label)
        if not 0 <= percent <= 100:
            raise InvalidRequest(f"{label}: expected a percent from 0 to 100, got {percent}")
    changed = [
        _change(
            each,
            percent=percents[each.label],
            steps=(),
            step_since=0.0,
            left="" if percents[each.label] else each.left,
        )
        if each.label in percents
        else each
        for each in rollout.standings
    ]
    made = _of(rollout, changed)
    check_percents(made.percents())
    return made


def advance(rollout: Rollout, label: str, rank: Rank, ready: Collection[str], now: float) -> Rollout:
    """The next step of a trial; the last one, if that is 100, makes the version current."""
    standing = rollout.get(label)
    percent, *rest = standing.steps
    if percent == 100:
        return promote(rollout, label, rank, ready)
    return _with(rollout, _change(standing, percent=percent, steps=tuple(rest), step_since=now))


def begin_step(rollout: Rollout, label: str, now: float) -> Rollout:
    """A version on trial is ready: its first step begins."""
    return _with(rollout, _change(rollout.get(label), step_since=now))


def check_percents(percents: Mapping[str, int], name: str = "the deployment") -> None:
    """Raises InvalidRequest: more than 100 in sum."""
    if sum(percents.values()) > 100:
        shares = ", ".join(f"{label} {percent} %" for label, percent in percents.items())
        raise InvalidRequest(
            f"spec.traffic.percent: expected at most 100 for all of {name}, got {sum(percents.values())}: {shares}"
        )


def first_share(percent: int | None, steps: Sequence[int]) -> tuple[int | None, tuple[int, ...]]:
    """(percent to begin with, steps still to come) of what a manifest says: steps up to its percent are passed over."""
    ahead = [step for step in steps if percent is None or step > percent]
    if percent is None and ahead:
        return ahead[0], tuple(ahead[1:])
    return percent, tuple(ahead)


def _trial(rollout: Rollout, current: Standing | None, coming: Collection[str]) -> Standing | None:
    """The newest version that is not there for good yet."""

    def on_trial(each: Standing) -> bool:
        pending = each.label in coming and (current is None or each.rank > current.rank)
        return each is not current and not each.left and (each.canary or pending)

    newer = [standing for standing in rollout.standings if on_trial(standing)]
    return newer[-1] if newer else None


def _way_back(rollout: Rollout, current: Standing, ready: Collection[str]) -> Standing | None:
    named = rollout.find(current.previous_version)
    if named is not None and not named.left and named.label != current.label and named.label in ready:
        return named
    return rollout.previous(ready) or next(
        (s for s in reversed(rollout.standings) if s.label in ready and not s.left and s.label != current.label), None
    )


def _change(standing: Standing, **fields: object) -> Standing:
    return msgspec.structs.replace(standing, **fields)


def _with(rollout: Rollout, standing: Standing) -> Rollout:
    others = [s for s in rollout.standings if s.label != standing.label]
    return _of(rollout, [*others, standing])


def _of(rollout: Rollout, standings: Sequence[Standing]) -> Rollout:
    return Rollout(tuple(sorted(standings, key=lambda s: s.rank)), rollout.places)
