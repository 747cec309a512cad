"""Connections to several apiservers: reuse, bounds, failover.

Owns the idle connections and the choice of endpoint. When all connections are in use, callers
wait in line. Never sends a request by itself.
"""

from __future__ import annotations

import random
import ssl
from collections.abc import Sequence

import trio

from k8slite.client.errors import Unreachable
from k8slite.client.http import STREAM_ERRORS, Connection
from raftkv.host import Address, Net

__all__ = ["Pool"]

IDLE_SECONDS_MAX = 25.0
"""Younger than the shortest idle limit of the servers, so that they seldom close under us."""
CONNECT_SECONDS_MAX = 5.0


class Pool:
    """A bounded set of connections to equivalent endpoints.

    The preferred endpoint is drawn once, so that many clients spread over the apiservers, and
    moves on when it fails.
    """

    def __init__(
        self,
        net: Net,
        endpoints: Sequence[Address],
        tls: ssl.SSLContext | None,
        rng: random.Random,
        *,
        connections_max: int,
    ) -> None:
        assert endpoints, "a client needs at least one endpoint"
        assert connections_max > 0
        self._net = net
        self._endpoints = tuple(endpoints)
        self._tls = tls
        self._preferred = rng.randrange(len(self._endpoints))
        self._idle: list[Connection] = []
        self._slots = trio.Semaphore(connections_max)

    @property
    def endpoint_count(self) -> int:
        return len(self._endpoints)

    async def acquire(self, *, fresh: bool = False) -> Connection:
        """A connection for one request; give it back with `release`.

        `fresh` asks for a new one, for a retry after a reused one turned out dead.
        Raises Unreachable.
        """
        await self._slots.acquire()
        try:
            if not fresh:
                connection = await self._reuse()
                if connection is not None:
                    return connection
            return await self._connect()
        except BaseException:
            self._slots.release()
            raise

    async def release(self, connection: Connection) -> None:
        """Give a connection back; one that cannot be used again is closed."""
        self._slots.release()
        if connection.reusable:
            connection.idle_since = trio.current_time()
            self._idle.append(connection)
        else:
            await connection.aclose()

    async def avoid(self, address: Address) -> None:
        """The endpoint did not answer: prefer another one and drop idle connections to it."""
        if self._endpoints[self._preferred] == address:
            self._preferred = (self._preferred + 1) % len(self._endpoints)
        dead = [c for c in self._idle if c.address == address]
        self._idle = [c for c in self._idle if c.address != address]
        for connection in dead:
            await connection.aclose()

    async def aclose(self) -> None:
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.aclose()

    async def _reuse(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            age = trio.current_time() - connection.idle_since
            if age < IDLE_SECONDS_MAX and not connection.looks_closed():
                return connection
            await connection.aclose()
        return None

    async def _connect(self) -> Connection:
        count = len(self._endpoints)
        first = self._preferred
        reasons = []
        for step in range(count):
            index = (first + step) % count
            address = self._endpoints[index]
            with trio.move_on_after(CONNECT_SECONDS_MAX):
                try:
                    connection = Connection(await self._open(address), address)
                except STREAM_ERRORS as error:
                    reasons.append(f"{address}: {error}")
                    continue
                self._preferred = index
                return connection
            reasons.append(f"{address}: no connection within {CONNECT_SECONDS_MAX:g} s")
        raise Unreachable("no apiserver can be reached: " + "; ".join(reasons))

    async def _open(self, address: Address) -> trio.abc.Stream:
        stream = await self._net.open_stream(address)
        if self._tls is None:
            return stream
        secure = trio.SSLStream(
            stream, self._tls, server_hostname=address.host, https_compatible=True
        )
        try:
            await secure.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return secure
