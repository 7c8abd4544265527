"""Scenarios: what happens to a simulated accelerator and when, who asks, and what must come of it; read from YAML."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import msgspec
from msgspec import Meta, field

from gateway.config import DeviceConfig, Name, Positive
from gateway.demo.scaling import scaled_options
from gateway.strict_yaml import ConfigError, parse
from gateway.typed_config import Problem, Section, show, typed

SYSFS = "$SYSFS"
"""Stands in a scenario's device config for the folder that the player chooses for the fake sysfs tree."""
SIMULATED = "simulated"
_SUFFIX = ".yaml"

Percent = Annotated[float, Meta(ge=0, le=100)]
Seconds = Annotated[float, Meta(ge=0)]


class CallerClass(Section, frozen=True):
    """Callers of one kind, whose requests arrive at random, ``rate`` per second."""

    name: Name
    rate: Positive
    budget_ms: Positive
    priority: Annotated[int, Meta(ge=0, le=9)] = 0
    degrade: Literal["allow", "never"] = "allow"


class Load(Section, frozen=True):
    """Who asks. ``rate`` and ``budgetMs`` are those of the demo's camera; ``classes`` are for load generators, by
    default one class like the camera.
    """

    rate: Positive = 30.0
    budget_ms: Positive = 20.0
    classes: tuple[CallerClass, ...] = ()

    def callers(self) -> tuple[CallerClass, ...]:
        return self.classes or (CallerClass(name="camera", rate=self.rate, budget_ms=self.budget_ms),)


class Phase(Section, frozen=True):
    """One stretch of a scenario, told and counted by itself; seconds since the start."""

    name: Name
    start: Seconds = field(name="from")
    end: Positive = field(name="to")
    title: str = ""

    @property
    def heading(self) -> str:
        return self.title or self.name


class Action(Section, frozen=True):
    """A signal to a worker's process: ``kill`` is SIGKILL, ``stop`` is SIGSTOP for ``seconds``.

    Once, ``at`` a time; or ``every`` so many seconds ``from`` a time ``to`` another. ``every`` is not scaled with the
    scenario's length, because starting a process takes its time.
    """

    kill: Name | None = None
    stop: Name | None = None
    at: Seconds | None = None
    every: Positive | None = None
    start: Seconds | None = field(name="from", default=None)
    end: Positive | None = field(name="to", default=None)
    seconds: Positive | None = None

    @property
    def worker(self) -> str:
        return self.kill or self.stop or ""

    def __post_init__(self) -> None:
        if (self.kill is None) == (self.stop is None):
            raise Problem((), "expected either kill or stop, with a worker's name")
        if (self.stop is None) != (self.seconds is None):
            raise Problem(("seconds",), "says how long a worker is stopped; a killed one has none")
        repeated = (self.every, self.start, self.end)
        if self.at is not None and repeated != (None, None, None):
            raise Problem(("at",), "is for once; every, from and to are for repeated ones")
        if self.at is None and None in repeated:
            raise Problem((), "expected either at, or every, from and to")

    def times(self) -> list[float]:
        """Seconds since the start; none so late that it would be felt after the end of its stretch."""
        if self.at is not None:
            return [self.at]
        assert self.every is not None
        assert self.start is not None
        assert self.end is not None
        times: list[float] = []
        at = self.start
        while at < self.end - self.every / 3:
            times.append(at)
            at += self.every
        return times


class Served(Section, frozen=True):
    """How large a share of the answers a kind of target must give, in one phase or in all."""

    kind: Literal["simulated", "cpu"]
    phase: Name | None = None
    at_least_percent: Percent = 0.0
    at_most_percent: Percent = 100.0


class Expect(Section, frozen=True):
    """When the scenario has shown what it says. ``kinds``: each must answer something. ``accuracyWithinPercent``: how
    far the accuracy of some hundred frames may lie from the model's stated one.
    """

    in_budget_percent: Percent = 95.0
    failed_percent: Percent = 0.0
    accuracy_within_percent: Percent = 2.0
    kinds: tuple[Literal["simulated", "cpu"], ...] = ("simulated", "cpu")
    served: tuple[Served, ...] = ()


