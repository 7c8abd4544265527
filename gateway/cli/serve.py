"""``edgeway serve``."""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import click

from edgeway.places import control_address, inference_address
from gateway.cli.errors import fail
from gateway.config import DeviceConfig, SharedMemoryClients, address_problem, load_device_config
from gateway.settings import ServeSettings
from gateway.settings import state_dir as default_state_dir
from gateway.strict_yaml import ConfigError

_DEFAULT_TCP = "127.0.0.1:8001"
_DEFAULT_METRICS = "127.0.0.1:8002"
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command(short_help="Run the gateway.")
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help="Device config (YAML).")
@click.option(
    "--listen", multiple=True, metavar="ADDR", help="unix:/PATH or HOST:PORT; repeatable; port 0: any free one."
)
@click.option("--control", metavar="ADDR", help="Control socket.  [default: unix:$RUNTIME/control.sock]")
@click.option(
    "--metrics", metavar="HOST:PORT", help=f"Prometheus endpoint, 'off' for none.  [default: {_DEFAULT_METRICS}]"
)
@click.option("--manifests", type=_FOLDER, help="Folder of manifests to apply and follow.")
@click.option("--state-dir", type=click.Path(path_type=Path), help="Accepted manifests and model files.")
@click.option("--model-repository", type=_FOLDER, help="Triton-style folder NAME/VERSION/model.onnx.")
@click.option(
    "--model-control", type=click.Choice(["none", "poll", "explicit"]), help="How the repository is followed."
)
@click.option(
    "--client-shared-memory",
    type=click.Choice(["off", "unix", "all"]),
    help="Whose tensors may lie in shared memory: nobody's, those of callers on Unix sockets, or everybody's."
    "  [default: unix]",
)
@click.option(
    "--reflection", type=click.Choice(["on", "off"]), default="off", show_default=True, help="On data listeners."
)
@click.option("--insecure", is_flag=True, help="Allow TCP beyond loopback without TLS.")
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True
)
def serve(log_format: str, log_level: str, **flags: Any) -> None:
    """Run the gateway until SIGTERM, which drains it.

    Prints one JSON line on stdout when it is ready, with the addresses really bound. Logs go to stderr.
    """
    from gateway import start

    configure_logging(log_format, log_level)
    raise SystemExit(start.serve(resolve(**flags)))


def resolve(
    config: Path | None,
    listen: tuple[str, ...],
    control: str | None,
    metrics: str | None,
    manifests: Path | None,
    state_dir: Path | None,
    model_repository: Path | None,
    model_control: Any,
    client_shared_memory: SharedMemoryClients | None,
    reflection: str,
    insecure: bool,
) -> ServeSettings:
    """Flags over config over defaults. Exits with 2 on an address that is none, 1 on a config that can't be."""
    try:
        device = load_device_config(config) if config else DeviceConfig()
    except ConfigError as refused:
        fail(str(refused))
    for address in (*listen, *([control] if control else [])):
        if problem := address_problem(address):
            raise click.UsageError(f"{address}: {problem}")
    default = (inference_address(), _DEFAULT_TCP)
    return ServeSettings(
        config=device,
        listen=listen or device.listen or default,
        control=control or control_address(),
        metrics=None if metrics == "off" else metrics or _DEFAULT_METRICS,
        manifests=manifests,
        state_dir=(state_dir or default_state_dir()).absolute(),
        model_repository=model_repository.absolute() if model_repository else None,
        model_control=model_control or device.model_control or ("poll" if model_repository else "none"),
        reflection=reflection == "on",
        insecure=insecure,
        client_shared_memory=client_shared_memory or device.shared_memory.clients,
    )


def configure_logging(form: str, level: str) -> None:
    """Logs to stderr, as text or as one JSON object per line."""
    handler = logging.StreamHandler(sys.stderr)
    if form == "json":
        handler.setFormatter(_JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname).1s %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    logging.getLogger("grpc").setLevel(logging.ERROR)


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        line = {"time": stamp, "level": record.levelname.lower(), "logger": record.name, "message": record.getMessage()}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)
