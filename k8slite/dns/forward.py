"""Questions about the rest of the world, put to the name servers of this machine.

The packet goes on as it came, under an id of ours; only an answer from that server, to that id
and that question, is taken. Each try has a socket, and so a port, of its own. Servers are asked in
the order of the file; the file is read again when it has changed.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import random
import socket
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import trio

from k8slite.dns.packets import HEADER_BYTES, shows_failure

__all__ = ["Forwarder", "open_socket"]

log = logging.getLogger(__name__)

PORT: Final = 53
SERVERS_MAX: Final = 3
"""As many as the resolver of libc looks at."""
ROUNDS: Final = 2
TRY_SECONDS: Final = 2.0
TRUNCATED_BIT: Final = 0x02
UDP_BYTES_MAX: Final = 65535

OpenSocket = Callable[[int, int], socket.socket]
"""(family, kind) to a socket, perhaps one in another network namespace."""


def open_socket(family: int, kind: int) -> socket.socket:
    return socket.socket(family, kind)


class Forwarder:
    """`file` is a resolv.conf. `own`: addresses that are ours, and never asked."""

    def __init__(
        self,
        file: str | Path,
        rng: random.Random,
        *,
        own: Sequence[str] = (),
        open_socket: OpenSocket = open_socket,
        port: int = PORT,
    ) -> None:
        self._file = Path(file)
        self._rng = rng
        self._own = frozenset(own)
        self._open_socket = open_socket
        self._port = port
        self._read_at: tuple[int, int] | None = None
        self._servers: list[str] = []

    @property
    def servers(self) -> list[str]:
        """Who is asked."""
        try:
            found = os.stat(self._file)
            stamp = (found.st_mtime_ns, found.st_ino)
            if stamp != self._read_at:
                self._servers = _servers(self._file.read_text(), self._own)
                self._read_at = stamp
        except (OSError, UnicodeDecodeError) as error:
            if self._read_at is not None or self._servers:
                log.warning("file=%s error=%s", self._file, error)
            self._read_at, self._servers = None, []
        return self._servers

    async def ask(self, query: bytes, *, tcp: bool) -> bytes | None:
        """The answer, with the id of the query. `tcp`: all of it, however long. None: nobody
        answered in time. An answer that says it failed counts only when nobody has a better one."""
        failure: bytes | None = None
        for _ in range(ROUNDS):
            for server in self.servers:
                try:
                    with trio.move_on_after(TRY_SECONDS):
                        answer = await self._ask(server, query, tcp=tcp)
                        if not shows_failure(answer):
                            return query[:2] + answer[2:]
                        failure = query[:2] + answer[2:]
                except OSError as error:
                    log.debug("server=%s error=%s", server, error)
            if failure is not None:
                break
        return failure

    async def _ask(self, server: str, query: bytes, *, tcp: bool) -> bytes:
        own_id = self._rng.getrandbits(16).to_bytes(2, "big")
        mine = own_id + query[2:]
        family = socket.AF_INET6 if ":" in server else socket.AF_INET
        with trio.socket.from_stdlib_socket(self._open_socket(family, socket.SOCK_DGRAM)) as sock:
            await sock.connect((server, self._port))
            await sock.send(mine)
            while True:
                answer = await sock.recv(UDP_BYTES_MAX)
                if _answers(answer, mine):
                    break
        if not (tcp and answer[2] & TRUNCATED_BIT):
            return answer
        stream_socket = trio.socket.from_stdlib_socket(
            self._open_socket(family, socket.SOCK_STREAM)
        )
        with stream_socket:
            await stream_socket.connect((server, self._port))
            stream = trio.SocketStream(stream_socket)
            await stream.send_all(struct.pack(">H", len(mine)) + mine)
            (length,) = struct.unpack(">H", await _receive(stream, 2))
            answer = await _receive(stream, length)
        if not _answers(answer, mine):
            raise OSError(f"{server} answers another question")
        return answer


async def _receive(stream: trio.abc.ReceiveStream, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        try:
            chunk = await stream.receive_some(count - len(data))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise OSError("connection lost") from error
        if not chunk:
            raise OSError("connection closed")
        data += chunk
    return bytes(data)


def _question_end(packet: bytes) -> int:
    at = HEADER_BYTES
    while at < len(packet) and packet[at]:
        at += packet[at] + 1
    return at + 5


def _answers(answer: bytes, query: bytes) -> bool:
    """Whether it is an answer to that question; some servers change its letters' case."""
    end = _question_end(query)
    return (
        len(answer) >= HEADER_BYTES
        and answer[:2] == query[:2]
        and bool(answer[2] & 0x80)
        and answer[HEADER_BYTES:end].lower() == query[HEADER_BYTES:end].lower()
    )


def _servers(text: str, own: frozenset[str]) -> list[str]:
    found: list[str] = []
    for line in text.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        if words[:1] == ["nameserver"] and len(words) > 1 and words[1] not in own:
            try:
                ipaddress.ip_address(words[1].partition("%")[0])
            except ValueError:
                continue
            found.append(words[1])
    return found[:SERVERS_MAX]
