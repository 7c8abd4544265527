"""JSON Schemas of manifests and of the device config, for editors and for ``edgeway schema``."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.config import DeviceConfig
from gateway.models.manifest import ModelDeployment

DIALECT = "https://json-schema.org/draft/2020-12/schema"
KINDS = {"manifest": ModelDeployment, "device": DeviceConfig}


def schema(kind: str) -> dict[str, Any]:
    """The schema of ``manifest`` or ``device``."""
    return {"$schema": DIALECT, "$id": f"https://edge.ai/schemas/v1/{kind}.json", **msgspec.json.schema(KINDS[kind])}
