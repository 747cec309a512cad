"""A swarm of pure Raft cores in a heap-ordered event loop: one seed decides everything.

    python -m tests.raft.swarm SEED          replay one seed, with its trace
    python -m tests.raft.swarm FIRST COUNT   run COUNT seeds and sum up the counters

Each seed draws its own world (size, faults and their rates, limits, snapshot habits). Phase one:
faults while clients propose and read, with the invariants checked all the time. Phase two: a random
majority is healed and the others stay as they are; the majority must make progress.
"""

from __future__ import annotations

import hashlib
import heapq
import random
import sys
from collections import Counter
from collections.abc import Callable

import attrs

from raftkv.raft import (
    ChangeRefused,
    Effects,
    Entry,
    InstallSnapshot,
    Message,
    NotLeader,
    ProposalDropped,
    RaftConfig,
    RaftNode,
    Role,
    Snapshot,
    TransferRefused,
)
from raftkv.raft.membership import Change, ChangeKind
from tests.raft.disk import Disk
from tests.raft.invariants import Oracle

SAFETY_TICKS = 250
LIVENESS_TICKS = 400


@attrs.frozen
class World:
    """What a seed draws first. Rates are probabilities; times are ticks."""

    voters: tuple[int, ...]
    joiners: tuple[int, ...]
    loss: float
    duplicate: float
    delay_max: float
    slow: float
    sync_max: float
    hang: float
    crash: float
    partition: float
    snapshot_every: int
    keep_behind: int
    propose: float
    change: float
    transfer: float
    max_append_bytes: int
    max_inflight_messages: int
    pre_vote: bool
    check_quorum: bool

    @classmethod
    def draw(cls, rng: random.Random) -> World:
        size = rng.choice([1, 3, 3, 3, 5, 5, 7])
        moving = size > 1 and rng.random() < 0.4
        return cls(
            voters=tuple(range(1, size + 1)),
            joiners=tuple(range(size + 1, size + 3)) if moving else (),
            loss=rng.choice([0.0, 0.02, 0.1, 0.3]),
            duplicate=rng.choice([0.0, 0.05, 0.3]),
            delay_max=rng.choice([0.1, 1.0, 4.0]),
            slow=rng.choice([0.0, 0.02, 0.15]),
            sync_max=rng.choice([0.0, 0.3, 2.0]),
            hang=rng.choice([0.0, 0.002]),
            crash=rng.choice([0.0, 0.005, 0.02]),
            partition=rng.choice([0.0, 0.01, 0.05]),
            snapshot_every=rng.choice([5, 20, 1000]),
            keep_behind=rng.choice([0, 3, 20]),
            propose=rng.choice([0.2, 1.0, 2.0]),
            change=0.03 if moving else 0.0,
            transfer=rng.choice([0.0, 0.01]),
            max_append_bytes=rng.choice([1, 30, 1 << 20]),
            max_inflight_messages=rng.choice([1, 4, 16]),
            pre_vote=rng.random() < 0.85,
            check_quorum=rng.random() < 0.7,
        )


