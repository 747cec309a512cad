"""Who is attached to a container: the shim's end. Standard library alone, for `shim.py` runs it.

Owns: the socket `attach.sock` in the container's directory, its clients, the way to the
container's standard input. Frames in both directions are a kind, a length of four bytes (big
endian), the bytes:

    to the shim     STDIN bytes | STDIN_END | RESIZE columns and rows (two bytes each) | HOLD
    from the shim   STDOUT bytes | STDERR bytes; the end of the connection is the container's

Bounds: each client may lag BUFFER_MAX behind; then the container's output waits, for STALL_SECONDS
at most, after which the client is cut off: logs must go on. Of what clients type PENDING_MAX wait.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import struct
import termios
import time

STDIN, STDOUT, STDERR, STDIN_END, RESIZE, HOLD = range(6)
HEADER = struct.Struct(">BI")
BUFFER_MAX = 256 * 1024
PENDING_MAX = 64 * 1024
FRAME_MAX = 64 * 1024
READ_BYTES = 64 * 1024
STALL_SECONDS = 10.0
FLUSH_SECONDS = 10.0
CLIENTS_MAX = 64
GONE = (BrokenPipeError, ConnectionError, OSError)


class Client:
    """One attached connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.received = bytearray()
        self.to_send = bytearray()
        self.moved_at = time.monotonic()
        self.holds_stdin = False


class Attachments:
    """All clients of one container. `poll` is the shim's; its events for our files come to `ready`.

    `stdin` is where typed bytes go, -1 for nowhere; `terminal` the terminal's master, -1 for none.
    """

    def __init__(
        self, path: str, poll: select.poll, *, stdin: int, stdin_once: bool, terminal: int
    ) -> None:
        self._poll = poll
        self._stdin = stdin
        self._stdin_once = stdin_once
        self._terminal = terminal
        self._pending = bytearray()
        self._ends_stdin = False  # close it when all pending bytes are written
        self._clients: dict[int, Client] = {}
        if stdin >= 0:
            os.set_blocking(stdin, False)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)
        try:
            self._listener.bind(path)
        finally:
            os.umask(mask)
        self._listener.listen(CLIENTS_MAX)
        self._listener.setblocking(False)
        poll.register(self._listener, select.POLLIN)

    def owns(self, fd: int) -> bool:
        """Is an event of this file ours?"""
        return fd in self._clients or fd in (self._listener.fileno(), self._stdin)

    def ready(self, fd: int, events: int) -> None:
        """One of our files can go on."""
        if fd == self._stdin:
            self._type()
        elif fd == self._listener.fileno():
            self._accept()
        else:
            client = self._clients[fd]
            if events & select.POLLOUT:
                self._flush(client)
            if events & ~select.POLLOUT and fd in self._clients:
                self._read(client)

    def feed(self, stream: str, data: bytes) -> None:
        """Show output to all."""
        frame = HEADER.pack(STDOUT if stream == "stdout" else STDERR, len(data)) + data
        for client in list(self._clients.values()):
            if not client.to_send:
                client.moved_at = time.monotonic()
            client.to_send += frame
            self._flush(client)

    def lags(self) -> bool:
        """Should output wait for a slow client? Who is too slow is cut off here."""
        now = time.monotonic()
        for client in list(self._clients.values()):
            if len(client.to_send) > BUFFER_MAX and now - client.moved_at > STALL_SECONDS:
                self._drop(client)
        return any(len(client.to_send) > BUFFER_MAX for client in self._clients.values())

    def finish(self) -> None:
        """The container has ended: let clients have the rest, and close."""
        self._listener.close()
        deadline = time.monotonic() + FLUSH_SECONDS
        while any(client.to_send for client in self._clients.values()):
            left = deadline - time.monotonic()
            waiting = [client for client in self._clients.values() if client.to_send]
            poll = select.poll()
            for client in waiting:
                poll.register(client.socket, select.POLLOUT)
            if left <= 0 or not poll.poll(left * 1000):
                break
            for client in waiting:
                self._flush(client)
        for client in list(self._clients.values()):
            client.socket.close()
        self._clients.clear()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except GONE:
            return
        if len(self._clients) >= CLIENTS_MAX:
            connection.close()
            return
        connection.setblocking(False)
        client = Client(connection)
        self._clients[connection.fileno()] = client
        self._register(client)

    def _register(self, client: Client) -> None:
        """Ask for what the client can do now: typing waits when too much is pending."""
        events = select.POLLIN if len(self._pending) < PENDING_MAX else 0
        events |= select.POLLOUT if client.to_send else 0
        self._poll.register(client.socket, events)

    def _register_all(self) -> None:
        for client in self._clients.values():
            self._register(client)

    def _flush(self, client: Client) -> None:
        try:
            while client.to_send:
                sent = client.socket.send(client.to_send[:READ_BYTES])
                del client.to_send[:sent]
                client.moved_at = time.monotonic()
        except BlockingIOError:
            pass
        except GONE:
            self._drop(client)
            return
        if client.socket.fileno() in self._clients:
            self._register(client)

    def _read(self, client: Client) -> None:
        try:
            data = client.socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        except GONE:
            data = b""
        if not data:
            self._drop(client)
            return
        client.received += data
        while len(client.received) >= HEADER.size:
            kind, length = HEADER.unpack_from(client.received)
            if length > FRAME_MAX:
                self._drop(client)
                return
            end = HEADER.size + length
            if len(client.received) < end:
                return
            payload = bytes(client.received[HEADER.size : end])
            del client.received[:end]
            self._obey(client, kind, payload)

    def _obey(self, client: Client, kind: int, payload: bytes) -> None:
        if kind == HOLD:
            client.holds_stdin = True
        elif kind == STDIN and self._stdin >= 0:
            self._pending += payload
            self._type()
        elif kind == STDIN_END:
            self._let_go(client)
        elif kind == RESIZE and self._terminal >= 0 and len(payload) == 4:
            columns, rows = struct.unpack(">HH", payload)
            with contextlib.suppress(OSError):
                size = struct.pack("HHHH", rows, columns, 0, 0)
                fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, size)

    def _let_go(self, client: Client) -> None:
        """A client types no more; with `stdinOnce` nobody ever will."""
        if client.holds_stdin and self._stdin_once and self._terminal < 0:
            self._ends_stdin = True
            self._type()
        client.holds_stdin = False

    def _type(self) -> None:
        """Hand pending bytes to the container, as many as it takes."""
        if self._stdin < 0:
            return
        try:
            while self._pending:
                written = os.write(self._stdin, self._pending[:READ_BYTES])
                del self._pending[:written]
        except BlockingIOError:
            self._poll.register(self._stdin, select.POLLOUT)
            self._register_all()
            return
        except GONE:  # it has closed its input, or ended
            self._pending.clear()
            self._ends_stdin = True
        with contextlib.suppress(KeyError):
            self._poll.unregister(self._stdin)
        if self._ends_stdin:
            os.close(self._stdin)
            self._stdin = -1
        self._register_all()

    def _drop(self, client: Client) -> None:
        fd = client.socket.fileno()
        if fd not in self._clients:
            return
        del self._clients[fd]
        with contextlib.suppress(KeyError):
            self._poll.unregister(fd)
        client.socket.close()
        self._let_go(client)
