"""Makes a table real without root: this process listens on the services' addresses and relays.

For nodes that are processes on one machine, where service addresses are loopback addresses. Every
node's proxy binds the same cluster IPs; the kernel spreads the connections over them. An address
without endpoints is not bound, so its clients are refused at once. Linux holds back ports below
1024 from ordinary users: what can't be bound is reported, and tried again at the next sync.

Endpoints see the proxy as their client, not who really connected.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

import trio

from k8slite.client.background import open_background
from k8slite.proxy.relay import TcpRelay, UdpRelay, bind
from k8slite.proxy.table import Endpoint, Table
from raftkv.host import Net

__all__ = ["UserspaceWriter", "open_userspace_writer"]

log = logging.getLogger(__name__)

LOOPBACK: Final = "127."
KINDS: Final = {"TCP": socket.SOCK_STREAM, "UDP": socket.SOCK_DGRAM}


class Front(NamedTuple):
    """An address to be relayed."""

    protocol: str
    ip: str
    port: int

    def __str__(self) -> str:
        return f"{self.ip}:{self.port}/{self.protocol}"


class _Wanted(NamedTuple):
    """`ranges`: from where alone; none: from everywhere."""

    key: str
    endpoints: tuple[Endpoint, ...]
    affinity_seconds: int
    ranges: tuple[str, ...]


class UserspaceWriter:
    """Use `open_userspace_writer`."""

    def __init__(self, node_addresses: Sequence[str], net: Net, nursery: trio.Nursery) -> None:
        self._node_addresses = tuple(node_addresses)
        self._net = net
        self._nursery = nursery
        self._relays: dict[Front, TcpRelay | UdpRelay] = {}

    @property
    def fronts(self) -> list[str]:
        """The addresses that are served, for status pages."""
        return sorted(map(str, self._relays))

    async def sync(self, table: Table) -> list[str]:
        """See `Writer`."""
        wanted, problems = self._wanted(table)
        for front in [front for front in self._relays if front not in wanted]:
            self._relays.pop(front).close()
        for front, want in wanted.items():
            relay = self._relays.get(front)
            if relay is None:
                try:
                    relay = self._open(front)
                except OSError as error:
                    problems.append(f"{want.key} can't be served at {front}: {error}")
                    continue
                self._relays[front] = relay
            relay.balancer.set(want.endpoints, want.affinity_seconds, want.ranges)
        await trio.lowlevel.checkpoint()
        return problems

    def _wanted(self, table: Table) -> tuple[dict[Front, _Wanted], list[str]]:
        wanted: dict[Front, _Wanted] = {}
        problems: list[str] = []
        for entry in table.values():
            if entry.protocol not in KINDS:
                problems.append(f"{entry.key}: {entry.protocol} is not relayed")
                continue
            fronts: list[tuple[str, int, tuple[Endpoint, ...]]] = [
                (entry.cluster_ip, entry.port, entry.cluster_endpoints)
            ]
            if entry.node_port:
                for address in self._node_addresses:
                    fronts.append((address, entry.node_port, entry.external_endpoints))
            for ip in entry.external_ips:
                # Elsewhere these are the machine's business; only loopback addresses can be had.
                if ip.startswith(LOOPBACK):
                    fronts.append((ip, entry.port, entry.external_endpoints))
            for ip, port, endpoints in fronts:
                front = Front(entry.protocol, ip, port)
                if endpoints and front not in wanted:
                    ranges = entry.source_ranges if ip in entry.balancer_ips else ()
                    wanted[front] = _Wanted(entry.key, endpoints, entry.affinity_seconds, ranges)
        return wanted, problems

    def _open(self, front: Front) -> TcpRelay | UdpRelay:
        sock = bind(KINDS[front.protocol], front.ip, front.port)
        relay: TcpRelay | UdpRelay
        if front.protocol == "TCP":
            relay = TcpRelay(sock, self._net.open_stream)
        else:
            relay = UdpRelay(sock)
        self._nursery.start_soon(relay.run, self._nursery, name=f"relay {front}")
        return relay

    async def look(self) -> None:
        """See `Writer`: what this process listens on, nobody else can take away."""
        await trio.lowlevel.checkpoint()

    async def cleanup(self) -> None:
        """Stop listening everywhere; connections that exist end with the writer."""
        for relay in self._relays.values():
            relay.close()
        self._relays.clear()
        await trio.lowlevel.checkpoint()


@asynccontextmanager
async def open_userspace_writer(
    node_addresses: Sequence[str], net: Net
) -> AsyncIterator[UserspaceWriter]:
    """A writer whose relays all end on leaving. `node_addresses`: where node ports are served."""
    async with open_background() as nursery:
        yield UserspaceWriter(node_addresses, net, nursery)
