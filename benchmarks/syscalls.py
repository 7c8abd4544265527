"""System calls of a process and all its children, decided by us: let go on, fail, or be taken for done.

A seccomp filter hands the calls to this process (user notification: Linux 5.5, no privileges, nothing installed). What
the program and its libraries do is unchanged, SQLite's own calls included.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import select
import socket
import struct
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

_ARCHES = {
    "x86_64": (0xC000003E, 317, {
        "write": 1, "open": 2, "pwrite64": 18, "writev": 20, "fsync": 74, "fdatasync": 75, "ftruncate": 77,
        "rename": 82, "openat": 257, "renameat": 264, "pwritev": 296, "renameat2": 316, "copy_file_range": 326,
    }),
    "aarch64": (0xC00000B7, 277, {
        "renameat": 38, "ftruncate": 46, "openat": 56, "write": 64, "writev": 66, "pwrite64": 68, "pwritev": 70,
        "fsync": 82, "fdatasync": 83, "renameat2": 276, "copy_file_range": 285,
    }),
}  # fmt: skip
"""By machine: AUDIT_ARCH, the number of seccomp(2), numbers of the calls; from the kernel's tables."""
_OPENS = {"open": 0, "openat": 1, "rename": 0, "renameat": 1, "renameat2": 1}
"""Which argument is a path; of the others the first is a descriptor."""
SYNCS = ("fsync", "fdatasync")
_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_CONTINUE, _NOTIFY, _ALLOW = 1, 0x7FC00000, 0x7FFF0000
_NEW_LISTENER, _NO_NEW_PRIVILEGES = 1 << 3, 38
_LONGEST_PATH = 4096


@dataclass(frozen=True, slots=True)
class Call:
    """One system call on a file."""

    name: str
    path: str


Decide = Callable[[Call], "int | None"]
"""None: let it go on; an errno: let it fail; 0: say that it was done, and do nothing."""


class NotHere(Exception):
    """This kernel or this sandbox has no such filters. The message says why."""


class Supervised:
    """Starts commands under the filter. ``decide`` is asked about calls on files below ``root``, one at a time."""

    def __init__(self, root: Path, decide: Decide) -> None:
        self._root = str(root)
        self._decide = decide
        self._numbers = {number: name for name, number in _ARCHES[_machine()][2].items()}
        self._ours, theirs = socket.socketpair()
        self._theirs = theirs
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def descriptor(self) -> int:
        """Must be passed on to the command (``pass_fds``)."""
        return self._theirs.fileno()

    def command(self, command: Sequence[str]) -> list[str]:
        return [sys.executable, "-m", "benchmarks.syscalls", str(self.descriptor), *command]

    def close(self) -> None:
        self._theirs.close()
        self._thread.join(5)

    def _serve(self) -> None:
        """Every command sends the descriptor of its filter; each is served until its last process is gone."""
        poll = select.poll()
        poll.register(self._ours, select.POLLIN)
        listeners: set[int] = set()
        while True:
            for fd, event in poll.poll():
                if fd == self._ours.fileno():
                    _, fds, _, _ = socket.recv_fds(self._ours, 1, 1)
                    if not fds:
                        return
                    listeners.add(fds[0])
                    poll.register(fds[0], select.POLLIN)
                elif event & select.POLLIN:
                    self._answer(fd)
                else:
                    poll.unregister(fd)
                    os.close(fd)

    def _answer(self, listener: int) -> None:
        buffer = bytearray(80)
        try:
            fcntl.ioctl(listener, _RECEIVE, buffer, True)
        except OSError:
            return  # the process was killed meanwhile
        notice, pid, _, number, _, _, *arguments = struct.unpack("=QIIiIQ6Q", buffer)
        name = self._numbers[number]
        path = _path(pid, name, arguments)
        verdict = self._decide(Call(name, path)) if path.startswith(self._root) else None
        flags = _CONTINUE if verdict is None else 0
        done = arguments[2] if verdict == 0 and "write" in name else 0
        reply = struct.pack("=QqiI", notice, done, -(verdict or 0), flags)
        try:
            fcntl.ioctl(listener, _SEND, reply)
        except OSError as gone:
            if gone.errno != errno.ENOENT:
                raise


def _path(pid: int, name: str, arguments: Sequence[int]) -> str:
    """What the call is about; empty when the process is gone."""
    try:
        if name not in _OPENS:
            return str(Path(f"/proc/{pid}/fd/{arguments[0]}").readlink())
        at = _OPENS[name]
        with Path(f"/proc/{pid}/mem").open("rb", 0) as memory:
            given = _string(memory.fileno(), arguments[at])
        if given.startswith("/"):
            return given
        folder = ctypes.c_int32(arguments[0] & 0xFFFFFFFF).value if at else -100
        return str(Path(f"/proc/{pid}/cwd" if folder == -100 else f"/proc/{pid}/fd/{folder}").readlink() / given)
    except OSError:
        return ""


def _string(memory: int, at: int) -> str:
    """The text at an address, which may end shortly before memory that is not there."""
    found = b""
    while b"\0" not in found and len(found) < _LONGEST_PATH:
        found += os.pread(memory, 256 - (at + len(found)) % 256, at + len(found))
    return os.fsdecode(found.partition(b"\0")[0])


def _machine() -> str:
    machine = platform.machine()
    if machine not in _ARCHES or sys.platform != "linux":
        raise NotHere(f"no table of system calls for {sys.platform} on {machine}")
    return machine


def install() -> int:
    """Filter this process and what it starts; the descriptor on which its calls are told.

    Raises:
        NotHere
    """
    arch, seccomp, numbers = _ARCHES[_machine()]
    program = [(0x20, 0, 0, 4), (0x15, 0, len(numbers) + 1, arch), (0x20, 0, 0, 0)]
    for index, number in enumerate(numbers.values()):
        program.append((0x15, len(numbers) - index, 0, number))
    program += [(0x06, 0, 0, _ALLOW), (0x06, 0, 0, _NOTIFY)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in program))
    form = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    listener = int(libc.syscall(seccomp, 1, _NEW_LISTENER, form))
    if listener < 0:
        raise NotHere(f"seccomp user notification: {os.strerror(ctypes.get_errno())}")
    return listener


def available() -> str:
    """Why it can't be used here; empty: it can."""
    child = os.fork()
    if child == 0:
        try:
            install()
        except NotHere:
            os._exit(1)
        os._exit(0)
    return "" if os.waitpid(child, 0)[1] == 0 else "this kernel or sandbox has no seccomp user notification"


def main() -> None:
    """Run a command under the filter: ``python -m benchmarks.syscalls DESCRIPTOR COMMAND...``."""
    supervisor = socket.socket(fileno=int(sys.argv[1]))
    listener = (
        install()
    )  # from here on a file that is opened waits for the supervisor: nothing may be imported any more
    supervisor.sendmsg([b"f"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", listener))])
    supervisor.detach()
    os.execv(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
