"""A process that imports everything once; components are forked from it.

So a component starts in milliseconds, and they all share the memory of the modules. It has one
thread and no event loop, for forking is safe only then. The supervisor is at the other end of a
socket of packets: each asks for one process, with the descriptors that it shall have.

    -> {"role": "apiserver", "name": "apiserver-1", ...}  [channel, listeners...]
    <- {"started": "apiserver-1", "pid": 4711}
    <- {"ended": 4711, "code": -9}

Modules are imported role by role, in the order in which they will be asked for, whenever nobody
asks for a process: members of the store elect a leader while the apiserver's modules are read.

Components die with the zygote, and the zygote with the supervisor: a cluster never runs on
without anyone who knows of it.
"""

from __future__ import annotations

import array
import ctypes
import gc
import json
import os
import select
import signal
import socket
import sys
from typing import Any, Final

__all__ = ["MARK", "PACKET_BYTES", "main"]

MARK: Final = "K8SLITE_CLUSTER"
"""In the environment of every process of a cluster: its directory. `cleanup` finds strays by it."""
PACKET_BYTES: Final = 1 << 16
DESCRIPTORS_MAX: Final = 8
PR_SET_PDEATHSIG: Final = 1
PR_SET_NAME: Final = 15
_libc = ctypes.CDLL(None, use_errno=True)


class Zygote:
    """Owns the socket and the children."""

    def __init__(self, sock: socket.socket, roles: list[str]) -> None:
        self._socket = sock
        self._to_prepare = roles
        self._was_asked = False
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._prepared: set[str] = set()

    def run(self) -> None:
        """Until the supervisor is gone."""
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        while True:
            # The first process must not wait for what only later ones need.
            has_time = self._to_prepare and (self._was_asked or not self._prepared)
            ready = poll.poll(0 if has_time else None)
            if not ready:
                self._prepare(self._to_prepare.pop(0))
            for fd, _ in ready:
                if fd == self._wake_read:
                    os.read(self._wake_read, 4096)
                    self._reap()
                elif not self._serve_one():
                    return

    def _serve_one(self) -> bool:
        """Whether the supervisor is still there."""
        data, ancillary, _, _ = self._socket.recvmsg(
            PACKET_BYTES, socket.CMSG_SPACE(4 * DESCRIPTORS_MAX), socket.MSG_CMSG_CLOEXEC
        )
        fds = array.array("i")
        for level, kind, payload in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
        if not data:
            return False
        request: dict[str, Any] = json.loads(data)
        self._was_asked = True
        self._prepare(request["role"])
        pid = self._fork(request, list(fds))
        for fd in fds:
            os.close(fd)
        self._send({"started": request["name"], "pid": pid})
        return True

    def _prepare(self, role: str) -> None:
        """Import what the role needs; later roles share it."""
        if role in self._prepared:
            return
        from k8slite.cluster.components import load

        load(role)
        self._prepared.add(role)
        gc.collect()
        gc.freeze()  # the collector would write to every object, and so unshare its memory

    def _fork(self, request: dict[str, Any], fds: list[int]) -> int:
        parent = os.getpid()
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)
            _libc.prctl(PR_SET_NAME, request["name"].encode(), 0, 0, 0)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._socket.close()
            os.close(self._wake_read)
            os.close(self._wake_write)
            from k8slite.cluster.child import run

            code = run(request, fds)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._send({"ended": pid, "code": os.waitstatus_to_exitcode(status)})

    def _send(self, message: dict[str, Any]) -> None:
        self._socket.send(json.dumps(message).encode())


def main(fd: int, roles: list[str]) -> None:
    """The process: `python -m k8slite.cluster.zygote FD ROLE...`."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _libc.prctl(PR_SET_NAME, b"k8slite-zygote", 0, 0, 0)
    try:
        Zygote(socket.socket(fileno=fd), roles).run()
    except (BrokenPipeError, ConnectionResetError):
        return  # the supervisor is gone: so are we, and with us every component


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
