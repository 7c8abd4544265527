"""Where a gateway's sockets lie when nobody says otherwise; used by gateway and clients."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def runtime_dir(environment: Mapping[str, str] = os.environ) -> Path:
    """Where sockets live: $EDGEWAY_RUNTIME_DIR, else $XDG_RUNTIME_DIR/edgeway, else /run/edgeway."""
    if own := environment.get("EDGEWAY_RUNTIME_DIR"):
        return Path(own)
    xdg = environment.get("XDG_RUNTIME_DIR")
    return Path(xdg) / "edgeway" if xdg else Path("/run/edgeway")


def inference_address(environment: Mapping[str, str] = os.environ) -> str:
    """The Unix socket for inference in the runtime directory."""
    return f"unix:{runtime_dir(environment)}/infer.sock"


def control_address(environment: Mapping[str, str] = os.environ) -> str:
    """The control socket: $EDGEWAY_CONTROL, else the one in the runtime directory."""
    return environment.get("EDGEWAY_CONTROL") or f"unix:{runtime_dir(environment)}/control.sock"
