"""DeviceConfig: what this device is told to be, read once at start."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec.structs
from msgspec import Meta, field

from gateway.remote.options import RemoteOptions
from gateway.strict_yaml import ConfigError, parse
from gateway.typed_config import Problem, Section, section, show, typed

Positive = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=1)]
Nice = Annotated[int, Meta(ge=-20, le=19)]
Cpus = tuple[Annotated[int, Meta(ge=0)], ...]
RealtimePriority = Annotated[int, Meta(ge=0, le=99)]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="letters, digits, . _ -")]

REMOTE = "remote"
"""The backend that is no process of ours: an endpoint of the protocol, anywhere."""
_OF_PROCESSES = {
    *("python", "threads", "instances", "nice", "cpus", "realtime_priority", "lock_memory", "env"),
    *("spin_microseconds", "memory_limit_mb", "zones"),
}
_TCP = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.*-]+):(?P<port>[0-9]{1,5})")
_KEY_BYTES = 32
"""Of a public key of Ed25519."""
_LONGEST_SOCKET_PATH = 90
"""Bytes. The kernel takes 107; the temporary name that a socket has before it is published is longer than its own."""


def _one_priority(nice: int, realtime: int) -> None:
    """Raises Problem: both are set, and the first would do nothing."""
    if nice and realtime:
        raise Problem(("nice",), "has no effect beside realtimePriority; leave one of them out")


class BudgetSettings(Section, frozen=True):
    """Latency budgets of requests to which nobody else gave one."""

    default_ms: Positive = 1000.0
    margin_ms: Annotated[float, Meta(ge=0)] = 1.0


class WorkerConfig(Section, frozen=True):
    """One worker process; with the backend ``remote`` none, but an endpoint of the protocol elsewhere, see
    ``remote.options``. ``instances``: runs at a time; by default 2 for the CPU of a machine with two cores or more,
    else 1. ``options`` belong to the backend. ``hangSeconds``: a run without an answer for so long, and for 5 times the
    p99 of its model, is hung, and the process is replaced; by default 30 s for the CPU, else 2. ``loadSeconds``: the
    same for a load with its warm-up, and for how long a version waits for what is out of reach before it has failed; by
    default what the backend says (an hour where engines are built), else 300 s. ``zones``: types of the thermal zones
    that tell its heat, by default those that its backend's devices are known by.
    ``adaptiveLimit``: learn how many requests its targets take without queueing.
    ``realtimePriority``: go before all ordinary processes (SCHED_FIFO); 0: be one. ``lockMemory``: never wait for a
    page that was swapped or dropped. ``spinMicroseconds``: look for the next request that long before going to sleep.
    """

    name: Name
    backend: Name
    python: str | None = None
    threads: Count = 1
    instances: Count | None = None
    nice: Nice = 0
    cpus: Cpus = ()
    realtime_priority: RealtimePriority = 0
    lock_memory: bool = False
    spin_microseconds: Annotated[int, Meta(ge=0, le=1000)] = 0
    memory_limit_mb: Count | None = field(name="memoryLimitMB", default=None)
    hang_seconds: Positive | None = None
    load_seconds: Positive | None = None
    zones: tuple[str, ...] = ()
    adaptive_limit: bool = False
    env: dict[str, str] = {}
    options: dict[str, Any] = {}

    def __post_init__(self) -> None:
        _one_priority(self.nice, self.realtime_priority)
        if self.backend == REMOTE:
            self.remote()
            for each in msgspec.structs.fields(self):
                if each.name in _OF_PROCESSES and getattr(self, each.name) not in (each.default, {}):
                    raise Problem((each.encode_name,), "is of worker processes, and a remote target has none")

    def remote(self) -> RemoteOptions:
        """The options of a remote target. Raises Problem."""
        return section(self.options, RemoteOptions, ("options",))


class AcceleratorSettings(Section, frozen=True):
    """What is started where ``workers`` is empty: one worker for the CPU, and with ``find`` one for each accelerator
    that is here and whose library is installed. ``sysfsRoot``, ``devRoot``: where is looked for them.
    """

    find: bool = True
    sysfs_root: str = "/sys"
    dev_root: str = "/dev"


class ProcessSettings(Section, frozen=True):
    """How the gateway's own process runs: CPUs, priority and memory. What the system refuses is told, and left out.
    ``realtimePriority``: go before all ordinary processes (SCHED_FIFO); 0: be one. ``lockMemory``: never wait for a
    page that was swapped or dropped.
    """

    cpus: Cpus = ()
    nice: Nice = 0
    realtime_priority: RealtimePriority = 0
    lock_memory: bool = False

    def __post_init__(self) -> None:
        _one_priority(self.nice, self.realtime_priority)


class Bands(Section, frozen=True):
    """Temperatures in degrees C at which a band is entered and left."""

    warm: tuple[float, float] = (65, 60)
    hot: tuple[float, float] = (75, 70)
    critical: tuple[float, float] = (85, 80)

    def __post_init__(self) -> None:
        for name in ("warm", "hot", "critical"):
            enter, leave = getattr(self, name)
            if leave >= enter:
                raise Problem((name,), f"the second temperature must be below the first, got {enter:g} and {leave:g}")


class HeatSettings(Section, frozen=True):
    """Where temperatures are read and what they mean."""

    sysfs_root: str = "/sys"
    bands: Bands = Bands()
    dwell_seconds: Annotated[float, Meta(ge=0)] = 5.0
    interval_seconds: Annotated[float, Meta(ge=0.05)] = 0.5
    forecast_seconds: Annotated[float, Meta(ge=0)] = 5.0


class MemorySettings(Section, frozen=True):
    """When memory is short. ``pressurePercent``: share of time in which some task waited for memory (PSI) from which on
    unused versions are unloaded and new loads refused. ``reserveMB``: what a load must leave to others.
    """

    pressure_percent: Annotated[float, Meta(gt=0, le=100)] = 20.0
    reserve_mb: Annotated[int, Meta(ge=0)] = field(name="reserveMB", default=64)


class FailoverSettings(Section, frozen=True):
    """Second attempts beside one on a target that is believed healthy: at most this share of the requests in flight."""

    retry_percent: Annotated[float, Meta(ge=0, le=100)] = 20.0
    retry_floor: Annotated[int, Meta(ge=0)] = 3


class ClassSlots(Section, frozen=True):
    """Percent of ``maxInFlight`` that the requests of a class may take: high 1-3, normal 4-6, low 7-9."""

    high: Annotated[int, Meta(ge=1, le=100)] = 100
    normal: Annotated[int, Meta(ge=1, le=100)] = 100
    low: Annotated[int, Meta(ge=1, le=100)] = 75


SharedMemoryClients = Literal["off", "unix", "all"]


class SharedMemorySettings(Section, frozen=True):
    """Who may share memory with the workers (``unix``: callers on Unix sockets only), and how much in all."""

    clients: SharedMemoryClients = "unix"
    max_mb: Count = field(name="maxMB", default=512)


class Limits(Section, frozen=True):
    """Hard limits. In flight means waiting or running. ``starvationSeconds``: after so long in a worker's queue a run
    goes before all that came later, whatever their priority.
    """

    max_message_mb: Annotated[int, Meta(ge=1, le=1024)] = field(name="maxMessageMB", default=128)
    max_in_flight: Count = 1024
    max_in_flight_mb: Count = field(name="maxInFlightMB", default=512)
    drain_seconds: Positive = 10.0
    class_percent: ClassSlots = ClassSlots()
    starvation_seconds: Positive = 2.0


class TlsSettings(Section, frozen=True):
    """Files for TCP beyond loopback; with ``clientCa``, clients must show a certificate of it."""

    cert: str
    key: str
    client_ca: str | None = None


class ObjectStore(Section, frozen=True):
    """How ``s3:``, ``gs:`` and ``az:`` are reached, beside what the environment says. ``endpoint``: of another server
    that speaks the protocol; plain http only with ``allowHttp``.
    """

    endpoint: str | None = None
    region: str | None = None
    allow_http: bool = False
    anonymous: bool = False


class FetchSettings(Section, frozen=True):
    """Where models may come from, and how fast. ``schemes`` and ``hosts`` restrict only when they are given; a host may
    begin with ``*.``; buckets count as hosts. ``plainRegistries``: OCI registries that speak http.
    """

    schemes: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    max_mb_per_second: Positive | None = field(name="maxMBPerSecond", default=None)
    patience_seconds: Positive = 600.0
    timeout_seconds: Positive = 30.0
    max_file_mb: Count = field(name="maxFileMB", default=8192)
    object_store: ObjectStore = ObjectStore()
    plain_registries: tuple[str, ...] = ()


class StoreSettings(Section, frozen=True):
    """How much disk model files may take; without ``maxMB`` what the disk has, less ``reserveMB``."""

    max_mb: Count | None = field(name="maxMB", default=None)
    reserve_mb: Annotated[int, Meta(ge=0)] = field(name="reserveMB", default=64)


class TrustedKey(Section, frozen=True):
    """``publicKey``: Ed25519, 32 bytes as base64, as ``edgeway sign --show-key`` prints it."""

    name: Name
    public_key: str

    def __post_init__(self) -> None:
        try:
            length = len(base64.b64decode(self.public_key, validate=True))
        except ValueError:
            length = 0
        if length != _KEY_BYTES:
            raise Problem(
                ("publicKey",),
                f"expected {_KEY_BYTES} bytes as base64, as `edgeway sign --show-key` prints them, "
                f"got {show(self.public_key)}",
            )


class TrustSettings(Section, frozen=True):
    """Who may say what this device runs. ``required``: a manifest that none of the keys has signed is refused."""

    required: bool = False
    keys: tuple[TrustedKey, ...] = ()

    def __post_init__(self) -> None:
        if self.required and not self.keys:
            raise Problem(
                ("keys",), "signatures are required, but no key is trusted; add what `edgeway sign --show-key` prints"
            )
        names: set[str] = set()
        for index, key in enumerate(self.keys):
            if key.name in names:
                raise Problem(("keys", index, "name"), f"another key is called {show(key.name)} already")
            names.add(key.name)


class TelemetrySettings(Section, frozen=True):
    """Where traces go. ``otlp``: URL of an OTLP/gRPC collector; none: traces are off. ``decisions``: a file that takes
    every decision with its inputs, so that they can be made again.
    """

    otlp: str | None = None
    spool_mb: Count = field(name="spoolMB", default=64)
    sample_ratio: Annotated[float, Meta(ge=0, le=1)] = 0.01
    decisions: str | None = None


class DeviceConfig(Section, frozen=True):
    """Edgeway's device configuration."""

    listen: tuple[str, ...] | None = None
    budget: BudgetSettings = BudgetSettings()
    process: ProcessSettings = ProcessSettings()
    workers: tuple[WorkerConfig, ...] = ()
    accelerators: AcceleratorSettings = AcceleratorSettings()
    heat: HeatSettings = HeatSettings()
    memory: MemorySettings = MemorySettings()
    failover: FailoverSettings = FailoverSettings()
    shared_memory: SharedMemorySettings = SharedMemorySettings()
    model_control: Literal["none", "poll", "explicit"] | None = None
    limits: Limits = Limits()
    tls: TlsSettings | None = None
    telemetry: TelemetrySettings = TelemetrySettings()
    fetch: FetchSettings = FetchSettings()
    store: StoreSettings = StoreSettings()
    trust: TrustSettings = TrustSettings()

    def __post_init__(self) -> None:
        for index, address in enumerate(self.listen or ()):
            if problem := address_problem(address):
                raise Problem(("listen", index), problem)
        names: set[str] = set()
        for index, worker in enumerate(self.workers):
            if worker.name in names:
                raise Problem(("workers", index, "name"), f"another worker is called {show(worker.name)} already")
            names.add(worker.name)


def address_problem(address: str) -> str:
    """Why this is no listen address; empty if it is one: ``unix:/absolute/path`` or ``HOST:PORT``."""
    if address.startswith("unix:"):
        path = address.removeprefix("unix:")
        if not path.startswith("/"):
            return f"a socket path must be absolute, got {show(path)}"
        if len(path.encode()) > _LONGEST_SOCKET_PATH:
            return f"a socket path may have {_LONGEST_SOCKET_PATH} bytes, got {len(path.encode())}"
        return ""
    found = _TCP.fullmatch(address)
    if found is None:
        return f"expected unix:/PATH or HOST:PORT, got {show(address)}"
    return "" if int(found["port"]) < 65536 else f"a port is at most 65535, got {found['port']}"


def parse_device_config(text: str, source: str) -> DeviceConfig:
    """Raises ConfigError."""
    if not text.strip():
        return DeviceConfig()
    return typed(parse(text, source), DeviceConfig)


def load_device_config(path: Path) -> DeviceConfig:
    """Raises ConfigError."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as failed:
        raise ConfigError(str(path), None, "", f"can't be read: {failed}") from failed
    return parse_device_config(text, str(path))
