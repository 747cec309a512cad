"""A few cores, their disks and the messages between them, moved by hand.

Nothing happens by itself: a test takes batches, persists them and delivers messages, or lets
`settle` do all of it until nothing is left.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from raftkv.raft import (
    Effects,
    Entry,
    InstallSnapshot,
    Message,
    RaftConfig,
    RaftNode,
    Role,
    Snapshot,
    from_wire,
    to_wire,
)
from raftkv.raft.core import Core
from tests.raft.disk import Disk


class Cluster:
    """Voters 1..size (or as given). `options` go to RaftConfig."""

    def __init__(self, size: int = 3, *, voters: tuple[int, ...] = (), **options: Any) -> None:
        self.options = options
        self.nodes: dict[int, RaftNode] = {}
        self.disks: dict[int, Disk] = {}
        self.applied: dict[int, list[Entry]] = {}
        self.reads: dict[int, list[tuple[int, int]]] = {}
        self.failed_reads: dict[int, list[int]] = {}
        self.taken: dict[int, Effects] = {}
        self.mail: list[Message] = []
        self.cut: set[tuple[int, int]] = set()
        self.observer: Callable[[int, Effects], None] = lambda id_, effects: None
        voters = voters or tuple(range(1, size + 1))
        for id_ in voters:
            self.add(id_, voters)

    def add(self, id_: int, voters: tuple[int, ...] = ()) -> RaftNode:
        self.disks[id_] = Disk()
        return self.start(id_, voters)

    def start(self, id_: int, voters: tuple[int, ...] = ()) -> RaftNode:
        """Start, or start again from the disk."""
        config = RaftConfig(id=id_, **self.options)
        restored = self.disks[id_].restored()
        node = RaftNode(config, restored, voters, random.Random(id_))
        self.nodes[id_] = node
        self.applied[id_] = []
        self.reads[id_] = []
        self.failed_reads[id_] = []
        self.taken.pop(id_, None)
        return node

    def core(self, id_: int) -> Core:
        return self.nodes[id_]._core

    # -- batches ------------------------------------------------------------------------------

    def take(self, id_: int) -> Effects:
        """Take a batch and send what may leave before the sync."""
        effects = self.nodes[id_].take_effects()
        self.taken[id_] = effects
        self.observer(id_, effects)
        self._post(effects.messages_before_sync)
        return effects

    def persist(self, id_: int) -> None:
        """The taken batch is on the disk: send the promises, apply."""
        node, effects = self.nodes[id_], self.taken.pop(id_)
        self.disks[id_].write(effects)
        self._post(effects.messages_after_sync)
        if effects.snapshot is not None:
            node.applied_to(effects.snapshot.meta.index)
        if effects.committed:
            self.applied[id_] += effects.committed
            node.applied_to(effects.committed[-1].index)
        self.reads[id_] += effects.reads
        self.failed_reads[id_] += effects.failed_reads
        node.persisted(effects)

    def run(self, id_: int) -> None:
        """Batches of one member until it has none."""
        while self.nodes[id_].has_effects():
            self.take(id_)
            self.persist(id_)

    def _post(self, messages: list[Message]) -> None:
        for message in messages:
            if isinstance(message, InstallSnapshot):
                snapshot = self.disks[message.sender].snapshot
                assert snapshot is not None
                message = message._replace(snapshot=snapshot)
            self.mail.append(_over_the_wire(message))

    # -- messages -----------------------------------------------------------------------------

    def deliver(self, to: int = 0, *, drop: bool = False) -> list[Message]:
        """Deliver (or lose) what is under way to one member, or to all; returns it."""
        chosen = [m for m in self.mail if to in (0, m.to)]
        self.mail = [m for m in self.mail if to not in (0, m.to)]
        if drop:
            return chosen
        arrived = [m for m in chosen if (m.sender, m.to) not in self.cut and m.to in self.nodes]
        for message in arrived:
            self.nodes[message.to].step(message)
        return arrived

    def settle(self, *ids: int) -> None:
        """Run and deliver among `ids` (all members if none are named) until all is quiet."""
        chosen = ids or tuple(sorted(self.nodes))
        for _ in range(1000):
            for id_ in chosen:
                if id_ not in self.taken:
                    self.run(id_)
            arrived = [m for id_ in chosen for m in self.deliver(id_)]
            busy = any(self.nodes[i].has_effects() for i in chosen if i not in self.taken)
            if not arrived and not busy:
                return
        raise AssertionError("the cluster does not settle")

    def tick(self, id_: int, count: int = 1) -> None:
        for _ in range(count):
            self.nodes[id_].tick()

    def isolate(self, *side: int) -> None:
        """Cut all links between these members and the others."""
        for a in self.nodes:
            for b in self.nodes:
                if (a in side) != (b in side):
                    self.cut.add((a, b))

    def heal(self) -> None:
        self.cut.clear()

    # -- short cuts ---------------------------------------------------------------------------

    def elect(self, id_: int) -> RaftNode:
        self.nodes[id_].campaign()
        self.settle()
        assert self.nodes[id_].role is Role.LEADER
        return self.nodes[id_]

    def take_over(self, id_: int) -> RaftNode:
        """Elect a member although another one leads: the followers' leases have run out."""
        for node in self.nodes.values():
            if node.role is Role.FOLLOWER:
                node._core.election_elapsed = node._core.config.election_ticks
        return self.elect(id_)

    def role(self, id_: int) -> Role:
        return self.nodes[id_].role

    def propose(self, id_: int, *items: bytes) -> None:
        for data in items:
            self.nodes[id_].propose(data)

    def data(self, id_: int) -> list[bytes]:
        """What the member applied, without no-ops and memberships."""
        return [e.data for e in self.applied[id_] if e.kind == 0 and e.data]

    def terms(self, id_: int) -> list[int]:
        """Terms of the entries in the log after its first, compacted part."""
        return [entry.term for entry in self.core(id_).log.entries]

    def snapshot(self, id_: int, keep_behind: int = 0) -> Snapshot:
        """Take a snapshot of what the member applied, and compact its log."""
        node = self.nodes[id_]
        meta = node.snapshot_meta(node.status().applied)
        assert meta is not None
        snapshot = Snapshot(meta, b"state at %d" % meta.index)
        self.disks[id_].compact(snapshot, keep_behind)
        node.compact(meta, keep_behind)
        return snapshot


def _over_the_wire(message: Message) -> Message:
    """The message as the other side sees it: msgpack makes lists of all tuples."""
    return from_wire(_listed(to_wire(message)))


def _listed(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_listed(item) for item in value]
    return value
