"""Fixtures: folders with short names, and gateways as processes of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from benchmarks import runtimes
from benchmarks.harness import Gateway, identity, put, scaled, scratch

# Properties say nothing of time: a busy machine must not fail them, nor a first run, which makes tables of characters.
settings.register_profile("edgeway", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("edgeway")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose name is short enough for sockets."""
    with scratch() as made:
        yield made


@pytest.fixture(scope="session")
def runtime() -> Callable[[str], str]:
    """``runtime("qnn")``: the interpreter of that environment of ``make runtimes``; skips where it is not there."""

    def interpreter(name: str) -> str:
        try:
            return str(runtimes.interpreter(name))
        except runtimes.Missing as missing:
            pytest.skip(f"environment {name}: {missing}")

    return interpreter


@pytest.fixture
def gateway_in(folder: Path) -> Iterator[Callable[..., Gateway]]:
    """Starts a gateway in the folder with this config and these flags; it is ended afterwards."""
    started: list[Gateway] = []

    def start(config: dict[str, Any] | None = None, *flags: str, **environment: str) -> Gateway:
        gateway = Gateway(folder, config or {}, flags, environment=environment)
        started.append(gateway)
        return gateway.start()

    yield start
    for gateway in started:
        if gateway.process is not None:
            gateway.stop()


@pytest.fixture(scope="module")
def serving() -> Iterator[Gateway]:
    """A gateway with a CPU worker and the models ``identity`` (y = x) and ``double`` (y = 2 x)."""
    with scratch() as made:
        put(made / "models", "identity", identity())
        put(made / "models", "double", scaled(2.0))
        with Gateway(made, flags=["--model-repository", str(made / "models")]) as gateway:
            yield gateway
