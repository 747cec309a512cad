"""Answers questions over UDP and TCP: the zone's at once, all others through the forwarder.

Answers of the zone take no await, so questions over UDP are answered in the order in which they
come. Full: a question for outside is answered SERVFAIL, a TCP connection is closed at once.
"""

from __future__ import annotations

import logging
import random
import socket
import struct
from typing import Final

import trio

from k8slite.dns import packets
from k8slite.dns.forward import Forwarder
from k8slite.dns.zone import Answer, Zone

__all__ = ["DnsServer", "bind"]

log = logging.getLogger(__name__)

FORWARDS_MAX: Final = 1000
CONNECTIONS_MAX: Final = 100
IDLE_SECONDS: Final = 10.0
BACKLOG: Final = 128
QUESTION_BYTES_MAX: Final = 65535
RECEIVE_BUFFER_BYTES: Final = 1 << 20


def bind(ip: str, port: int) -> tuple[trio.socket.SocketType, trio.socket.SocketType]:
    """(UDP, TCP) at one address; port 0: a free one. Raises OSError, naming the address."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    datagrams = socket.socket(family, socket.SOCK_DGRAM)
    connections = socket.socket(family, socket.SOCK_STREAM)
    try:
        connections.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        connections.bind((ip, port))
        datagrams.bind((ip, connections.getsockname()[1]))
        datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        connections.listen(BACKLOG)
    except OSError as error:
        datagrams.close()
        connections.close()
        raise OSError(error.errno, f"can't serve DNS at {ip} port {port}: {error}") from error
    return (
        trio.socket.from_stdlib_socket(datagrams),
        trio.socket.from_stdlib_socket(connections),
    )


Peer = tuple[object, ...]


class DnsServer:
    """`ttl`: seconds for which an answer of the zone may be remembered."""

    def __init__(self, zone: Zone, forwarder: Forwarder, rng: random.Random, ttl: int) -> None:
        self._zone = zone
        self._forwarder = forwarder
        self._rng = rng
        self._ttl = ttl
        self._room = trio.CapacityLimiter(FORWARDS_MAX)
        self._connections = 0
        self.answered = 0
        self.forwarded = 0

    async def serve_datagrams(self, sock: trio.socket.SocketType) -> None:
        """Answer until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                try:
                    data, peer = await sock.recvfrom(QUESTION_BYTES_MAX)
                except ConnectionError:  # a client that has gone before its answer came
                    continue
                question = packets.parse(data, udp=True)
                if question is None:
                    continue
                if isinstance(question, bytes):
                    await _send(sock, question, peer)
                    continue
                answer = self._zone.lookup(question.name, question.type)
                if answer is not None and not answer.outside:
                    await _send(sock, self._respond(question, answer), peer)
                elif self._room.available_tokens < 1:
                    await _send(sock, packets.fails(question), peer)
                else:
                    nursery.start_soon(self._ask_for, sock, peer, question, answer, data)

    async def _ask_for(
        self,
        sock: trio.socket.SocketType,
        peer: Peer,
        question: packets.Question,
        answer: Answer | None,
        data: bytes,
    ) -> None:
        await _send(sock, await self._outside(question, answer, data, tcp=False), peer)

    async def serve_connections(self, sock: trio.socket.SocketType) -> None:
        """Accept and answer until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                try:
                    connection, _ = await sock.accept()
                except OSError as error:  # out of descriptors, or reset while in the backlog
                    log.warning("accept failed error=%s", error)
                    await trio.sleep(0.1)
                    continue
                if self._connections >= CONNECTIONS_MAX:
                    connection.close()
                    continue
                self._connections += 1
                nursery.start_soon(self._serve, trio.SocketStream(connection))

    async def _serve(self, stream: trio.SocketStream) -> None:
        """One connection: questions one after the other."""
        try:
            async with stream:
                buffer = bytearray()
                while True:
                    with trio.move_on_after(IDLE_SECONDS) as patience:
                        data = await _frame(stream, buffer)
                    if patience.cancelled_caught or data is None:
                        return
                    answer = await self._answer(data)
                    if answer is None:
                        return
                    with trio.move_on_after(IDLE_SECONDS) as patience:
                        await stream.send_all(struct.pack(">H", len(answer)) + answer)
                    if patience.cancelled_caught:
                        return
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self._connections -= 1

    async def _answer(self, data: bytes) -> bytes | None:
        question = packets.parse(data, udp=False)
        if question is None or isinstance(question, bytes):
            return question
        answer = self._zone.lookup(question.name, question.type)
        if answer is not None and not answer.outside:
            return self._respond(question, answer)
        return await self._outside(question, answer, data, tcp=True)

    def _respond(
        self, question: packets.Question, answer: Answer, outside: bytes | None = None
    ) -> bytes:
        self.answered += 1
        authority = self._zone.authority(1, self._ttl)
        return packets.respond(question, answer, authority, self._ttl, self._rng, outside)

    async def _outside(
        self, question: packets.Question, answer: Answer | None, data: bytes, *, tcp: bool
    ) -> bytes:
        """What others say: to the question, or about the end of our answer's chain."""
        self.forwarded += 1
        async with self._room:
            if answer is None:
                return await self._forwarder.ask(data, tcp=tcp) or packets.fails(question)
            query = packets.ask(answer.outside, question.type)
            found = await self._forwarder.ask(query, tcp=True)
        return self._respond(question, answer, found) if found else packets.fails(question)


async def _send(sock: trio.socket.SocketType, data: bytes, peer: Peer) -> None:
    try:
        await sock.sendto(data, peer)
    except OSError as error:  # no way to the client
        log.debug("peer=%s error=%s", peer, error)


async def _frame(stream: trio.SocketStream, buffer: bytearray) -> bytes | None:
    """The next packet of a connection; None at its end."""
    while True:
        if len(buffer) >= 2:
            length = int.from_bytes(buffer[:2], "big")
            if len(buffer) >= length + 2:
                data = bytes(buffer[2 : length + 2])
                del buffer[: length + 2]
                return data
        chunk = await stream.receive_some(4096)
        if not chunk:
            return None
        buffer += chunk
