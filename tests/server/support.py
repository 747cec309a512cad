"""Members on real loopback, in one trio process, with their data in a temporary directory."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import trio

from raftkv.client import KvClient, open_client
from raftkv.errors import MemberRemoved, UnknownOutcome
from raftkv.host import Address, Tls
from raftkv.os_host import OsHost
from raftkv.server import Server, ServerConfig, open_server
from tests.ports import free_port

FAST: dict[str, Any] = {"tick_seconds": 0.02, "fsync": False}


def free_addresses(count: int) -> list[Address]:
    ports: set[int] = set()
    while len(ports) < count:
        ports.add(free_port())
    return [Address("127.0.0.1", port) for port in ports]


def configs(directory: Path, members: int, **options: Any) -> dict[int, ServerConfig]:
    ports = free_addresses(2 * members)
    peers = {i: ports[i - 1] for i in range(1, members + 1)}
    if options.get("peers", peers) is None:  # a single member that listens for peers
        options["peers"] = peers
    return {
        i: ServerConfig(
            id=i,
            data_dir=str(directory / f"member-{i}"),
            client_address=ports[members + i - 1],
            peer_address=peers[i],
            **{"peers": peers if members > 1 else {}, **FAST, **options},
        )
        for i in range(1, members + 1)
    }


class Cluster:
    """Members that can be stopped and started one by one."""

    def __init__(self, members: dict[int, ServerConfig], nursery: trio.Nursery) -> None:
        self.configs = members
        self.servers: dict[int, Server] = {}
        self.removed: dict[int, MemberRemoved] = {}
        self.streams: list[trio.abc.Stream] = []  # closed at the end
        self._nursery = nursery
        self._scopes: dict[int, trio.CancelScope] = {}
        self._ended: dict[int, trio.Event] = {}

    async def start(self, member: int) -> Server:
        await self._nursery.start(self._run, member)
        return self.servers[member]

    async def _run(self, member: int, *, task_status: trio.TaskStatus[None]) -> None:
        self._ended[member] = trio.Event()
        with trio.CancelScope() as scope:
            self._scopes[member] = scope
            try:
                async with open_server(self.configs[member], OsHost()) as server:
                    self.servers[member] = server
                    task_status.started()
                    await trio.sleep_forever()
            except MemberRemoved as error:
                self.removed[member] = error
        self.servers.pop(member, None)
        self._ended[member].set()

    async def wait_ended(self, member: int) -> None:
        await self._ended[member].wait()

    def join(self, member: int, directory: Path, **options: Any) -> ServerConfig:
        """The configuration of a member that was added, as `raftkv serve --join` makes it."""
        client, peer = free_addresses(2)
        known = {
            id_: config.peer_address
            for id_, config in self.configs.items()
            if config.peer_address is not None
        }
        self.configs[member] = ServerConfig(
            id=member,
            data_dir=str(directory / f"member-{member}"),
            client_address=client,
            peer_address=peer,
            peers={**known, member: peer},
            join=True,
            **{**FAST, **options},
        )
        return self.configs[member]

    async def stop(self, member: int) -> None:
        self._scopes[member].cancel()
        await self._ended[member].wait()

    @property
    def endpoints(self) -> list[Address]:
        return [config.client_address for config in self.configs.values()]

    async def wait_leader(self, besides: int = 0) -> Server:
        while True:
            for server in self.servers.values():
                if server.is_leader and server.id != besides:
                    return server
            await trio.sleep(0.01)

    async def wait_applied(self) -> None:
        """Until all running members have applied the same log."""
        while True:
            states = {
                (s.status()["raft_applied"], s.status()["digest"]) for s in self.servers.values()
            }
            if len(states) == 1:
                return
            await trio.sleep(0.01)


@contextlib.asynccontextmanager
async def open_cluster(directory: Path, members: int, **options: Any) -> AsyncIterator[Cluster]:
    async with trio.open_nursery() as nursery:
        with trio.fail_after(30):
            cluster = Cluster(configs(directory, members, **options), nursery)
            for member in cluster.configs:
                await cluster.start(member)
            try:
                yield cluster
            finally:
                for stream in cluster.streams:
                    await trio.aclose_forcefully(stream)
        nursery.cancel_scope.cancel()


def client_of(
    cluster: Cluster, tls: Tls | None = None
) -> contextlib.AbstractAsyncContextManager[KvClient]:
    return open_client(cluster.endpoints, OsHost().net, tls=tls, rng=random.Random(1))


async def put_surely(kv: KvClient, key: bytes, value: bytes = b"v") -> int:
    """A put repeated until its outcome is known: fine here, for putting twice does no harm."""
    while True:
        try:
            return await kv.put(key, value)
        except UnknownOutcome:
            continue
