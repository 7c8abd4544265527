"""Each server's own virtual environment, in ``.peers/`` of the checkout.

    python -m benchmarks.peers.environments [NAME...]

makes those that are missing or old, and says in one line each what cannot be had.
"""

from __future__ import annotations

import ctypes.util
import hashlib
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".peers"
REQUIREMENTS = Path(__file__).parent / "requirements"
NAMES = ("edgeway", "mlserver", "kserve", "triton")
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
INSTALL_LIMIT = 900.0
SOURCES = ("gateway", "workers", "protos/edgeway", "clients/edgeway", "examples")
PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")


class Missing(Exception):
    """An environment that cannot be had; the message says why in one line."""


def python(name: str) -> Path:
    """Its interpreter."""
    return FOLDER / name / "bin" / "python"


def ready(name: str) -> None:
    """Make it, or bring it up to date.

    Raises:
        Missing: it cannot be installed here.
    """
    stamp = FOLDER / name / ".installed"
    wanted = _digest(name)
    if stamp.exists() and stamp.read_text() == wanted:
        return
    if name == "triton":
        _libpython()
    if not python(name).exists():
        _run(sys.executable, "-m", "venv", str(FOLDER / name))
    _run(str(python(name)), *PIP, "-r", str(REQUIREMENTS / f"{name}.txt"))
    if name == "edgeway":
        for more in (("--no-deps", "--force-reinstall"), ()):  # code that changed has the same version
            _run(str(python(name)), *PIP, "--no-build-isolation", *more, f"{ROOT}[device]")
    if name == "triton":
        _stub()
    stamp.write_text(wanted)


def versions(name: str) -> dict[str, str]:
    """Of the packages that matter, as installed."""
    asked = ("edgeway", "mlserver", "kserve", "nvidia-pytriton", "onnxruntime", "grpcio", "numpy", "uvloop")
    code = (
        "import importlib.metadata as m\n"
        f"for n in {asked}:\n"
        "    try: print(n, m.version(n))\n"
        "    except m.PackageNotFoundError: pass"
    )
    done = subprocess.run([python(name), "-c", code], capture_output=True, text=True, check=True)
    return dict(line.split() for line in done.stdout.splitlines())


def triton_packages() -> Path:
    """Where the files of nvidia-pytriton lie."""
    return FOLDER / "triton" / "lib" / f"python{PYTHON}" / "site-packages"


def triton_backends() -> Path:
    """Folder of backends with the Python backend and the stub of this Python."""
    return FOLDER / "triton" / "backends"


def triton_libraries() -> str:
    """Search path of the server's libraries; this interpreter's own libpython before the system's."""
    places = [triton_packages() / "nvidia_pytriton.libs"]
    if _own_libpython().exists():
        places.insert(0, _own_libpython().parent)
    return ":".join(map(str, places))


def _own_libpython() -> Path:
    return Path(sysconfig.get_config_var("LIBDIR") or "/") / f"libpython{PYTHON}.so.1.0"


def _libpython() -> None:
    if not _own_libpython().exists() and ctypes.util.find_library(f"python{PYTHON}") is None:
        raise Missing(f"libpython{PYTHON} is missing: apt install libpython{PYTHON}")


def _stub() -> None:
    """The server looks for the stub beside its backend; the package has one per Python in another place."""
    server = triton_packages() / "pytriton" / "tritonserver"
    stub = server / "python_backend_stubs" / PYTHON / "triton_python_backend_stub"
    if not stub.exists():
        raise Missing(f"nvidia-pytriton has no stub of the Python backend for Python {PYTHON}")
    shutil.copytree(server / "backends", triton_backends(), dirs_exist_ok=True)
    shutil.copy(stub, triton_backends() / "python")


def _digest(name: str) -> str:
    """Changes with the requirements, the interpreter, and for Edgeway with its sources."""
    digest = hashlib.sha256(f"{sys.version} {sys.prefix}".encode())
    digest.update((REQUIREMENTS / f"{name}.txt").read_bytes())
    if name == "edgeway":
        for path in sorted(_sources()):
            digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return digest.hexdigest()


def _sources() -> Iterator[Path]:
    yield ROOT / "pyproject.toml"
    for folder in SOURCES:
        yield from (p for p in (ROOT / folder).rglob("*") if p.is_file() and "__pycache__" not in p.parts)


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_LIMIT, cwd=FOLDER.parent)
    except subprocess.TimeoutExpired as late:
        raise Missing(f"{command[3]} took over {late.timeout:g} s") from late
    if done.returncode:
        said = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        errors = [line for line in said if "rror" in line] or said or ["no word of why"]
        raise Missing(errors[-1].strip()[:200])


def main(names: Sequence[str]) -> int:
    short = 0
    for name in names or NAMES:
        try:
            ready(name)
        except Missing as missing:
            print(f"missing {name}: {missing}", flush=True)
            short = 1
        else:
            found = ", ".join(f"{package} {version}" for package, version in versions(name).items())
            print(f"ok      {name}: {found}", flush=True)
    return short


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
