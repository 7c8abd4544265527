"""Options of a simulated accelerator: read once, refused with their path when they make no sense."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, List, Mapping, Optional, Sequence, Tuple

from workers.backend import BackendUnavailable

FAULTS = ("crash", "hang", "error", "errorRate", "wrong", "vanish", "slow", "lie")
_OPTIONS = ("serviceMs", "jitterMs", "seed", "residentMB", "origin", "queue", "heat", "faults", "sysfsRoot", "zone")
_QUEUE = ("at", "seconds", "backlogMs", "jitterMs")
_MODEL = ("ambientC", "thermalMassJPerC", "coolingWPerC", "idleWatts", "joulesPerRun", "startC")
_HEAT = ("points", "bands", "slowdown", "throttle", *_MODEL)
_BANDS = {"warm": 65.0, "hot": 75.0, "critical": 85.0}
"""Degrees C from which on the slowdown of that name holds; the gateway's own bands begin there by default, too."""
_SLOWDOWN = {"warm": 1.0, "hot": 4.0, "critical": 10.0}
_LIES = ("temperatureC", "frozen", "missing", "nan")
_COLDEST = -273.15
_MB = 1 << 20


@dataclass(frozen=True)
class Queue:
    """Work of others that is before ours, in seconds: each run waits ``backlog``, and up to ``jitter`` more."""

    at: float
    end: float
    backlog: float
    jitter: float


@dataclass(frozen=True)
class Lie:
    """What the sensor says instead of the truth; what is None is told as it is."""

    celsius: Optional[float] = None
    """NaN: a reading that is no number."""
    frozen: bool = False
    missing: bool = False
    throttled: Optional[bool] = None


@dataclass(frozen=True)
class Fault:
    """One entry of the script. It begins at a time, or with a run; ``seconds`` None: its own length."""

    kind: str
    at: float
    after_runs: Optional[int]
    seconds: Optional[float]
    amount: float = 1.0
    """``slow``: factor of the service time; ``error``: share of the runs, 0 to 1."""
    lie: Lie = Lie()


@dataclass(frozen=True)
class Thermal:
    """A chip as one thermal mass: degrees C, watts and joules."""

    ambient: float = 25.0
    mass: float = 10.0
    """J per degree."""
    cooling: float = 0.1
    """W per degree above the ambient temperature."""
    idle: float = 1.0
    run: float = 0.02
    """J per run."""
    start: Optional[float] = None
    """None: as warm as it gets when idle."""


@dataclass(frozen=True)
class HeatOptions:
    """A replayed curve or a thermal mass, and from which temperatures on the chip is how many times slower."""

    points: Sequence[Tuple[float, float]] = ()
    thermal: Optional[Thermal] = None
    throttle: Sequence[Tuple[float, float]] = tuple((_BANDS[name], _SLOWDOWN[name]) for name in _BANDS)


@dataclass(frozen=True)
class Options:
    """All options, in seconds and bytes."""

    service: float = 0.0
    jitter: float = 0.0
    seed: int = 0
    resident_bytes: int = 0
    origin: Optional[float] = None
    """``time.monotonic()`` to which the script's times refer."""
    queue: Sequence[Queue] = ()
    heat: Optional[HeatOptions] = None
    faults: Sequence[Fault] = ()
    sysfs_root: str = ""
    zone: int = 0


def read_options(raw: Mapping[str, Any]) -> Options:
    """The options as plain data.

    Raises:
        BackendUnavailable: naming the option, what was expected and what was found.
    """
    _known(raw, _OPTIONS, "options")
    root = raw.get("sysfsRoot", "")
    if not isinstance(root, str):
        raise _refused("options.sysfsRoot", "a folder", root)
    heat = _heat(_mapping(raw.get("heat", {}), "options.heat"))
    if heat is None and root:
        heat = HeatOptions(thermal=Thermal())
    return Options(
        service=_number(raw, "options", "serviceMs", 0.0) / 1e3,
        jitter=_number(raw, "options", "jitterMs", 0.0) / 1e3,
        seed=_whole(raw, "options", "seed", 0),
        resident_bytes=int(_number(raw, "options", "residentMB", 0.0) * _MB),
        origin=_number(raw, "options", "origin", 0.0) if "origin" in raw else None,
        queue=[_queue(entry, where) for entry, where in _entries(raw.get("queue", ()), "options.queue")],
        heat=heat,
        faults=[_fault(entry, where) for entry, where in _entries(raw.get("faults", ()), "options.faults")],
        sysfs_root=root,
        zone=_whole(raw, "options", "zone", 0),
    )


