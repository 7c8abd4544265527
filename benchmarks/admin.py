"""The control service from within a program: calls that raise, and what becomes of a version."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc

from benchmarks.harness import wait_for
from edgeway.v1 import control_pb2 as control
from gateway.cli.waiting import serves
from gateway.models.manifest_files import load_manifests, to_plain

METHODS = control.SERVICES["edgeway.v1.Control"]
OVER = ("ready", "failed", "barred", "rolledBack", "unloaded")


class Admin:
    """Calls of edgeway.v1.Control to one gateway, without a process for each. They raise grpc.RpcError."""

    def __init__(self, address: str) -> None:
        # A connection of its own: a shared one would wait before it tries the next gateway on the same socket.
        self._channel = grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])

    def call(self, rpc: str, request: Any, limit: float = 30.0) -> Any:
        """The response; ``limit``: seconds."""
        method = METHODS[rpc]
        call: Any = self._channel.unary_unary(method.path)
        return method.response.FromString(call(request.SerializeToString(), timeout=limit))

    def apply(self, path: str) -> None:
        texts = [json.dumps(to_plain(manifest)) for manifest in load_manifests(Path(path))]
        self.call("Apply", control.ApplyRequest(manifests=texts))

    def versions(self, name: str) -> dict[str, Any]:
        """Status by version; empty: there is no such deployment."""
        found = self.call("GetDeployments", control.GetRequest()).deployments
        return {version.version: version for each in found if each.name == name for version in each.versions}

    def outcome(self, name: str, version: str, limit: float) -> Any:
        """The version's status once it is on its way no more. Raises TimeoutError."""

        def over() -> Any:
            status = self.versions(name).get(version)
            return status if status is not None and status.state in OVER else None

        return wait_for(over, limit, f"an outcome for {name} {version}")

    def deploy(self, path: str, limit: float) -> None:
        """Apply, and return once each version takes its share of requests. Raises RuntimeError with the reason why one
        can't, TimeoutError.
        """
        self.apply(path)
        for each in load_manifests(Path(path)):
            traffic = each.spec.traffic
            self._serving(each.name, each.version, traffic.percent == 0 or traffic.shadow, limit)

    def _serving(self, name: str, version: str, may_idle: bool, limit: float) -> None:
        def settled() -> Any:
            status = self.versions(name).get(version)
            if status is None or (status.state == "ready" and not serves(status, may_idle)):
                return None
            return status if status.state in OVER else None

        status = wait_for(settled, limit, f"serving of {name} {version}")
        if status.state != "ready":
            raise RuntimeError(f"{name} {version} is {status.state}: {status.reason}")

    def __enter__(self) -> Admin:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, at: TracebackType | None
    ) -> None:
        self._channel.close()
