"""ServeSettings: flags over config over defaults, resolved once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gateway.config import DeviceConfig, SharedMemoryClients

ModelControl = Literal["none", "poll", "explicit"]


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """Everything that ``edgeway serve`` was told."""

    config: DeviceConfig
    listen: tuple[str, ...]
    control: str
    metrics: str | None
    manifests: Path | None
    state_dir: Path
    model_repository: Path | None
    model_control: ModelControl
    reflection: bool
    insecure: bool
    client_shared_memory: SharedMemoryClients


def state_dir(environment: Mapping[str, str] = os.environ) -> Path:
    """Where manifests and models are kept: $EDGEWAY_STATE_DIR, else $XDG_STATE_HOME/edgeway; as a system service
    systemd's $STATE_DIRECTORY.
    """
    if own := environment.get("EDGEWAY_STATE_DIR") or environment.get("STATE_DIRECTORY"):
        return Path(own)
    home = environment.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "edgeway"
