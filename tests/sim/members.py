"""A raftkv cluster on simulated hosts, with eyes inside.

Owns the hosts m1, m2... and what was ever observed of their Raft cores. Every batch of effects that
a core gives out is shown to the Agreement checker, by wrapping two methods of RaftNode for the time
of a run.
"""

from __future__ import annotations

import random
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import attrs
import trio

from netsim.hosts import SimHost
from netsim.life import CURRENT_LIFE
from netsim.world import World
from raftkv.client import KvClient, open_client
from raftkv.errors import Corrupt, StorageFailed
from raftkv.host import Address, Disk
from raftkv.raft.effects import Effects, Role
from raftkv.raft.log import RaftLog
from raftkv.raft.messages import NORMAL, Entry
from raftkv.raft.node import RaftNode
from raftkv.server import Server, ServerConfig, open_server
from raftkv.server.comparing import Comparing
from raftkv.storage.replay import ANYBODY, Identity, Recovered
from raftkv.storage.wal import Wal
from raftkv.wire.framing import unpack
from tests.checkers.agreement import Agreement
from tests.checkers.replayed import Replayed

__all__ = ["CLIENT_PORT", "PEER_PORT", "Members", "cluster", "observed", "replayed"]

CLIENT_PORT = 2379
PEER_PORT = 2380


@attrs.define
class Members:
    """The members of one cluster, by host name."""

    world: World
    configs: dict[str, ServerConfig]
    running: dict[str, Server] = attrs.field(factory=dict)
    exits: tuple[type[Exception], ...] = (StorageFailed,)
    """What ends a member's process as it should."""
    lost: list[str] = attrs.field(factory=list)
    """Those whose disk is not the one they had: what they say means nothing."""

    @property
    def names(self) -> list[str]:
        return list(self.configs)

    @property
    def endpoints(self) -> list[Address]:
        return [Address(name, CLIENT_PORT) for name in self.configs]

    def start(self) -> None:
        for name in self.configs:
            self._start(name)

    def add(self, name: str, config: ServerConfig) -> None:
        """Start one more."""
        self.configs[name] = config
        self._start(name)

    def _start(self, name: str) -> None:
        host = self.world.host(name)
        # A disk that fails ends the process, as it should; a machine's address is in use never.
        # Everything else that gets out is a bug and ends the run.
        host.exit_on = self.exits
        host.start(self._serve, host, self.configs[name])

    async def _serve(self, host: SimHost, config: ServerConfig) -> None:
        async with open_server(config, host) as server:
            self.running[host.name] = server
            try:
                await trio.sleep_forever()
            finally:
                if self.running.get(host.name) is server:
                    del self.running[host.name]

    def leader(self) -> str | None:
        """The host of the running leader of the newest term, if there is one."""
        leaders = [
            (server.replica.node.term, name)
            for name, server in self.running.items()
            if server.is_leader and self.world.hosts[name].alive and name not in self.lost
        ]
        return max(leaders)[1] if leaders else None

    @staticmethod
    def draw(
        world: World, rng: random.Random, count: int, *, peers_always: bool = False
    ) -> Members:
        """So many members, with timings and snapshot intervals of their own; `peers_always`: also
        a single one listens for peers."""
        ids = range(1, count + 1)
        peers = {id_: Address(f"m{id_}", PEER_PORT) for id_ in ids}
        snapshot_entries = rng.choice((15, 40, 100, 1000))
        common: dict[str, Any] = {
            "election_ticks": rng.choice((5, 10)),
            "snapshot_entries": snapshot_entries,
            "catch_up_entries": rng.choice((0, 5, snapshot_entries)),
            "progress_seconds": rng.choice((1.0, 10.0)),
            "check_seconds": world.rng("checks").choice((1.0, 60.0)),
        }
        configs = {
            f"m{id_}": ServerConfig(
                id=id_,
                name=f"m{id_}",
                data_dir="data",
                client_address=Address(f"m{id_}", CLIENT_PORT),
                peer_address=Address(f"m{id_}", PEER_PORT),
                peers=peers if count > 1 or peers_always else {},
                tick_seconds=0.1 * rng.uniform(0.9, 1.1),
                campaign_at_start=id_ == 1,
                **common,
            )
            for id_ in ids
        }
        for name in configs:
            world.host(name).clock_rate = rng.uniform(0.9, 1.1)
        return Members(world, configs)


