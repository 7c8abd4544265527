"""Files of devices and folders for what is made for them: which are there, and whether this process may use them."""

from __future__ import annotations

import glob
import os
import sys
from typing import List, NamedTuple, Optional, Sequence

from workers.backend import MISSING_DEVICE, NO_PERMISSION

INTEL = "0x8086"
"""Vendor of PCI devices, as sysfs writes it."""


class Obstacle(NamedTuple):
    """Why a device can't be used; ``code`` as in ``workers.backend``."""

    code: str
    reason: str
    remedy: str


def device_files(dev_root: str, *patterns: str) -> List[str]:
    """Those that are there, in the order of the patterns, which are relative to the root."""
    return [path for pattern in patterns for path in sorted(glob.glob(os.path.join(glob.escape(dev_root), pattern)))]


def of_vendor(paths: Sequence[str], sysfs_class: str, vendor: str) -> List[str]:
    """Those device files whose device says in sysfs that it is of this vendor.

    Args:
        paths: ``/dev/dri/renderD128``
        sysfs_class: ``/sys/class/drm``
        vendor: ``0x8086``
    """
    return [path for path in paths if _vendor(sysfs_class, os.path.basename(path)) == vendor]


def obstacle(paths: Sequence[str], what: str, remedy: str) -> Optional[Obstacle]:
    """Why none of these files can be used; None: one can.

    Args:
        paths: the device's files, as far as there are any.
        what: the device, for people.
        remedy: what to do where there is none.
    """
    if not paths:
        return Obstacle(MISSING_DEVICE, f"there is no {what} here", remedy)
    if any(os.access(path, os.R_OK | os.W_OK) for path in paths):
        return None
    named = ", ".join(paths)
    return Obstacle(
        NO_PERMISSION,
        f"{named}: no permission to read and write",
        f"add the user that runs the gateway to the group that {paths[0]} belongs to (ls -l {paths[0]})",
    )


def usable_folder(path: str) -> bool:
    """Make it, if it is not there. False, said on stderr: nothing can be kept there."""
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
    except OSError as failed:
        print(f"nothing that is compiled can be kept: {failed}", file=sys.stderr, flush=True)
        return False
    return True


def _vendor(sysfs_class: str, name: str) -> str:
    try:
        with open(os.path.join(sysfs_class, name, "device", "vendor"), encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""