class Member:
    """One member: a core, a disk, a state machine that hashes what it applies."""

    def __init__(self, swarm: Swarm, id_: int, voters: tuple[int, ...]) -> None:
        self.swarm = swarm
        self.id = id_
        self.voters = voters
        self.disk = Disk()
        self.incarnation = 0
        self.node: RaftNode | None = None
        self.flying: Effects | None = None
        self.applied = 0
        self.digest = b""
        self.read_number = 0
        self.reads: dict[int, int] = {}
        self.frozen = False
        self.start()

    def start(self) -> None:
        world = self.swarm.world
        config = RaftConfig(
            id=self.id,
            pre_vote=world.pre_vote,
            check_quorum=world.check_quorum,
            max_append_bytes=world.max_append_bytes,
            max_inflight_messages=world.max_inflight_messages,
            campaign_at_start=self.id == 1 and self.incarnation == 0,
            hold_commit_news=self.swarm.seed % 2 == 1,
            snapshot_ticks=30,
            max_uncommitted_bytes=100,
        )
        self.incarnation += 1
        restored = self.disk.restored()
        seed = self.swarm.rng.getrandbits(64)
        self.node = RaftNode(config, restored, self.voters, random.Random(seed))
        self.flying = None
        self.reads = {}
        self.applied = restored.applied
        self.digest = self.disk.snapshot.data if self.disk.snapshot else b""
        self.swarm.oracle.disks[self.id] = self.disk
        self.swarm.oracle.started(self.id, self.node.status(), self.disk.hard_state)
        self.pump()

    def crash(self) -> None:
        if self.flying is not None:
            self.disk.write_torn(self.flying, self.swarm.rng)
            self.swarm.counters["torn write"] += 1
        self.node = None
        self.flying = None

    def pump(self) -> None:
        """Take a batch if none is outstanding; its sync ends later."""
        node, swarm = self.node, self.swarm
        if node is None or self.flying is not None or not node.has_effects():
            return
        effects = node.take_effects()
        self.flying = effects
        swarm.oracle.observe(self.id, node)
        for message in effects.messages_before_sync:
            swarm.send(self, message)
        rng, world = swarm.rng, swarm.world
        slowest = world.sync_max if swarm.faulty else min(world.sync_max, 0.3)
        delay = rng.uniform(0, slowest) if effects.must_sync else 0.0
        if swarm.faulty and rng.random() < world.hang:
            delay += rng.uniform(5, 60)
            swarm.counters["hung disk"] += 1
        incarnation = self.incarnation
        swarm.after(delay, lambda: self.synced(incarnation, effects))

    def synced(self, incarnation: int, effects: Effects) -> None:
        if incarnation != self.incarnation or self.node is None:
            return
        node = self.node
        self.disk.write(effects)
        self.flying = None
        for message in effects.messages_after_sync:
            self.swarm.oracle.promised(self.id, message, self.disk.last_index, self.disk.hard_state)
            self.swarm.send(self, message)
        if effects.snapshot is not None:
            self.applied = effects.snapshot.meta.index
            self.digest = effects.snapshot.data
            self.swarm.oracle.applied(self.id, self.applied, self.digest)
            self.swarm.counters["snapshot installed"] += 1
        self.apply(effects.committed)
        node.persisted(effects)
        node.applied_to(self.applied)
        self.finish_reads(effects)
        self.consider_snapshot()
        self.pump()

    def apply(self, entries: list[Entry]) -> None:
        for entry in entries:
            assert entry.index == self.applied + 1
            self.applied = entry.index
            row = self.digest + repr(entry).encode()
            self.digest = hashlib.blake2b(row, digest_size=16).digest()
            self.swarm.oracle.applied(self.id, entry.index, self.digest, entry)

    def finish_reads(self, effects: Effects) -> None:
        for read_id, index in effects.reads:
            asked_at = self.reads.pop(read_id)
            assert index >= asked_at, f"stale read: {index} after {asked_at} was acknowledged"
            self.swarm.counters["read confirmed"] += 1
        for read_id in effects.failed_reads:
            del self.reads[read_id]
            self.swarm.counters["read failed"] += 1

    def consider_snapshot(self) -> None:
        world, node = self.swarm.world, self.node
        assert node is not None
        last = self.disk.snapshot.meta.index if self.disk.snapshot else 0
        if self.applied - last >= world.snapshot_every:
            meta = node.snapshot_meta(self.applied)
            if meta is None:
                self.swarm.counters["snapshot overtaken"] += 1
                return
            self.disk.compact(Snapshot(meta, self.digest), world.keep_behind)
            node.compact(meta, world.keep_behind)
            self.swarm.counters["snapshot taken"] += 1