def replayed(log: dict[int, Entry]) -> Replayed:
    """The whole history, made from the log that `observed` has gathered."""
    found = Replayed()
    for index in range(1, max(log) + 1):
        entry = log[index]
        if entry.kind == NORMAL and entry.data:
            for command in unpack(entry.data):
                found.apply(command)
    return found


@asynccontextmanager
async def cluster(
    world: World, size: int = 3, *, configure: Callable[[Members], None] = lambda members: None
) -> AsyncIterator[tuple[Members, KvClient]]:
    """So many members with a leader, and a client. `configure` may change their configs."""
    peers = {number: Address(f"m{number}", PEER_PORT) for number in range(1, size + 1)}
    configs = {
        f"m{number}": ServerConfig(
            id=number,
            data_dir="data",
            client_address=Address(f"m{number}", CLIENT_PORT),
            peer_address=peers[number],
            peers=peers,
            campaign_at_start=number == 1,
        )
        for number in peers
    }
    members = Members(world, configs)
    configure(members)
    members.start()
    host = world.host("client")
    async with open_client(members.endpoints, host.net, rng=host.rng) as kv:
        await kv.put(b"begin", b"")
        yield members, kv


@contextmanager
def observed(
    agreement: Agreement, reached: Counter[str], log: dict[int, Entry] | None = None
) -> Iterator[None]:
    """Show every Raft core of this process to the checker, and count what was reached; committed
    entries are gathered in `log`."""
    take_effects, persisted = RaftNode.take_effects, RaftNode.persisted
    truncate_from, open_wal = RaftLog.truncate_from, Wal.open
    compared = Comparing.applied
    committed = {} if log is None else log

    def observing_take(node: RaftNode) -> Effects:
        effects = take_effects(node)
        member = node.status().id
        if node.role is Role.LEADER and node.term not in agreement.leaders:
            reached["elections"] += 1
        if node.role is Role.LEADER:
            agreement.saw_leader(member, node.term)
        for entry in effects.committed:
            digest = zlib.crc32(entry.data, entry.kind)
            agreement.saw_committed(member, entry.index, entry.term, digest)
            committed.setdefault(entry.index, entry)
        reached["snapshots installed"] += effects.snapshot is not None
        reached["reads failed"] += len(effects.failed_reads)
        return effects

    def observing_persisted(node: RaftNode, effects: Effects) -> None:
        persisted(node, effects)
        life = CURRENT_LIFE.get()
        if effects.hard_state is not None and life is not None and life.alive:
            state = effects.hard_state
            agreement.saw_member(node.status().id, life.number, state.term, state.commit)

    def counting_truncate(raft_log: RaftLog, index: int) -> None:
        reached["log truncated"] += 1
        truncate_from(raft_log, index)

    def counting_comparison(
        comparing: Comparing, index: int, command: Any, result: list[Any]
    ) -> None:
        reached["states compared"] += command[1] > 0
        compared(comparing, index, command, result)

    async def counting_open(
        disk: Disk, identity: Identity = ANYBODY, **options: Any
    ) -> tuple[Wal, Recovered]:
        try:
            wal, recovered = await open_wal(disk, identity, **options)
        except Corrupt:
            reached["damage refused"] += 1
            raise
        reached["torn tail cut"] += recovered.tail.torn
        reached["restarted with a log"] += recovered.last_index > 1
        return wal, recovered

    Comparing.applied = counting_comparison  # type: ignore[method-assign]  # for this run
    RaftLog.truncate_from = counting_truncate  # type: ignore[method-assign]  # for this run
    Wal.open = counting_open  # type: ignore[method-assign,assignment]  # for this run
    RaftNode.take_effects = observing_take  # type: ignore[method-assign,assignment]  # for this run
    RaftNode.persisted = observing_persisted  # type: ignore[method-assign,assignment]  # for this run
    try:
        yield
    finally:
        Comparing.applied = compared  # type: ignore[method-assign]  # as it was
        RaftLog.truncate_from = truncate_from  # type: ignore[method-assign]  # as it was
        Wal.open = open_wal  # type: ignore[method-assign]  # as it was
        RaftNode.take_effects = take_effects  # type: ignore[method-assign]  # as it was
        RaftNode.persisted = persisted  # type: ignore[method-assign]  # as it was