class Scenario(Section, frozen=True):
    """A scenario. Times are seconds since its start, at its nominal length ``seconds``."""

    name: Name
    description: str
    seconds: Positive
    device: DeviceConfig
    phases: tuple[Phase, ...]
    seed: Annotated[int, Meta(ge=0)] = 1
    load: Load = Load()
    actions: tuple[Action, ...] = ()
    expect: Expect = Expect()

    def __post_init__(self) -> None:
        if not any(worker.backend == SIMULATED for worker in self.device.workers):
            raise Problem(("device", "workers"), "none is simulated")
        self._check_phases()
        workers = [worker.name for worker in self.device.workers]
        for index, action in enumerate(self.actions):
            if action.worker not in workers:
                verb = "kill" if action.kill else "stop"
                raise Problem(("actions", index, verb), f"no worker is called {show(action.worker)}")
        phases = [phase.name for phase in self.phases]
        for index, served in enumerate(self.expect.served):
            if served.phase is not None and served.phase not in phases:
                raise Problem(("expect", "served", index, "phase"), f"no phase is called {show(served.phase)}")

    def _check_phases(self) -> None:
        end = 0.0
        names: set[str] = set()
        for index, phase in enumerate(self.phases):
            if phase.name in names:
                raise Problem(("phases", index, "name"), f"another phase is called {show(phase.name)} already")
            names.add(phase.name)
            if phase.start != end:
                raise Problem(("phases", index, "from"), f"expected {end:g}, where the phase before ends")
            if phase.end <= phase.start:
                raise Problem(("phases", index, "to"), f"expected more than {phase.start:g}")
            end = phase.end
        if end != self.seconds:
            raise Problem(("phases",), f"end at {end:g} s, and the scenario at {self.seconds:g} s")

    def lasting(self, seconds: float) -> Scenario:
        """The same scenario, played slower or faster: all its times in proportion, a chip's thermal mass too."""
        factor = seconds / self.seconds
        if factor == 1.0:
            return self
        workers = tuple(
            msgspec.structs.replace(worker, options=scaled_options(worker.options, factor))
            if worker.backend == SIMULATED
            else worker
            for worker in self.device.workers
        )
        phases = [
            msgspec.structs.replace(phase, start=phase.start * factor, end=phase.end * factor) for phase in self.phases
        ]
        ends = [*(phase.start for phase in phases[1:]), seconds]
        return msgspec.structs.replace(
            self,
            seconds=seconds,
            device=msgspec.structs.replace(self.device, workers=workers),
            phases=tuple(msgspec.structs.replace(phase, end=end) for phase, end in zip(phases, ends, strict=True)),
            actions=tuple(_scaled_action(action, factor) for action in self.actions),
        )


@dataclass(frozen=True, slots=True)
class Signal:
    """Something that is done to a worker's process, ``at`` seconds after the start."""

    at: float
    name: Literal["SIGKILL", "SIGSTOP", "SIGCONT"]
    worker: str


def signals(scenario: Scenario) -> list[Signal]:
    """What the actions of a scenario do, in order of time."""
    found: list[Signal] = []
    for action in scenario.actions:
        for at in action.times():
            if action.seconds is None:
                found.append(Signal(at, "SIGKILL", action.worker))
            else:
                found += [Signal(at, "SIGSTOP", action.worker), Signal(at + action.seconds, "SIGCONT", action.worker)]
    return sorted(found, key=lambda signal: signal.at)


def device_config(scenario: Scenario, origin: float, sysfs_root: Path) -> dict[str, Any]:
    """The device config as plain data, ready for ``edgeway serve``.

    Args:
        scenario: already at the length in which it is played.
        origin: ``time.monotonic()`` of the scenario's start.
        sysfs_root: takes the place of ``$SYSFS``.
    """
    plain = _filled(msgspec.to_builtins(scenario.device), str(sysfs_root))
    for worker in plain["workers"]:
        if worker["backend"] == SIMULATED:
            worker["options"] = {"seed": scenario.seed, "origin": origin} | worker["options"]
    return cast("dict[str, Any]", plain)


def simulated_options(scenario: Scenario, origin: float, sysfs_root: Path, worker: str | None = None) -> dict[str, Any]:
    """The options of one simulated worker, by default the first; arguments as of ``device_config``."""
    for plain in device_config(scenario, origin, sysfs_root)["workers"]:
        if plain["backend"] == SIMULATED and worker in (None, plain["name"]):
            return cast("dict[str, Any]", plain["options"])
    raise KeyError(f"{scenario.name} has no simulated worker {worker}")


def load_scenario(path: Path) -> Scenario:
    """Raises ConfigError: naming file, line, field, what was expected and what was found."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as failed:
        raise ConfigError(str(path), None, "", f"can't be read: {failed}") from failed
    return typed(parse(text, str(path)), Scenario)


def scenario_files() -> dict[str, Path]:
    """The scenarios that come with Edgeway, by name: those of the checkout, or of the wheel."""
    here = Path(__file__).resolve()
    for folder in (here.parents[2] / "examples" / "scenarios", here.parent / "scenarios"):
        files = sorted(folder.glob(f"*{_SUFFIX}"))
        if files:
            return {file.stem: file for file in files}
    return {}


def _scaled_action(action: Action, factor: float) -> Action:
    times = {name: getattr(action, name) for name in ("at", "start", "end", "seconds")}
    return msgspec.structs.replace(
        action, **{name: value * factor for name, value in times.items() if value is not None}
    )


def _filled(value: Any, sysfs_root: str) -> Any:
    """Plain data without what was left open, and with the folder in the place of ``$SYSFS``."""
    if isinstance(value, dict):
        return {key: _filled(entry, sysfs_root) for key, entry in value.items() if entry is not None}
    if isinstance(value, list | tuple):
        return [_filled(entry, sysfs_root) for entry in value]
    return sysfs_root if value == SYSFS else value
