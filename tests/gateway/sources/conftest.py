"""Real servers beside the tests: an S3-compatible one, an OCI registry; each a process of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from benchmarks.harness import wait_for


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def answers(url):
    try:
        return urllib.request.urlopen(url, timeout=1).status == 200
    except OSError:
        return False


@pytest.fixture(scope="session")
def s3():
    """Port of moto's server."""
    pytest.importorskip("moto.server")
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: answers(f"http://127.0.0.1:{port}/moto-api/"), 60, "the S3 server's start")
        yield port
    finally:
        process.kill()
        process.wait()


def apt(folder, *arguments):
    limits = ["-oAcquire::http::Timeout=10", "-oAcquire::Retries=0", "-oDebug::NoLocking=true"]
    try:
        return not subprocess.run(
            ["apt-get", *limits, *arguments], cwd=folder, capture_output=True, timeout=30
        ).returncode
    except subprocess.TimeoutExpired:
        return False


def registry_binary(folder):
    """CNCF Distribution's registry: what is installed, else Debian's package, unpacked without installing it."""
    for name in ("docker-registry", "registry"):
        if found := shutil.which(name):
            return found
    kept = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "edgeway-tests" / "docker-registry"
    binary = kept / "usr/bin/docker-registry"
    if not binary.exists():
        if not (shutil.which("apt-get") and shutil.which("dpkg")):
            pytest.skip("no OCI registry is installed, and only Debian's packages have one to unpack")
        state = [f"-oDir::State={folder}/state", f"-oDir::Cache={folder}/cache", "-oAcquire::Languages=none"]
        (folder / "state" / "lists" / "partial").mkdir(parents=True)
        # The machine's own lists of packages may be missing, and are root's to renew; then into lists of our own.
        if not (apt(folder, "download", "docker-registry") or apt(folder, *state, "update")):
            pytest.skip("no OCI registry is installed, and no package server of Debian can be reached")
        packages = list(folder.glob("docker-registry*.deb"))
        if not packages and apt(folder, *state, "download", "docker-registry"):
            packages = list(folder.glob("docker-registry*.deb"))
        if not packages:
            pytest.skip("no OCI registry is installed, and Debian's package docker-registry is not to be had")
        subprocess.run(["dpkg", "-x", packages[0], folder / "unpacked"], check=True)
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(folder / "unpacked", kept, dirs_exist_ok=True)
    return str(binary)


@pytest.fixture(scope="session")
def registry_port():
    """Where the registry will be."""
    return free_port()


@pytest.fixture(scope="session")
def registry(tmp_path_factory, registry_port):
    """Port of an OCI registry that speaks http and wants no credentials."""
    folder, port = tmp_path_factory.mktemp("registry"), registry_port
    binary = registry_binary(folder)
    (folder / "config.yml").write_text(f"""
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {folder}/blobs}}}}
http: {{addr: "127.0.0.1:{port}"}}
""")
    command = [binary, "serve", str(folder / "config.yml")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: answers(f"http://127.0.0.1:{port}/v2/"), 30, "the registry's start")
        yield port
    finally:
        process.kill()
        process.wait()
