"""Coral Edge TPUs of this machine: found in sysfs, opened by nobody but libedgetpu, and owned by one worker each."""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
from dataclasses import dataclass
from typing import List, Sequence

from workers.backend import DEVICE_BUSY, MISSING_DEVICE, NO_PERMISSION, WRONG_DRIVER, BackendUnavailable

USB_IDS = (("1a6e", "089a"), ("18d1", "9302"))
"""Vendor and product before the device has its first firmware, and after."""
PCI_ID = ("0x1ac1", "0x089a")
_WHICH = re.compile(r"(usb|pci)?(?::(\d+))?")
_LOCKS = "/run/lock"
_NODE_REMEDY = "give this user the device node: a udev rule with the group plugdev or apex, and the user in that group"
_DRIVER_REMEDY = "install the driver: apt install gasket-dkms, then modprobe apex"
MISSING_REMEDY = "attach a Coral device; in a container, pass its node in (/dev/apex_0, or /dev/bus/usb)"


@dataclass(frozen=True)
class Roots:
    """Where the kernel tells of devices; other folders in tests."""

    sysfs: str = "/sys"
    dev: str = "/dev"
    proc: str = "/proc"
    locks: str = ""
    """Folder of the files that say which device is taken; empty: /run/lock, else the one for temporary files."""


@dataclass(frozen=True)
class EdgeTpu:
    """One device. ``which``: as libedgetpu calls it, ``usb:0``."""

    which: str
    name: str
    """The kernel's name: ``apex_0``, or the USB port, which stays the same when the device comes back: ``2-1``."""
    sysfs: str
    node: str

    def __str__(self) -> str:
        return f"Coral Edge TPU {self.which} ({self.name})"

    @property
    def present(self) -> bool:
        return os.path.isdir(self.sysfs)


class Owned:
    """A device that is ours until the process ends. The kernel lets go of the lock then, however that happens."""

    def __init__(self, device: EdgeTpu, roots: Roots) -> None:
        """Raises BackendUnavailable: it is another's, or not for this user."""
        self.device = device
        self._file = _lock(device, roots)

    def release(self) -> None:
        os.close(self._file)


def find(roots: Roots) -> List[EdgeTpu]:
    """All that are there, PCIe before USB, in the kernel's order."""
    return [*_pci(roots), *_usb(roots)]


def choose(devices: Sequence[EdgeTpu], wanted: str) -> List[EdgeTpu]:
    """Those that ``wanted`` allows, in order: ``usb``, ``pci``, ``usb:N``, ``pci:N``, ``:N``, or any where it is empty.

    Raises:
        BackendUnavailable: it is none of these.
    """
    match = _WHICH.fullmatch(wanted)
    if match is None:
        raise BackendUnavailable(f"options.device: expected usb, pci, usb:N, pci:N or :N, got {wanted!r}")
    kind, number = match.groups()
    found = [device for device in devices if kind is None or device.which.startswith(kind)]
    return found if number is None else found[int(number) : int(number) + 1]


def own(wanted: str, roots: Roots) -> Owned:
    """The first wanted device that is free.

    Raises:
        BackendUnavailable: none is, with what stands against the first one.
    """
    candidates = choose(find(roots), wanted)
    if not candidates:
        raise missing(wanted, roots)
    refused: List[BackendUnavailable] = []
    for device in candidates:
        try:
            return Owned(device, roots)
        except BackendUnavailable as busy:
            refused.append(busy)
    raise refused[0]


def missing(wanted: str, roots: Roots) -> BackendUnavailable:
    """Why there is no such device."""
    others = find(roots)
    if others:
        text = f"there is no Coral Edge TPU {wanted}, but {', '.join(device.which for device in others)}"
        return BackendUnavailable(text, MISSING_DEVICE)
    if _without_driver(roots):
        text = "a Coral PCIe device (1ac1:089a) is there, but the apex driver has not taken it"
        return BackendUnavailable(text, WRONG_DRIVER)
    text = "no Coral Edge TPU: neither an apex device nor one on USB (1a6e:089a, 18d1:9302)"
    return BackendUnavailable(text, MISSING_DEVICE)


def check(device: EdgeTpu, roots: Roots) -> None:
    """Raises BackendUnavailable: its node is not there, not for this user, or open in another process."""
    if not os.path.exists(device.node):
        raise BackendUnavailable(f"{device} is there, but its node {device.node} is not", MISSING_DEVICE)
    if not os.access(device.node, os.R_OK | os.W_OK):
        raise BackendUnavailable(f"{device}: no permission to open {device.node}", NO_PERMISSION)
    holder = _holder(device.node, roots)
    if holder:
        raise BackendUnavailable(f"{device} is in use by {holder}", DEVICE_BUSY)


