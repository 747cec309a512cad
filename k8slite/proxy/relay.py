"""One address that is relayed to endpoints: the choice of one, and the copying of bytes.

A connection goes to the next endpoint in turn, or to the one its client had before (affinity). An
endpoint that refuses is passed over for the next; when all refuse, so do we. Changing the
endpoints leaves the connections that exist alone, as kube-proxy does.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
import struct
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import trio

from k8slite.proxy.table import Endpoint
from raftkv.host import Address

__all__ = ["Balancer", "TcpRelay", "UdpRelay", "bind"]

log = logging.getLogger(__name__)

CHUNK_BYTES: Final = 65536
CONNECTIONS_MAX: Final = 1000
"""Per address. Full: no more are accepted until one ends; clients wait in the backlog."""
CLIENTS_MAX: Final = 10_000
"""Clients remembered for affinity. Full: the one not seen for the longest time is forgotten."""
SESSIONS_MAX: Final = 1000
"""UDP clients at once. Full: the one that was silent for the longest time is dropped."""
SESSION_SECONDS: Final = 60.0
CONNECT_SECONDS: Final = 5.0
BACKLOG: Final = 512
RESET: Final = struct.pack("ii", 1, 0)
"""Linger for no time: closing resets the connection, the nearest to a refusal."""

Connect = Callable[[Address], Awaitable[trio.abc.Stream]]


def bind(kind: socket.SocketKind, ip: str, port: int) -> trio.socket.SocketType:
    """A socket that several processes may bind to the same address: the kernel then spreads
    connections over them. Raises OSError."""
    sock = socket.socket(socket.AF_INET, kind)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((ip, port))
        if kind == socket.SOCK_STREAM:
            sock.listen(BACKLOG)
        return trio.socket.from_stdlib_socket(sock)
    except BaseException:
        sock.close()
        raise


class Balancer:
    """Whose turn it is. Pure but for the clock that it is handed."""

    def __init__(self) -> None:
        self.endpoints: tuple[Endpoint, ...] = ()
        self.affinity_seconds = 0
        self._ranges: tuple[str, ...] = ()
        self._networks: tuple[ipaddress.IPv4Network, ...] = ()
        self._turn = 0
        self._clients: OrderedDict[str, tuple[Endpoint, float]] = OrderedDict()

    def set(
        self, endpoints: Sequence[Endpoint], affinity_seconds: int, ranges: tuple[str, ...] = ()
    ) -> None:
        """`ranges`: the clients that are served; none: all."""
        if ranges != self._ranges:
            self._ranges = ranges
            self._networks = tuple(ipaddress.IPv4Network(each, strict=False) for each in ranges)
        self.endpoints = tuple(endpoints)
        self.affinity_seconds = affinity_seconds
        if not affinity_seconds:
            self._clients.clear()

    def candidates(self, client: str, now: float) -> list[Endpoint]:
        """All endpoints, in the order in which they should be tried."""
        endpoints = self.endpoints
        if not endpoints or not self._admits(client):
            return []
        turn = self._turn % len(endpoints)
        self._turn = turn + 1
        order = [*endpoints[turn:], *endpoints[:turn]]
        known = self._clients.get(client)
        if known is not None and known[0] in order and now - known[1] < self.affinity_seconds:
            order.remove(known[0])
            order.insert(0, known[0])
        return order

    def _admits(self, client: str) -> bool:
        if not self._networks:
            return True
        address = ipaddress.IPv4Address(client)
        return any(address in network for network in self._networks)

    def served(self, client: str, endpoint: Endpoint, now: float) -> None:
        if not self.affinity_seconds:
            return
        self._clients[client] = (endpoint, now)
        self._clients.move_to_end(client)
        if len(self._clients) > CLIENTS_MAX:
            self._clients.popitem(last=False)


class TcpRelay:
    """Accepts on one socket and copies both ways. `close` ends accepting, not the connections."""

    def __init__(self, sock: trio.socket.SocketType, connect: Connect) -> None:
        self.balancer = Balancer()
        self._sock = sock
        self._connect = connect
        self._accepting = trio.CancelScope()
        self._room = trio.Semaphore(CONNECTIONS_MAX)

    async def run(self, nursery: trio.Nursery) -> None:
        """Accept until closed; connections live in the nursery."""
        with self._accepting, self._sock:
            while True:
                await self._room.acquire()
                try:
                    connection, peer = await self._sock.accept()
                except OSError as error:  # out of descriptors, or reset while in the backlog
                    self._room.release()
                    log.warning("accept failed error=%s", error)
                    await trio.sleep(0.1)
                    continue
                nursery.start_soon(self._serve, trio.SocketStream(connection), peer[0])

    def close(self) -> None:
        self._accepting.cancel()

    async def _serve(self, inward: trio.SocketStream, client: str) -> None:
        try:
            async with inward:
                outward = await self._open(client)
                if outward is None:
                    inward.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    return
                async with outward, trio.open_nursery() as nursery:
                    nursery.start_soon(_copy, inward, outward, nursery.cancel_scope)
                    nursery.start_soon(_copy, outward, inward, nursery.cancel_scope)
        finally:
            self._room.release()

    async def _open(self, client: str) -> trio.abc.Stream | None:
        for endpoint in self.balancer.candidates(client, trio.current_time()):
            with trio.move_on_after(CONNECT_SECONDS):
                try:
                    stream = await self._connect(Address(endpoint.ip, endpoint.port))
                except OSError as error:
                    log.debug("endpoint=%s error=%s", endpoint, error)
                    continue
                self.balancer.served(client, endpoint, trio.current_time())
                return stream
        return None


async def _copy(source: trio.abc.Stream, target: trio.abc.Stream, both: trio.CancelScope) -> None:
    """Copy until the source ends, then pass the end on; when a side breaks, end both ways."""
    try:
        while True:
            data = await source.receive_some(CHUNK_BYTES)
            if not data:
                break
            await target.send_all(data)
        if isinstance(target, trio.abc.HalfCloseableStream):
            await target.send_eof()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        both.cancel()


class UdpRelay:
    """Datagrams of one client go to one endpoint as long as they keep coming."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self.balancer = Balancer()
        self._sock = sock
        self._running = trio.CancelScope()
        self._sessions: OrderedDict[tuple[str, int], _Session] = OrderedDict()

    async def run(self, nursery: trio.Nursery) -> None:
        """Relay until closed; with the relay all its sessions end."""
        with self._running, self._sock:
            try:
                while True:
                    try:
                        data, client = await self._sock.recvfrom(CHUNK_BYTES)
                    except OSError as error:  # an earlier answer could not be delivered
                        log.debug("recvfrom error=%s", error)
                        continue
                    session = self._sessions.get(client) or await self._begin(nursery, client)
                    if session is not None:
                        self._sessions.move_to_end(client)
                        await session.send(data)
            finally:
                for session in self._sessions.values():
                    session.scope.cancel()

    def close(self) -> None:
        self._running.cancel()

    async def _begin(self, nursery: trio.Nursery, client: tuple[str, int]) -> _Session | None:
        now = trio.current_time()
        candidates = self.balancer.candidates(client[0], now)
        if not candidates:
            return None
        endpoint = candidates[0]
        upstream = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            await upstream.connect((endpoint.ip, endpoint.port))
        except OSError as error:
            upstream.close()
            log.debug("endpoint=%s error=%s", endpoint, error)
            return None
        self.balancer.served(client[0], endpoint, now)
        session = self._sessions[client] = _Session(upstream)
        if len(self._sessions) > SESSIONS_MAX:
            _, oldest = self._sessions.popitem(last=False)
            oldest.scope.cancel()
        nursery.start_soon(self._answers, session, client)
        return session

    async def _answers(self, session: _Session, client: tuple[str, int]) -> None:
        """Send the endpoint's datagrams back, until nothing was said for a while."""
        with session.scope, session.upstream:
            try:
                while True:
                    data = await session.upstream.recv(CHUNK_BYTES)
                    session.touch()
                    await self._sock.sendto(data, client)
            except OSError as error:  # refused: the next datagram begins a new session
                log.debug("session=%s error=%s", client, error)
        if self._sessions.get(client) is session:
            del self._sessions[client]


class _Session:
    def __init__(self, upstream: trio.socket.SocketType) -> None:
        self.upstream = upstream
        self.scope = trio.CancelScope()
        self.touch()

    def touch(self) -> None:
        self.scope.deadline = trio.current_time() + SESSION_SECONDS

    async def send(self, data: bytes) -> None:
        self.touch()
        try:
            await self.upstream.send(data)
        except OSError as error:
            log.debug("send error=%s", error)
            self.scope.cancel()
