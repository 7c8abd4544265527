"""The zygote: a process with one thread that has imported what a worker needs, and forks one when the gateway asks.

It speaks JSON over a SEQPACKET socket. ``{"id": 7, "backend": "cpu", "settings": {...}}`` comes with the descriptor of
the child's link; the answer is ``{"id": 7, "pid": 123}`` with a pidfd of the child, or ``{"id": 7, "refused": "why"}``.
``{"ready": true}`` is said once, ``{"ended": 123, "code": -8}`` when a child has ended (-8: killed by signal 8).
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import traceback
from typing import Any, Callable, Dict, Sequence, Tuple

from workers.process import thread_count

_LARGEST = 64 * 1024


class Zygote:
    """Forks workers until the gateway closes the socket; they end with it, and it leaves no zombie."""

    def __init__(self, connection: socket.socket, serve: Callable[[str, int, Dict[str, Any]], int]) -> None:
        """Args:
        connection: to the gateway.
        serve: what a child does: backend, descriptor of its link and settings; returns its exit code.
        """
        self._socket = connection
        self._serve = serve
        self._children: Dict[int, int] = {}
        """pidfd -> pid. A pidfd becomes readable when its process has ended: no signal handler is needed."""
        self._poll = select.poll()

    def run(self) -> int:
        """Until the gateway's end of the socket is closed; the exit code."""
        gc.collect()
        gc.freeze()  # a collection in a child would copy the pages that it shares with us
        self._poll.register(self._socket, select.POLLIN)
        try:
            self._tell({"ready": True})
            while True:
                for fd, _ in self._poll.poll():
                    if fd in self._children:
                        pid, code = self._reap(fd)
                        self._tell({"ended": pid, "code": code})
                    elif not self._asked():
                        return 0
        except OSError:
            return 0  # the gateway is gone
        finally:
            self._end_all()

    def _asked(self) -> bool:
        """Take one request; False at the end of the stream."""
        frame, fds, _, _ = socket.recv_fds(self._socket, _LARGEST, 1)
        if not frame:
            return False
        request = json.loads(frame)
        # A lock that another thread holds at this moment stays locked in the child for ever.
        threads = thread_count()
        if threads != 1 or len(fds) != 1:
            why = f"the zygote has {threads} threads" if threads != 1 else "the request came without a link"
            self._tell({"id": request["id"], "refused": why})
        else:
            self._fork(request, fds[0])
        for fd in fds:
            os.close(fd)
        return True

    def _fork(self, request: Dict[str, Any], link: int) -> None:
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError as failed:
            return self._tell({"id": request["id"], "refused": f"fork: {failed.strerror}"})
        if pid == 0:
            self._be_child(request, link, parent)
        pidfd = os.pidfd_open(pid)
        self._children[pidfd] = pid
        self._poll.register(pidfd, select.POLLIN)
        # The pidfd goes along: a process may end and its number be used again before the gateway could open one.
        return self._tell({"id": request["id"], "pid": pid}, [pidfd])

    def _be_child(self, request: Dict[str, Any], link: int, parent: int) -> None:
        """Never returns: what lies above us on the stack is the zygote's."""
        code = 1
        try:
            self._socket.close()
            for pidfd in self._children:
                os.close(pidfd)
            code = self._serve(request["backend"], link, {**request["settings"], "parentPid": parent})
        except Exception:  # noqa: BLE001 - the edge of the process
            traceback.print_exc()
        finally:
            os._exit(code)

    def _reap(self, pidfd: int) -> Tuple[int, int]:
        """Pid and exit code of a child that has ended."""
        self._poll.unregister(pidfd)
        os.close(pidfd)
        pid, status = os.waitpid(self._children.pop(pidfd), 0)
        return pid, os.waitstatus_to_exitcode(status)

    def _end_all(self) -> None:
        for pid in self._children.values():
            os.kill(pid, signal.SIGKILL)  # not reaped yet, so the number is still its own
        for pidfd in list(self._children):
            self._reap(pidfd)

    def _tell(self, message: Dict[str, Any], fds: Sequence[int] = ()) -> None:
        """Raises OSError: the gateway is gone."""
        frame = json.dumps(message).encode()
        if fds:
            socket.send_fds(self._socket, [frame], list(fds))
        else:
            self._socket.send(frame)
