"""``python -m edgeway.client NAME --input ...``: one inference from a shell; also ``edgeway infer``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from edgeway.client.errors import InferenceError
from edgeway.client.result import ModelMetadata, Result, TensorMetadata
from edgeway.client.sync import Client
from edgeway.places import inference_address
from edgeway.tensors import BY_NAME

_SHOWN = 12
"""Values of an output that the table shows."""


def main() -> None:
    """Run one inference and print it."""
    arguments = _parser().parse_args()
    address = arguments.address or arguments.control or os.environ.get("EDGEWAY_CONTROL") or inference_address()
    try:
        with Client(address) as client:
            metadata = client.metadata(arguments.name, arguments.version)
            inputs = _inputs(arguments.input, metadata, arguments.seed)
            result = client.infer(
                arguments.name,
                inputs,
                budget_ms=arguments.budget_ms,
                version=arguments.version,
                priority=arguments.priority,
                route_key=arguments.route_key,
                degrade=arguments.degrade,
            )
    except InferenceError as failed:
        _fail(f"{failed.code.name}: {failed}")
    except ValueError as wrong:
        _fail(str(wrong))
    print(json.dumps(_plain(result), default=_element) if arguments.output == "json" else _table(result))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edgeway infer",
        description="Run one inference. Inputs that are not given are random.",
        epilog="example: edgeway infer digits --input frame=@frame.npy --budget-ms 20 -o json",
    )
    parser.add_argument("name", metavar="NAME", help="deployment")
    parser.add_argument("--input", action="append", default=[], metavar="NAME=@FILE.npy|random", help="repeatable")
    parser.add_argument("--budget-ms", type=_positive, metavar="N", help="latency budget; default: the deployment's")
    parser.add_argument("--version", default="", help="pin a version, or the alias current or previous")
    parser.add_argument("--priority", type=int, default=0, choices=range(10), metavar="0..9", help="1 is highest")
    parser.add_argument("--route-key", help="the same key meets the same version")
    parser.add_argument("--degrade", choices=["allow", "never"], help="whether another target may serve")
    parser.add_argument("--seed", type=int, default=0, help="of random inputs")
    parser.add_argument("--address", metavar="ADDR", help="unix:/PATH or HOST:PORT of the gateway")
    parser.add_argument("--control", metavar="ADDR", help="control socket, which serves inference too")
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    return parser


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"expected milliseconds > 0, got {text}")
    return number


def _inputs(given: list[str], metadata: ModelMetadata, seed: int) -> Mapping[str, np.ndarray]:
    """The arrays to send. Raises ValueError: a file that is none, or an argument that is none."""
    chosen: dict[str, np.ndarray | None] = {spec.name: None for spec in metadata.inputs}
    for argument in given:
        name, equals, source = argument.partition("=")
        if not equals or not (source == "random" or source.startswith("@")):
            raise ValueError(f"--input {argument}: expected NAME=@FILE.npy or NAME=random")
        if name not in chosen:
            raise ValueError(f"--input {name}: {metadata.name} has no such input, it has {', '.join(chosen)}")
        if source != "random":
            chosen[name] = _load(Path(source[1:]))
    random = np.random.default_rng(seed)
    specs = {spec.name: spec for spec in metadata.inputs}
    return {name: _random(specs[name], random) if array is None else array for name, array in chosen.items()}


def _load(path: Path) -> np.ndarray:
    try:
        loaded = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as failed:
        raise ValueError(f"--input @{path}: can't be read as .npy: {failed}") from failed
    if not isinstance(loaded, np.ndarray):
        raise ValueError(f"--input @{path}: expected one array (.npy), got an archive")
    return loaded


def _random(spec: TensorMetadata, random: np.random.Generator) -> np.ndarray:
    """Any size is 1; integers are small, so that they can be indices."""
    shape = tuple(1 if size < 0 else size for size in spec.shape)
    code = BY_NAME[spec.datatype].numpy
    if code is None:
        return np.full(shape, b"edgeway", dtype=object)
    if spec.datatype == "BF16":
        raise ValueError(f"input {spec.name!r} is BF16, which numpy lacks: there are no random values for it")
    numpy = np.dtype(code)
    if numpy.kind == "f":
        return random.random(shape).astype(numpy)
    if numpy.kind == "b":
        return random.integers(0, 2, shape).astype(numpy)
    return random.integers(0, 256 if spec.datatype == "UINT8" else 10, shape).astype(numpy)


def _facts(result: Result) -> dict[str, Any]:
    return {
        "edgeway_version": result.version,
        "edgeway_target": result.served_by,
        "edgeway_accelerator": result.accelerator,
        "edgeway_kind": result.kind,
        "edgeway_degraded": result.degraded,
        "edgeway_reason": result.reason,
        "edgeway_queue_us": round(result.queue_ms * 1e3),
        "edgeway_compute_us": round(result.compute_ms * 1e3),
        "edgeway_total_us": round(result.total_ms * 1e3),
        "edgeway_budget_left_us": round(result.budget_left_ms * 1e3),
    }


def _plain(result: Result) -> dict[str, Any]:
    outputs = [
        {"name": name, "dtype": array.dtype.name, "shape": list(array.shape), "data": array.reshape(-1).tolist()}
        for name, array in result.outputs.items()
    ]
    return {"outputs": outputs, "parameters": _facts(result), "wallMs": round(result.wall_ms, 3)}


def _element(value: object) -> str:
    """Elements of a BYTES tensor, as text."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _table(result: Result) -> str:
    lines = []
    for name, array in result.outputs.items():
        values = ", ".join(
            _element(v) if isinstance(v, bytes) else f"{v:.6g}" for v in array.reshape(-1)[:_SHOWN].tolist()
        )
        more = ", ..." if array.size > _SHOWN else ""
        lines.append(f"{name}  {array.dtype.name}{list(array.shape)}  {values}{more}")
    why = f", degraded: {result.reason}" if result.degraded else ""
    lines.append(f"served by {result.served_by} ({result.kind}){why}; version {result.version}")
    lines.append(
        f"waited {result.wall_ms:.2f} ms: gateway {result.total_ms:.2f}, of it queue {result.queue_ms:.2f}"
        f" and run {result.compute_ms:.2f}; {result.budget_left_ms:.1f} ms of the budget left"
    )
    return "\n".join(lines)


def _fail(message: str) -> NoReturn:
    print(f"edgeway: {message}", file=sys.stderr)
    raise SystemExit(1)


if __name__ == "__main__":
    main()