def _queue(entry: Mapping[str, Any], where: str) -> Queue:
    _known(entry, _QUEUE, where)
    at = _number(entry, where, "at", 0.0)
    return Queue(
        at,
        at + _number(entry, where, "seconds", math.inf),
        _number(entry, where, "backlogMs", 0.0) / 1e3,
        _number(entry, where, "jitterMs", 0.0) / 1e3,
    )


def _heat(raw: Mapping[str, Any]) -> Optional[HeatOptions]:
    where = "options.heat"
    _known(raw, _HEAT, where)
    if not raw:
        return None
    modelled = [key for key in _MODEL if key in raw]
    if "points" in raw and modelled:
        raise BackendUnavailable(f"{where}.{modelled[0]}: a replayed curve (points) has no thermal model beside it")
    points = _pairs(raw.get("points", ()), f"{where}.points", -math.inf, _COLDEST)
    if "points" in raw and not points:
        raise _refused(f"{where}.points", "at least one [at, degreesC]", raw["points"])
    return HeatOptions(points, None if points else _thermal(raw, where), _throttle(raw, where))


def _thermal(raw: Mapping[str, Any], where: str) -> Thermal:
    default = Thermal()
    return Thermal(
        ambient=_number(raw, where, "ambientC", default.ambient, _COLDEST),
        mass=_positive(raw, where, "thermalMassJPerC", default.mass),
        cooling=_positive(raw, where, "coolingWPerC", default.cooling),
        idle=_number(raw, where, "idleWatts", default.idle),
        run=_number(raw, where, "joulesPerRun", default.run),
        start=_number(raw, where, "startC", 0.0, _COLDEST) if "startC" in raw else None,
    )


def _throttle(raw: Mapping[str, Any], where: str) -> List[Tuple[float, float]]:
    """[(degrees C, slowdown)] ascending, from ``throttle``, or from ``bands`` and ``slowdown``."""
    if "throttle" in raw:
        for other in ("bands", "slowdown"):
            if other in raw:
                raise BackendUnavailable(f"{where}.{other}: throttle says it already")
        return _pairs(raw["throttle"], f"{where}.throttle", _COLDEST, 1.0)
    bands = _mapping(raw.get("bands", {}), f"{where}.bands")
    slowdown = _mapping(raw.get("slowdown", {}), f"{where}.slowdown")
    _known(bands, tuple(_BANDS), f"{where}.bands")
    _known(slowdown, tuple(_BANDS), f"{where}.slowdown")
    steps = [
        (
            _number(bands, f"{where}.bands", name, _BANDS[name], _COLDEST),
            _positive(slowdown, f"{where}.slowdown", name, _SLOWDOWN[name]),
        )
        for name in _BANDS
    ]
    return sorted(steps, key=lambda step: step[0])


