"""Members of ours with their fronts, in this process; what speaks gRPC to them is elsewhere."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

import trio

from raftkv.etcd import open_front
from raftkv.host import Address
from raftkv.os_host import OsHost
from raftkv.server import Server
from tests.etcd.client import EtcdClient
from tests.server.support import Cluster, free_addresses, open_cluster

__all__ = ["Fronts", "open_fronts"]

T = TypeVar("T")


class Fronts:
    """A cluster, and where each member serves etcd's clients."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.addresses: dict[int, Address] = {}
        self._clients: dict[int, EtcdClient] = {}

    def client(self, member: int = 1) -> EtcdClient:
        if member not in self._clients:
            self._clients[member] = EtcdClient(str(self.addresses[member]))
        return self._clients[member]

    async def call(self, method: str, member: int = 1, metadata: Any = None, **fields: Any) -> Any:
        """One unary call. Raises Refused."""
        client = self.client(member)
        return await in_thread(lambda: client.call(method, metadata, **fields))

    def close(self) -> None:
        for client in self._clients.values():
            client.channel.close()


async def in_thread(function: Callable[[], T]) -> T:
    return await trio.to_thread.run_sync(function, abandon_on_cancel=True)


@contextlib.asynccontextmanager
async def open_fronts(directory: Path, members: int = 1, **options: Any) -> AsyncIterator[Fronts]:
    if members > 1:  # a busy machine shall not make elections: calls are given some seconds only
        options.setdefault("tick_seconds", 0.05)
    async with open_cluster(directory, members, **options) as cluster:
        fronts = Fronts(cluster)
        async with contextlib.AsyncExitStack() as stack:
            for number, address in enumerate(free_addresses(members), 1):
                server = cluster.servers[number]
                fronts.addresses[number] = await stack.enter_async_context(
                    front_of(server, address)
                )
            await cluster.wait_leader()
            try:
                yield fronts
            finally:
                fronts.close()


def front_of(server: Server, address: Address) -> contextlib.AbstractAsyncContextManager[Address]:
    config = server.config
    return open_front(
        server,
        address,
        OsHost(),
        tls=config.tls,
        peers_secure=config.peer_tls is not None,
        cluster=config.cluster,
        election_seconds=config.election_seconds,
    )
