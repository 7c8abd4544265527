"""Environments for workers whose runtime can't live beside the gateway's, in ``.runtimes/`` of the checkout.

    python -m benchmarks.runtimes [NAME...]

makes those that are missing or old, and says in one line each what is there, how large it is, or why it can't be had.
The flavours of ONNX Runtime share one import name, so each needs an environment of its own; a device config names its
interpreter under ``workers[].python``. The gateway puts the worker's own code on that interpreter's path.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".runtimes"
INSTALL_LIMIT = 900.0
PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:")
WORKER = ("numpy>=1.23", "protobuf>=5.29,<8")
"""What the code of a worker imports itself."""


@dataclass(frozen=True)
class Runtime:
    """One environment. ``check`` is what its interpreter must be able to do before it counts as made."""

    packages: tuple[str, ...]
    check: str
    python: str = ""
    """Version of its interpreter, where it is not that of the checkout."""


RUNTIMES = {
    "litert": Runtime(("ai-edge-litert>=2.1,<3",), "import ai_edge_litert.interpreter"),
    "openvino": Runtime(
        ("onnxruntime-openvino>=1.22,<2",),
        "import onnxruntime as o; assert 'OpenVINOExecutionProvider' in o.get_available_providers()",
    ),
    "python3.9": Runtime(("onnxruntime>=1.19,<1.20",), "import onnxruntime", python="3.9"),
    "qnn": Runtime(
        ("onnxruntime>=1.24,<2", "onnxruntime-qnn>=2.3,<3"),
        "import onnxruntime_qnn as q, os; assert os.path.exists(q.get_library_path())",
    ),
}


class Missing(Exception):
    """An environment that can't be had; the message says why in one line."""


def interpreter(name: str) -> Path:
    """Of an environment that was made.

    Raises:
        Missing: it was not, or can't be.
    """
    if (FOLDER / name / ".installed").exists():
        return FOLDER / name / "bin" / "python"
    reason = FOLDER / f"{name}.missing"
    raise Missing(reason.read_text() if reason.exists() else f"not made yet: make runtimes RUNTIMES={name}")


def ready(name: str) -> bool:
    """Make it, or bring it up to date; False: it was already.

    Raises:
        Missing: it can't be installed here.
    """
    with _alone(name):
        reason = FOLDER / f"{name}.missing"
        reason.unlink(missing_ok=True)
        try:
            return _made(name, FOLDER / name, RUNTIMES[name])
        except Missing as missing:
            reason.write_text(str(missing))
            raise


def _made(name: str, folder: Path, runtime: Runtime) -> bool:
    base = _base(runtime.python)
    stamp, wanted = folder / ".installed", hashlib.sha256(f"{base} {runtime} {WORKER}".encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return False
    shutil.rmtree(folder, ignore_errors=True)
    try:
        _run(str(base), "-m", "venv", str(folder))
        python = str(folder / "bin" / "python")
        _run(python, *PIP, *WORKER, *runtime.packages)
        _run(python, "-c", runtime.check)
    except Missing:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    stamp.write_text(wanted)
    return True


def _base(version: str) -> Path:
    """The interpreter that an environment is made with."""
    if not version:
        return Path(sys.executable).resolve()
    named = shutil.which(f"python{version}")
    homes = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    for candidate in [*([Path(named)] if named else []), *homes]:
        found = subprocess.run([candidate, "-c", "import venv"], capture_output=True)
        if found.returncode == 0:  # a shim of a version manager answers also for one that is not chosen
            return candidate.resolve()
    raise Missing(f"there is no Python {version} on this machine: install python{version} and python{version}-venv")


def _run(*command: str) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_LIMIT, env=environment)
    except subprocess.TimeoutExpired as late:
        raise Missing(f"installing took over {late.timeout:g} s") from late
    if done.returncode:
        said = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        errors = [line for line in said if "rror" in line] or said or ["no word of why"]
        raise Missing(errors[-1].strip()[:300])


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """Nobody else makes this environment meanwhile."""
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def versions(name: str) -> str:
    """Of the packages that matter, as installed, and how much they take."""
    wanted = [package.split(">")[0] for package in (*RUNTIMES[name].packages, *WORKER)]
    code = f"import importlib.metadata as m; print(', '.join(f'{{n}} {{m.version(n)}}' for n in {wanted}))"
    done = subprocess.run([interpreter(name), "-c", code], capture_output=True, text=True, check=True)
    size = sum(file.lstat().st_size for file in (FOLDER / name).rglob("*") if file.is_file())
    return f"{done.stdout.strip()}; {size / 1e6:.0f} MB"


def main(names: Sequence[str]) -> int:
    """Exit code 1: one that was asked for by name can't be had."""
    short = 0
    for unknown in set(names) - RUNTIMES.keys():
        print(f"unknown {unknown}: there are {', '.join(RUNTIMES)}")
        return 2
    for name in names or RUNTIMES:
        began = time.monotonic()
        try:
            new = ready(name)
        except Missing as missing:
            print(f"missing {name}: {missing}", flush=True)
            short = int(bool(names))
        else:
            how = f"made in {time.monotonic() - began:.0f} s" if new else "there"
            print(f"ok      {name}: {how}: {versions(name)}: {FOLDER / name / 'bin' / 'python'}", flush=True)
    return short


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