def _fault(entry: Mapping[str, Any], where: str) -> Fault:
    _known(entry, ("at", "afterRuns", "seconds", *FAULTS), where)
    kinds = [kind for kind in FAULTS if entry.get(kind, False) is not False]
    if len(kinds) != 1:
        raise BackendUnavailable(f"{where}: expected one of {', '.join(FAULTS)}, got {dict(entry)!r}")
    if "at" in entry and "afterRuns" in entry:
        raise BackendUnavailable(f"{where}.afterRuns: it begins at a time (at) already")
    kind = kinds[0]
    amount, lie = 1.0, Lie()
    if kind == "slow":
        amount = _positive(entry, where, "slow", 1.0)
    elif kind == "errorRate":
        kind, amount = "error", _number(entry, where, "errorRate", 1.0)
        if amount > 1:
            raise _refused(f"{where}.errorRate", "a share from 0 to 1", amount)
    elif kind == "lie":
        lie = _lie(_mapping(entry["lie"], f"{where}.lie"), f"{where}.lie")
    elif entry[kind] is not True:
        raise _refused(f"{where}.{kind}", "true", entry[kind])
    return Fault(
        kind,
        _number(entry, where, "at", 0.0),
        _whole(entry, where, "afterRuns", 0) if "afterRuns" in entry else None,
        _positive(entry, where, "seconds", 0.0) if "seconds" in entry else None,
        amount,
        lie,
    )


def _lie(raw: Mapping[str, Any], where: str) -> Lie:
    _known(raw, (*_LIES, "throttled"), where)
    kinds = [kind for kind in _LIES if kind in raw]
    if len(kinds) > 1:
        raise BackendUnavailable(f"{where}.{kinds[1]}: {kinds[0]} says it already")
    if not raw:
        raise BackendUnavailable(f"{where}: expected one of {', '.join(_LIES)}, or throttled")
    for key in ("frozen", "missing", "nan", "throttled"):
        if key in raw and not isinstance(raw[key], bool):
            raise _refused(f"{where}.{key}", "true or false", raw[key])
    celsius = math.nan if raw.get("nan") else None
    if "temperatureC" in raw:
        celsius = _number(raw, where, "temperatureC", 0.0, -math.inf)
    return Lie(celsius, raw.get("frozen", False), raw.get("missing", False), raw.get("throttled"))


def _known(given: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in given:
        if key not in known:
            raise BackendUnavailable(f"{where}.{key}: unknown; known are {', '.join(known)}")


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _refused(where, "a mapping", value)
    return value


def _entries(value: Any, where: str) -> List[Tuple[Mapping[str, Any], str]]:
    """The mappings of a list, each with its path."""
    if not isinstance(value, (list, tuple)):
        raise _refused(where, "a list", value)
    paths = [f"{where}[{index}]" for index in range(len(value))]
    return [(_mapping(entry, path), path) for entry, path in zip(value, paths)]


def _pairs(value: Any, where: str, least: float, least_second: float) -> List[Tuple[float, float]]:
    """[(number, number)], the first ones ascending."""
    if not isinstance(value, (list, tuple)):
        raise _refused(where, "a list of pairs", value)
    pairs: List[Tuple[float, float]] = []
    for index, pair in enumerate(value):
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise _refused(f"{where}[{index}]", "a pair of numbers", pair)
        first = _checked(pair[0], f"{where}[{index}][0]", least)
        if pairs and first < pairs[-1][0]:
            raise _refused(f"{where}[{index}][0]", f"at least {pairs[-1][0]:g}, as the one before", pair[0])
        pairs.append((first, _checked(pair[1], f"{where}[{index}][1]", least_second)))
    return pairs


def _number(given: Mapping[str, Any], where: str, key: str, default: float, least: float = 0.0) -> float:
    return _checked(given.get(key, default), f"{where}.{key}", least)


def _positive(given: Mapping[str, Any], where: str, key: str, default: float) -> float:
    value = _number(given, where, key, default)
    if value <= 0:
        raise _refused(f"{where}.{key}", "a number > 0", value)
    return value


def _whole(given: Mapping[str, Any], where: str, key: str, default: int) -> int:
    value = given.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise _refused(f"{where}.{key}", "a whole number >= 0", value)
    return value


def _checked(value: Any, where: str, least: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= least:
        expected = "a number" if least == -math.inf else f"a number >= {least:g}"
        raise _refused(where, expected, value)
    return float(value)


def _refused(where: str, expected: str, got: Any) -> BackendUnavailable:
    return BackendUnavailable(f"{where}: expected {expected}, got {got!r}")
