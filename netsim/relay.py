"""Real links with simulated faults: TCP relays between real processes, without root.

For each pair of hosts that talk, `route` opens an address at which `source` finds `target`; the
bytes that pass take the time, and meet the walls, that a simulated link would give them, under the
same vocabulary (`partition`, `one_way`, `isolate`, `delay`, `drop`, `reset_connections`).

Owns its listeners and connections. Real TCP ends at the relay, so a connection attempt into a
partition is accepted and then silent, where a real wall would swallow it; whoever talks must notice
silence in both cases. Bytes are held back, never lost. Whoever learns another address of its
target (an advertised one) goes around the relay: give processes relayed addresses only.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncIterator
from typing import NamedTuple, Protocol

import trio

from netsim.fabric import Fabric
from netsim.faults import NetworkFaults
from netsim.link import Link, LinkSettings
from netsim.trace import Trace

__all__ = ["Relay", "RelayAddress", "open_relay"]

CHUNK_BYTES = 65536
CHUNKS_IN_FLIGHT_MAX = 64
"""A direction that holds so many chunks stops reading, which pushes back on the sender."""
LOOK_AGAIN_SECONDS = 0.02
NO_DELAY = LinkSettings(latency=0.0, jitter=0.0)


class RelayAddress(NamedTuple):
    """Host and port, as raftkv.host.Address."""

    host: str
    port: int


class _Listener(Protocol):
    @property
    def address(self) -> RelayAddress: ...
    async def accept(self) -> trio.abc.Stream: ...
    async def aclose(self) -> None: ...


class RelayNet(Protocol):
    """What the relay needs of a network: that of raftkv.host.Net, for its own address type."""

    async def open_stream(self, address: RelayAddress) -> trio.abc.Stream: ...
    async def listen(self, address: RelayAddress) -> _Listener: ...


class Relay(NetworkFaults):
    """All relayed links of a set of hosts. Made by `open_relay`."""

    def __init__(self, seed: int, net: RelayNet, nursery: trio.Nursery) -> None:
        self.fabric = Fabric(seed, NO_DELAY, trio.current_time, Trace())
        self._net = net
        self._nursery = nursery
        self._hosts: dict[str, None] = {}
        self._connections: dict[trio.CancelScope, tuple[str, str]] = {}

    def host_names(self) -> list[str]:
        return list(self._hosts)

    @property
    def connections(self) -> int:
        """How many connections pass through now."""
        return len(self._connections)

    async def route(
        self, source: str, target: str, address: tuple[str, int], listen: str = "127.0.0.1"
    ) -> RelayAddress:
        """Where `source` reaches `target`, which itself listens at `address`. Raises OSError."""
        self._hosts.update({source: None, target: None})
        listener = await self._net.listen(RelayAddress(listen, 0))
        self._nursery.start_soon(self._serve, source, target, RelayAddress(*address), listener)
        return listener.address

    def reset_connections(self, a: str, b: str) -> None:
        """Cut all connections between two hosts."""
        for scope, ends in list(self._connections.items()):
            if ends in ((a, b), (b, a)):
                scope.cancel()

    async def _serve(
        self, source: str, target: str, address: RelayAddress, listener: _Listener
    ) -> None:
        try:
            async with trio.open_nursery() as nursery:
                while True:
                    stream = await listener.accept()
                    nursery.start_soon(self._connection, source, target, address, stream)
        finally:
            with trio.CancelScope(shield=True):
                await listener.aclose()

    async def _connection(
        self, source: str, target: str, address: RelayAddress, near: trio.abc.Stream
    ) -> None:
        there, back = self.fabric.link(source, target), self.fabric.link(target, source)
        with trio.CancelScope() as scope:
            self._connections[scope] = (source, target)
            try:
                await _wait_open(there)
                await _wait_open(back)
                far = await self._net.open_stream(address)
                try:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(_carry, near, far, there, nursery.cancel_scope)
                        nursery.start_soon(_carry, far, near, back, nursery.cancel_scope)
                finally:
                    await trio.aclose_forcefully(far)
            except OSError as error:
                self.fabric.note(f"relay {source} {target}: {error}")
            finally:
                del self._connections[scope]
                await trio.aclose_forcefully(near)


async def _wait_open(link: Link) -> None:
    while link.blocked:
        await trio.sleep(LOOK_AGAIN_SECONDS)


async def _carry(
    source: trio.abc.Stream, target: trio.abc.Stream, link: Link, scope: trio.CancelScope
) -> None:
    """Carry one direction: bytes in order, each when it is due and nothing is in the way."""
    sender, receiver = trio.open_memory_channel[tuple[float, bytes]](CHUNKS_IN_FLIGHT_MAX)

    async def read() -> None:
        last = -math.inf
        async with sender:
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                while True:
                    data = await source.receive_some(CHUNK_BYTES)
                    now = trio.current_time()
                    last = max(last, now + link.transit(now, len(data)))
                    await sender.send((last, bytes(data)))
                    if not data:
                        return
            scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        try:
            async for due, data in receiver:
                await trio.sleep_until(due)
                await _wait_open(link)
                if data:
                    await target.send_all(data)
                elif isinstance(target, trio.abc.HalfCloseableStream):
                    await target.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            scope.cancel()


@contextlib.asynccontextmanager
async def open_relay(seed: int, net: RelayNet) -> AsyncIterator[Relay]:
    """A relay on this machine's network; at the end all its connections are cut."""
    async with trio.open_nursery() as nursery:
        yield Relay(seed, net, nursery)
        nursery.cancel_scope.cancel()