def not_opened(device: EdgeTpu, message: str, roots: Roots) -> BackendUnavailable:
    """What it means that libedgetpu refused, which has one error for all."""
    if not device.present:
        return BackendUnavailable(f"{device} is gone", MISSING_DEVICE)
    try:
        check(device, roots)
    except BackendUnavailable as reason:
        return reason
    why = "no process that this user can see has it open"
    if os.geteuid() != 0:
        return BackendUnavailable(f"{device} could not be opened ({message}); {why}: another's may", DEVICE_BUSY)
    return BackendUnavailable(f"{device} could not be opened ({message}), though {why}", WRONG_DRIVER)


def remedy(code: str) -> str:
    """What to do about it."""
    return {
        MISSING_DEVICE: MISSING_REMEDY,
        WRONG_DRIVER: _DRIVER_REMEDY,
        NO_PERMISSION: _NODE_REMEDY,
        DEVICE_BUSY: "end the other process, or name a second device with options.device (usb:1): one process owns one",
    }.get(code, "")


def _pci(roots: Roots) -> List[EdgeTpu]:
    folder = os.path.join(roots.sysfs, "class", "apex")
    names = [name for name in _listed(folder) if name.startswith("apex_")]
    return [
        EdgeTpu(f"pci:{number}", name, os.path.join(folder, name), os.path.join(roots.dev, name))
        for number, name in enumerate(sorted(names, key=_natural))
    ]


def _usb(roots: Roots) -> List[EdgeTpu]:
    folder = os.path.join(roots.sysfs, "bus", "usb", "devices")
    found: List[EdgeTpu] = []
    for name in sorted(_listed(folder), key=_natural):
        path = os.path.join(folder, name)
        if (_read(path, "idVendor"), _read(path, "idProduct")) in USB_IDS:
            # The number of a device changes when it gets its firmware; that of its port does not.
            bus, number = _read(path, "busnum").zfill(3), _read(path, "devnum").zfill(3)
            node = os.path.join(roots.dev, "bus", "usb", bus, number)
            found.append(EdgeTpu(f"usb:{len(found)}", name, path, node))
    return found


def _without_driver(roots: Roots) -> bool:
    folder = os.path.join(roots.sysfs, "bus", "pci", "devices")
    paths = [os.path.join(folder, name) for name in _listed(folder)]
    return any((_read(path, "vendor"), _read(path, "device")) == PCI_ID for path in paths)


def _lock(device: EdgeTpu, roots: Roots) -> int:
    """An open file with the device's lock. Raises BackendUnavailable."""
    folder = roots.locks or (_LOCKS if os.access(_LOCKS, os.W_OK) else tempfile.gettempdir())
    path = os.path.join(folder, f"edgeway-edgetpu-{device.name}.lock")
    try:
        file = _open(path)
    except OSError as failed:
        raise BackendUnavailable(f"{device} can't be locked: {path}: {failed.strerror}", NO_PERMISSION) from failed
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as busy:
        holder = os.pread(file, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(file)
        raise BackendUnavailable(f"{device} is in use by another worker, process {holder}", DEVICE_BUSY) from busy
    os.ftruncate(file, 0)
    os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
    return file


def _open(path: str) -> int:
    """A file that every user may lock; it stays, and so does not say that the device is taken. Raises OSError."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags)  # with O_CREAT the kernel refuses files of others in /tmp
    except FileNotFoundError:
        file = os.open(path, flags | os.O_CREAT, 0o666)
        os.fchmod(file, 0o666)  # whatever the umask says
        return file


def _holder(node: str, roots: Roots) -> str:
    """Another process that has the node open, as far as this user may see; empty: none."""
    for pid in _listed(roots.proc):
        if not pid.isdigit() or int(pid) == os.getpid():
            continue
        folder = os.path.join(roots.proc, pid, "fd")
        for descriptor in _listed(folder):
            try:
                held = os.readlink(os.path.join(folder, descriptor))
            except OSError:
                continue
            if held == node:
                return f"process {pid} ({_read(os.path.join(roots.proc, pid), 'comm') or 'unknown'})"
    return ""


def _listed(folder: str) -> List[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _read(folder: str, name: str) -> str:
    try:
        with open(os.path.join(folder, name), encoding="ascii", errors="replace") as file:
            return file.read(64).strip()
    except OSError:
        return ""


def _natural(name: str) -> List[object]:
    """So that ``apex_10`` comes after ``apex_9``; words and numbers never meet, as they take turns."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
