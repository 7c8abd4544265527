"""A backend from a package of its own: installed, found by doctor, served through a gateway, held to the contract."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np

from benchmarks.contract import CHOSEN
from benchmarks.harness import Gateway, Verdict, scratch
from edgeway.client import Client

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "examples" / "backend"
LINE = {"weights": [[2.0, 0.0], [0.0, 2.0]], "bias": [1.0, 1.0]}
GIVEN = np.array([[1, 2], [3, -4]], np.float32)
EXPECTED = [[3.0, 5.0], [7.0, -7.0]]
MANIFEST = """
apiVersion: edge.ai/v1
kind: ModelDeployment
metadata: {{name: deployed}}
spec:
  model: {{uri: "file:line.linear", version: "1.0", checksum: "sha256:{digest}"}}
  targets: [linear]
"""


def environment(folder: Path) -> Path:
    """The interpreter of a new environment that sees what this one has, and no more."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    site = next(folder.glob("lib/python*/site-packages"))
    # Not its path alone: a folder named so is not looked through for .pth files, which tell of editable installs.
    (site / "beside.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    return folder / "bin" / "python"


def install(python: Path, package: Path) -> None:
    """From a copy: the checkout stays as it is. Without a registry: what builds it is here already."""
    copy = python.parents[2] / "package"
    shutil.copytree(package, copy)
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-index"]
    subprocess.run([*command, "--no-deps", "--no-build-isolation", "--no-cache-dir", str(copy)], check=True)


def doctor(python: Path) -> dict[str, str]:
    """What ``edgeway doctor`` says of it in that environment; empty: nothing."""
    done = subprocess.run(
        [str(python), "-m", "gateway", "doctor", "-o", "json"], capture_output=True, text=True, check=True
    )
    return next((row for row in json.loads(done.stdout) if row["backend"] == "linear"), {})


def held(python: Path) -> tuple[int, str]:
    """Exit code of the contract suite, and its last line."""
    command = [sys.executable, "-m", "benchmarks.contract", "linear", "--python", str(python)]
    command += ["--models", str(PACKAGE / "contract_models.py"), "-q", "-p", "no:cacheprovider"]
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", CHOSEN))}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environ)
    return done.returncode, (done.stdout.strip().splitlines() or [done.stderr])[-1]


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    verdict = Verdict("somebody else's backend: the package examples/backend")
    with scratch() as folder:
        python = environment(folder / "env")
        verdict.control(f"before it is installed, edgeway doctor says of it: {doctor(python) or 'nothing'}")
        install(python, PACKAGE)
        row = doctor(python)
        verdict.check(bool(row.get("available")), f"installed: doctor lists linear, {row.get('reason')}")
        content = json.dumps(LINE).encode()
        (folder / "models" / "line" / "1").mkdir(parents=True)
        (folder / "models" / "line" / "1" / "model.linear").write_bytes(content)
        (folder / "line.linear").write_bytes(content)
        manifest = folder / "line.yaml"
        manifest.write_text(MANIFEST.format(digest=hashlib.sha256(content).hexdigest()))
        config = {"workers": [{"name": "linear", "backend": "linear", "python": str(python)}]}
        with Gateway(folder, config, ["--model-repository", str(folder / "models")]) as gateway:
            applied = gateway.run("apply", "-f", str(manifest), "--wait")
            verdict.check(applied.returncode == 0, f"apply --wait exits {applied.returncode} {applied.stderr.strip()}")
            with Client(gateway.unix) as client:
                for name, way in (("line", "of the repository"), ("deployed", "of a manifest")):
                    answer = client.infer(name, {"x": GIVEN})
                    verdict.check(
                        answer["y"].tolist() == EXPECTED and answer.served_by == "linear",
                        f"the model {way} answers {answer['y'].tolist()}, computed by {answer.served_by}",
                    )
            kinds = {target["worker"]: target["provenance"] for target in gateway.get("targets", "deployed")}
            verdict.check(bool(kinds.get("linear")), f"get targets says where it runs: {kinds}")
        code, last = held(python)
        passed = re.search(r"(\d+) passed", last)
        verdict.check(code == 0 and passed is not None, f"the contract suite on it: {last.strip('= ')}")
    verdict.end()


if __name__ == "__main__":
    main()
