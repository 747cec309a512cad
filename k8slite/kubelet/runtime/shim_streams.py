"""A container's standard streams: pipes, or a terminal. Standard library alone: shims run it."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

CONSOLE_SECONDS = 5.0
READ_BYTES = 64 * 1024


def console_path(spec: dict[str, Any]) -> str:
    """Where an OCI runtime sends the terminal's master, seen from the runtime's directory."""
    return f"containers/{spec['id']}/tty.sock"


class Streams:
    """The container's standard streams: the ends that it gets, and the ends that we keep.

    With a terminal there is one stream, `outputs` has its master; the container of an OCI runtime
    gets a terminal made inside, whose master comes through a socket.
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        self.outputs: dict[int, str] = {}
        self.stdin = self.terminal = -1
        self._null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self._console: socket.socket | None = None
        self._passed: list[int] = []
        stdin = self._null
        if spec.get("tty"):
            if "oci" in spec:
                self._console = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                self._console.bind(console_path(spec))
                self._console.listen(1)
                self.given = (self._null, self._null, self._null)
                return
            master, slave = os.openpty()
            self._passed.append(slave)
            self.given = (slave, slave, slave)
            self._take_terminal(master, stdin=bool(spec.get("stdin")))
            return
        if spec.get("stdin"):
            stdin, self.stdin = os.pipe2(os.O_CLOEXEC)
            self._passed.append(stdin)
        ends = []
        for name in ("stdout", "stderr"):
            reader, writer = os.pipe2(os.O_CLOEXEC)
            self.outputs[reader] = name
            self._passed.append(writer)
            ends.append(writer)
        self.given = (stdin, ends[0], ends[1])

    def _take_terminal(self, master: int, *, stdin: bool) -> None:
        self.terminal = master
        self.outputs = {master: "stdout"}
        if stdin:
            self.stdin = os.dup(master)

    def started(self, spec: dict[str, Any]) -> None:
        """The container has its ends: let go of them, and fetch what it sends."""
        if self._console is not None:
            with self._console:
                self._console.settimeout(CONSOLE_SECONDS)
                connection, _ = self._console.accept()
                with connection:
                    _, files, _, _ = socket.recv_fds(connection, 4096, 1)
            os.unlink(console_path(spec))
            os.set_inheritable(files[0], False)
            self._take_terminal(files[0], stdin=bool(spec.get("stdin")))
        for fd in (*self._passed, self._null):
            os.close(fd)


def read_output(fd: int) -> bytes | None:
    """Some of it; b"" at its end, which a terminal tells by an error; None: nothing after all."""
    try:
        return os.read(fd, READ_BYTES)
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return b""
