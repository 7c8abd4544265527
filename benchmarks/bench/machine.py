"""What a figure should not be read without."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path


def facts() -> dict[str, str]:
    """Of this machine and its libraries, and how busy it is with other things."""
    return {
        "processor": processor(),
        "cpus": str(len(os.sched_getaffinity(0))),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "grpcio": version("grpcio"),
        "onnxruntime": version("onnxruntime"),
        "load": f"{os.getloadavg()[0]:.1f}",
    }


def processor() -> str:
    """Its name as the kernel has it; on processors that say none, the architecture."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