class Swarm:
    def __init__(self, seed: int, trace: Callable[[str], None] | None = None) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.world = World.draw(self.rng)
        self.trace = trace
        self.counters: Counter[str] = Counter()
        self.oracle = Oracle(self.counters)
        self.now = 0.0
        self.faulty = True
        self.core: frozenset[int] | None = None
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = 0
        self._cut: dict[tuple[int, int], float] = {}
        self._cut_until = 0.0
        self.proposed = 0
        self.members: dict[int, Member] = {}
        for id_ in self.world.voters:
            self.members[id_] = Member(self, id_, self.world.voters)
        for id_ in self.world.joiners:
            self.members[id_] = Member(self, id_, ())
        for id_ in self.members:
            self.after(self.rng.random(), lambda id_=id_: self.tick(id_))  # type: ignore[misc]

    # -- the loop -----------------------------------------------------------------------------

    def after(self, delay: float, action: Callable[[], None]) -> None:
        self._sequence += 1
        heapq.heappush(self._heap, (self.now + delay, self._sequence, action))

    def run_until(self, end: float, done: Callable[[], bool] | None = None) -> bool:
        while self._heap and self._heap[0][0] <= end:
            self.now, _, action = heapq.heappop(self._heap)
            action()
            if done is not None and done():
                return True
        self.now = end
        return False

    def note(self, line: str) -> None:
        if self.trace is not None:
            self.trace(f"{self.now:9.3f} {line}")

    # -- the network --------------------------------------------------------------------------

    def send(self, sender: Member, message: Message) -> None:
        rng, world = self.rng, self.world
        if isinstance(message, InstallSnapshot) and not message.snapshot.data:
            snapshot = sender.disk.snapshot
            assert snapshot is not None
            assert snapshot.meta.index >= message.snapshot.meta.index
            message = message._replace(snapshot=snapshot)
            self.counters["snapshot sent"] += 1
            if rng.random() < 0.5:
                self.report_snapshot_later(sender, message.to)
        self.note(f"send {type(message).__name__} {tuple(message)!r:.150}")
        if message.to not in self.members or self.is_cut(message.sender, message.to):
            return
        if self.faulty and rng.random() < world.loss:
            self.counters["message lost"] += 1
            return
        copies = 2 if self.faulty and rng.random() < world.duplicate else 1
        for _ in range(copies):
            delay = rng.uniform(0.01, world.delay_max if self.faulty else 0.1)
            if self.faulty and rng.random() < world.slow:
                delay += rng.uniform(5, 40)
            self.after(delay, lambda: self.deliver(message))

    def report_snapshot_later(self, sender: Member, to: int) -> None:
        incarnation, ok = sender.incarnation, self.rng.random() < 0.7

        def report() -> None:
            if sender.node is not None and sender.incarnation == incarnation:
                sender.node.report_snapshot(to, ok)
                sender.pump()

        self.after(self.rng.uniform(0, 5), report)

    def is_cut(self, sender: int, to: int) -> bool:
        if self.core is not None and not (sender in self.core and to in self.core):
            return True
        return self._cut.get((sender, to), -1.0) > self.now

    def deliver(self, message: Message) -> None:
        member = self.members[message.to]
        if member.node is None or member.frozen or self.is_cut(message.sender, message.to):
            return
        member.node.step(message)
        self.oracle.observe(member.id, member.node)
        member.pump()

    # -- time, faults, clients ----------------------------------------------------------------

    def tick(self, id_: int) -> None:
        member = self.members[id_]
        rate = 1.0
        if self.faulty:
            rate = self.rng.uniform(0.9, 1.1)
            self.inflict(member)
        if member.node is not None and not member.frozen:
            member.node.tick()
            member.node.tell_commit()
            if self.faulty and self.seed % 4 == 0 and self.rng.random() < 0.01:
                member.node.report_gone(member.node.leader)
                self.counters["leader forgotten"] += 1
            self.oracle.observe(id_, member.node)
            self.compare()
            self.use(member)
            member.pump()
        self.after(rate, lambda: self.tick(id_))

    def compare(self) -> None:
        nodes = {id_: m.node for id_, m in self.members.items() if m.node is not None}
        if len(nodes) == len(self.members) and self._sequence % 5 == 0:
            self.oracle.compare(nodes)

    def inflict(self, member: Member) -> None:
        rng, world = self.rng, self.world
        if rng.random() < world.crash:
            if member.node is not None:
                self.note(f"crash {member.id}")
                self.counters["crash"] += 1
                member.crash()
        elif member.node is None and rng.random() < 0.1:
            self.note(f"restart {member.id}")
            member.start()
        if rng.random() < world.partition and self.now > self._cut_until:
            self.partition()
        if member.node is not None and rng.random() < 0.01:
            member.node.report_unreachable(rng.choice(list(self.members)))

    def partition(self) -> None:
        """Cut some links for a while: one way, one member off, or two groups."""
        rng, ids = self.rng, list(self.members)
        until = self._cut_until = self.now + rng.uniform(5, 60)
        kind = rng.choice(["one way", "isolate", "split"])
        self.counters[f"partition {kind}"] += 1
        if kind == "one way":
            self._cut[rng.choice(ids), rng.choice(ids)] = until
            return
        side = {rng.choice(ids)} if kind == "isolate" else {i for i in ids if rng.random() < 0.5}
        for a in ids:
            for b in ids:
                if (a in side) != (b in side):
                    self._cut[a, b] = until

    def use(self, member: Member) -> None:
        """What clients ask of this member."""
        rng, world, node = self.rng, self.world, member.node
        assert node is not None
        count = int(world.propose) + (rng.random() < world.propose % 1)
        for _ in range(count if node.role is Role.LEADER else rng.random() < 0.02):
            self.proposed += 1
            try:
                node.propose(b"%d" % self.proposed)
            except (NotLeader, ProposalDropped):
                self.counters["proposal refused"] += 1
        if rng.random() < 0.6:
            self.ask_read(member, node)
        if node.role is not Role.LEADER or not self.faulty:
            return
        try:
            if rng.random() < world.transfer:
                node.transfer_leadership(rng.choice(list(self.members)))
                self.counters["transfer asked"] += 1
            if rng.random() < world.change:
                node.propose_membership(self.draw_change(node))
                self.counters["membership changed"] += 1
        except (TransferRefused, ProposalDropped, ChangeRefused):
            self.counters["change or transfer refused"] += 1

    def draw_change(self, node: RaftNode) -> Change:
        rng = self.rng
        member = rng.choice(list(self.members))
        voters, learners = node.configuration
        if member in learners:
            return Change(rng.choice([ChangeKind.ADD_VOTER, ChangeKind.REMOVE]), member)
        if member in voters:
            return Change(rng.choice([ChangeKind.REMOVE, ChangeKind.DEMOTE]), member)
        return Change(rng.choice([ChangeKind.ADD_LEARNER, ChangeKind.ADD_VOTER]), member)

    def ask_read(self, member: Member, node: RaftNode) -> None:
        member.read_number += 1
        try:
            node.read_index(member.read_number)
        except (NotLeader, ProposalDropped):
            return
        member.reads[member.read_number] = self.oracle.highest_applied

    # -- phases -------------------------------------------------------------------------------

    def run(self) -> None:
        self.note(f"{self.world}")
        self.run_until(SAFETY_TICKS)
        self.heal()
        start = self.now
        goal = self.oracle.highest_applied + 5
        done = self.run_until(start + LIVENESS_TICKS, lambda: self.converged(goal))
        assert done, f"no progress in {LIVENESS_TICKS} ticks: {self.describe()}"
        self.counters["liveness ticks"] += int(self.now - start)

    def heal(self) -> None:
        """Only a random majority of the voters that hold is healed; the others stay frozen.

        While a membership change is under way, the members do not agree on who is a voter: then
        enough must be healed for the newest configuration and the one before it.
        """
        rng = self.rng
        self.faulty = False
        self._cut.clear()
        for member in self.members.values():
            if member.node is None:
                member.start()
        core: set[int] = set()
        for configuration in self.oracle.configurations(
            member.node for member in self.members.values() if member.node is not None
        ):
            voters = list(configuration)
            rng.shuffle(voters)
            missing = len(voters) // 2 + 1 - len(core.intersection(voters))
            core.update([v for v in voters if v not in core][: max(0, missing)])
        self.core = frozenset(core)
        self.note(f"heal {sorted(core)}")
        for id_, member in self.members.items():
            member.frozen = id_ not in core

    def converged(self, goal: int) -> bool:
        """Every healed voter has applied the goal."""
        assert self.core is not None
        voters: tuple[int, ...] = ()
        for id_ in sorted(self.core):
            node = self.members[id_].node
            assert node is not None
            if node.role is Role.LEADER and self.members[id_].applied >= goal:
                voters = node.configuration.voters
        return bool(voters) and all(
            self.members[id_].applied >= goal for id_ in self.core if id_ in voters
        )

    def describe(self) -> str:
        return "\n".join(
            f"{m.id}: frozen={m.frozen} {m.node.status() if m.node else 'down'}"
            for m in self.members.values()
        )


def run_seed(seed: int, trace: Callable[[str], None] | None = None) -> Counter[str]:
    """Run one seed; a failure names the command that replays it."""
    try:
        swarm = Swarm(seed, trace)
        swarm.run()
    except AssertionError as error:
        error.add_note(f"replay: python -m tests.raft.swarm {seed}")
        raise
    swarm.counters.update(swarm.oracle.summary())
    return swarm.counters


def main(arguments: list[str]) -> None:
    first = int(arguments[0])
    if len(arguments) == 1:
        run_seed(first, lambda line: print(line))
        return
    total: Counter[str] = Counter()
    for seed in range(first, first + int(arguments[1])):
        total.update(run_seed(seed))
    for name, count in sorted(total.items()):
        print(f"{count:9} {name}")


if __name__ == "__main__":
    main(sys.argv[1:])
