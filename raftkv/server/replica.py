"""The replica: one task that alone mutates the Raft core and the state machine.

Owns: `RaftNode`, `Machine`, the log file, who waits for what. Others reach it through its inbox,
or read what it shows between two of its awaits (serializable ranges, status).
Assumes: the disk tells the truth about syncs. Never does: go on after a disk error, or answer a
write before it is durable on a majority.

A turn takes everything that has gathered in the inbox: peer messages are stepped, all proposals
become *one* log entry (more only where it would get too large), all reads share one ReadIndex
round. Then `_carry_out` obeys the core's effects. While its disk syncs, the next turn's work
gathers; that is the whole group commit.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from math import inf
from typing import Any

import trio

from raftkv.errors import (
    KvError,
    LeaderChanged,
    NoLeader,
    NoSpace,
    NotLeader,
    ProposalDropped,
    SnapshotDamaged,
)
from raftkv.mvcc.commands import Event, operations_in
from raftkv.mvcc.machine import Machine
from raftkv.mvcc.sizes import has_pairs
from raftkv.raft import errors as raft_errors
from raftkv.raft.effects import Effects, Role
from raftkv.raft.messages import (
    MEMBERSHIP,
    NORMAL,
    Entry,
    InstallSnapshot,
    Message,
    SnapshotMeta,
)
from raftkv.raft.node import RaftNode
from raftkv.server.batching import Batching
from raftkv.server.comparing import CHECK, Comparing
from raftkv.server.inbox import Inbox, Proposal, Read, ReplyTo
from raftkv.server.leasing import Leasing
from raftkv.server.pending import Batch, Pending, fail
from raftkv.server.reading import answer_reads
from raftkv.server.roster import Roster, change_of, context_of, refusal_of
from raftkv.server.snapshots import Snapshots
from raftkv.server.watch_streams import WatchStreams
from raftkv.storage.wal import Wal
from raftkv.streams import Flusher
from raftkv.wire.framing import pack, unpack

__all__ = ["Replica"]

log = logging.getLogger(__name__)

ENTRY_BYTES = 1024 * 1024
"""A turn's proposals beyond this start another entry."""
COMMANDS_PER_ENTRY = 1024
NEWS_SECONDS = 0.001
LEASE_COMMANDS = frozenset({"lease_grant", "lease_revoke", "lease_checkpoint"})
NOTICED = LEASE_COMMANDS | {CHECK}
"""Commands whose outcome matters to more than the state and their author."""


class Replica(ReplyTo):
    """One member's state. `run` is the actor; `tick` comes from the one ticker."""

    def __init__(
        self,
        *,
        node: RaftNode,
        machine: Machine,
        wal: Wal,
        snapshots: Snapshots,
        roster: Roster,
        flusher: Flusher,
        send: Callable[[list[Message]], None],
        leader_address: Callable[[int], str],
        election_seconds: float,
        check_seconds: float,
        quota_bytes: int,
    ) -> None:
        self.node = node
        self.machine = machine
        self.inbox = Inbox()
        self.pending = Pending()
        self._batching = Batching()
        self.watches = WatchStreams(machine)
        self.leasing = Leasing(machine, self.inbox, election_seconds)
        self._comparing = Comparing(self.inbox, check_seconds, node.status().last_index)
        self.applied = node.status().applied
        self._wal = wal
        self._snapshots = snapshots
        self._roster = roster
        self._flusher = flusher
        self._news_at = inf  # when followers are told a commit index that no entries carried
        self._publishing: dict[int, None] = {}
        self._send = send
        self._leader_address = leader_address
        self._election_seconds = election_seconds
        self._quota_bytes = quota_bytes
        self._arrived: tuple[SnapshotMeta, Machine] | None = None
        self._read_numbers = 0
        self._role = Role.FOLLOWER
        self._leader = 0
        self._leaderless_since: float | None = trio.current_time()
        self._sync_since: float | None = None
        self.committed_entries = 0
        self.committed_commands = 0
        self.syncs = 0

    # --- the actor ------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled. What it raises is a broken disk or invariant: the process must end."""
        node = self.node
        while True:
            self._gather()
            if node.has_effects():
                effects = node.take_effects()
                await self._carry_out(effects)
                if not effects.must_sync and node.has_effects():
                    await trio.lowlevel.checkpoint()  # much to apply: others get their turn
                continue
            if self._snapshots.stored is not None:
                await self._snapshots.finish(node)
                continue
            if self._snapshots.due(self.applied):
                self._snapshots.begin(node, self.applied, self.machine)
            await self._wait()

    async def _wait(self) -> None:
        """Until there's something to do; if proposals gather, at most until their deadline."""
        inbox = self.inbox
        deadline = self._news_at
        if inbox.proposals:
            deadline = min(deadline, self._batching.deadline)
            inbox.wanted = self._batching.wanted(self.pending.in_flight)
        if deadline == inf:
            await inbox.wait()
        else:
            with trio.move_on_at(deadline):
                await inbox.wait()
            inbox.wanted = 0

    def _gather(self) -> None:
        """Put everything that is in the inbox into the core."""
        inbox, node = self.inbox, self.node
        if inbox.calls:
            calls, inbox.calls = inbox.calls, []
            for call in calls:
                call()
        if inbox.messages:
            messages, inbox.messages = inbox.messages, []
            for message in messages:
                node.step(message)
        if inbox.ticks:
            ticks, inbox.ticks = inbox.ticks, 0
            for _ in range(ticks):
                node.tick()
            self._ticked()
        if node.role is not self._role or node.leader != self._leader:
            self._leadership_changed()
        if inbox.proposals and self._enough(len(inbox.proposals)):
            proposals, inbox.proposals = inbox.proposals, []
            self._propose(proposals)
            self._batching.proposed(len(proposals))
        if inbox.reads:
            reads, inbox.reads = inbox.reads, []
            self._begin_reads(reads)
        if node.commit_news_held and not inbox.proposals:
            self._consider_news()
        else:
            self._news_at = inf
        inbox.emptied()

    def _consider_news(self) -> None:
        """Followers learn the commit index from the next entries; where no proposal waits to
        become one, a little later: a message of its own for each commit would cost them a third
        of their time."""
        now = trio.current_time()
        if self._news_at == inf:
            self._news_at = now + NEWS_SECONDS
        elif now >= self._news_at:
            self.node.tell_commit()
            self._news_at = inf

    def _enough(self, waiting: int) -> bool:
        """Whether to propose what waits; what can't be proposed is refused at once."""
        if not self.is_leader:
            return True
        return self._batching.enough(waiting, self.pending.in_flight, trio.current_time())

    async def _carry_out(self, effects: Effects) -> None:
        """Obey one batch of effects. This order is Raft's safety; it's written only here.

        Committed entries are durable on a majority whatever this disk does, so they are applied
        and their authors answered while it is at work. Promises to others, our own vote for
        our entries included, wait for the sync.
        """
        node, wal = self.node, self._wal
        if effects.snapshot is not None:
            await self._install(effects)
        else:
            wal.append(effects.hard_state, effects.entries)
            self._snapshots.grown(effects.entries)
        self._roster.appended(effects.entries)
        self._roster.refresh(node.configuration, self.machine.members)
        self._send(effects.messages_before_sync)
        if effects.must_sync:
            wal.begin_sync()
        self._flusher.hold()
        applied = self._apply(effects.committed)
        for read_id, index in effects.reads:
            self.pending.confirmed(read_id, index)
        for read_id in effects.failed_reads:
            self.pending.fail_reads(read_id, LeaderChanged())
        answer_reads(self.pending.ready_reads(self.applied), self.machine, self.leasing)
        self._flusher.release()
        if effects.must_sync:
            await self._sync()
        self._send(effects.messages_after_sync)
        node.persisted(effects)
        if applied or effects.snapshot is not None:
            node.applied_to(self.applied)

    async def _sync(self) -> None:
        self._sync_since = trio.current_time()
        await self._wal.sync()
        self._sync_since = None
        self.syncs += 1

    # --- writes ---------------------------------------------------------------------------------

    def _propose(self, proposals: list[Proposal]) -> None:
        """Make log entries of proposals, or say at once why not."""
        refusal = self.refusal()
        if refusal is not None:
            fail(proposals, refusal)
            return
        if self.machine.size > self._quota_bytes:
            proposals = self._within_quota(proposals)
        for start in range(0, len(proposals), COMMANDS_PER_ENTRY):
            part = proposals[start : start + COMMANDS_PER_ENTRY]
            data = pack([proposal.command for proposal in part])
            if len(data) <= ENTRY_BYTES or len(part) == 1:
                self._propose_entry(data, part)
            else:
                for group in _split(part):
                    self._propose_entry(pack([each.command for each in group]), group)

    def _propose_entry(self, data: bytes, proposals: list[Proposal]) -> None:
        try:
            index, term = self.node.propose(data)
        except raft_errors.NotLeader:
            fail(proposals, self.refusal() or NoLeader())
        except raft_errors.ProposalDropped:
            fail(proposals, ProposalDropped())
        else:
            self.pending.add(index, Batch(term, proposals))

    def _within_quota(self, proposals: list[Proposal]) -> list[Proposal]:
        """Refuse what would grow a full store; deletes, compaction and revocation stay possible."""
        growing = [each for each in proposals if _grows(each.command)]
        fail(growing, NoSpace(f"{NoSpace.text}: the quota is {self._quota_bytes} bytes"))
        return [each for each in proposals if not _grows(each.command)]

    def _apply(self, entries: list[Entry]) -> bool:
        """Apply committed entries, answer their authors, tell the watchers."""
        if not entries:
            return False
        news: list[Event] = []
        now = trio.current_time()
        for entry in entries:
            assert entry.index == self.applied + 1
            self.applied = entry.index
            batch = self.pending.take(entry.index, entry.term)
            if entry.kind != NORMAL or not entry.data:
                self._apply_special(entry, batch)
            elif batch is not None:
                for session, request_id, command in batch.proposals:
                    result = self._apply_command(command, news, now)
                    if has_pairs(command, result):
                        session.reply_packed(request_id, result)
                    else:
                        session.reply(request_id, result)
                self.committed_commands += len(batch.proposals)
            else:  # clients of another member asked for it, or it was long ago
                commands = unpack(entry.data)
                for command in commands:
                    self._apply_command(command, news, now)
                self.committed_commands += len(commands)
        self.committed_entries += len(entries)
        if news:
            self.watches.notify(news)
        return True

    def _apply_command(self, command: list[Any], news: list[Event], now: float) -> list[Any]:
        result, events = self.machine.apply(command)
        if events:
            news += events
        if command[0] in NOTICED and result[0] != "error":
            if command[0] == CHECK:
                self._comparing.applied(self.applied, command, result)
            else:
                self.leasing.applied(command, now)
        return result

    def _apply_special(self, entry: Entry, batch: Batch | None) -> None:
        """A new leader's empty entry, or a change of the membership."""
        result: list[Any] = [self.machine.revision]
        command = context_of(entry) if entry.kind == MEMBERSHIP else None
        if command is not None:
            result = self.machine.apply(command)[0]
            log.info("membership changed %s", command)
        if batch is not None:
            for session, request_id, _ in batch.proposals:
                session.reply(request_id, result)

    # --- membership -----------------------------------------------------------------------------

    def change_membership(self, proposal: Proposal, listening: bool) -> None:
        """Propose a change that a client asks for; its answer comes when it is committed.

        Raises KvError.
        """
        refusal = self.refusal()
        if refusal is not None:
            raise refusal
        node, command = self.node, proposal.command
        if self.applied < node.status().commit:
            raise ProposalDropped("etcdserver: this member is behind; try again")
        self._roster.check(command, node.configuration, self.machine.members, listening)
        try:
            index, term = node.propose_membership(change_of(command))
        except raft_errors.RaftError as error:
            raise refusal_of(error) from error
        self.pending.add(index, Batch(term, [proposal]))

    def reply(self, request_id: int, result: Any) -> None:
        """A member's entry in the table is up to date, or will be asked for again."""
        self._publishing.pop(request_id, None)

    def _lead_membership(self) -> None:
        """The leader's part, at each tick."""
        table, members = self.machine.members, self.node.configuration.members
        for command in self._roster.unpublished(members, table):
            if command[1] not in self._publishing:
                self._publishing[command[1]] = None
                self.inbox.propose([Proposal(self, command[1], command)])
        self._roster.promote(self.node, table)

    # --- reads ----------------------------------------------------------------------------------

    def _begin_reads(self, reads: list[Read]) -> None:
        """All reads of a turn are confirmed by one round."""
        self._read_numbers += 1
        try:
            self.node.read_index(self._read_numbers)
        except raft_errors.RaftError:
            fail(reads, self.refusal() or NoLeader())
        else:
            self.pending.add_reads(self._read_numbers, reads)

    # --- leadership -----------------------------------------------------------------------------

    @property
    def is_leader(self) -> bool:
        return self.node.role is Role.LEADER

    def refusal(self) -> KvError | None:
        """Why this member takes no proposals and linearizable reads, if it does not."""
        if self.node.role is Role.LEADER:
            return None
        leader = self.node.leader
        return NotLeader(leader, self._leader_address(leader)) if leader else NoLeader()

    def _leadership_changed(self) -> None:
        node = self.node
        now = trio.current_time()
        if (node.role is Role.LEADER) != (self._role is Role.LEADER):
            if node.role is Role.LEADER:
                self.leasing.promote(now)
                self.pending.leading_again()
            else:
                self.leasing.demote()
                self.pending.lost_leadership(now + 2 * self._election_seconds)
                self.pending.fail_all_reads(LeaderChanged())
        if node.leader != self._leader:
            log.info("leader=%d term=%d", node.leader, node.term)
            self._leaderless_since = None if node.leader else now
        self._role, self._leader = node.role, node.leader

    # --- time -----------------------------------------------------------------------------------

    def tick(self) -> None:
        """From the ticker, once a tick.

        While the disk syncs the actor can't take ticks from its inbox; the core still gets them,
        so that a leader whose disk hangs steps down.
        """
        if self._sync_since is None:
            self.inbox.tick()
            return
        self.node.tick()
        if self.node.role is not self._role or self.node.leader != self._leader:
            self._leadership_changed()
        self._ticked()

    def _ticked(self) -> None:
        now = trio.current_time()
        self.pending.expire(now)
        self.watches.tick()
        since = self._leaderless_since
        if since is not None and now - since > 3 * self._election_seconds:
            self.watches.no_leader()
        if self.is_leader:
            self.leasing.tick(now)
            self._comparing.tick(self.machine, now)
            self._lead_membership()

    @property
    def sync_stall(self) -> float:
        """Seconds for which the disk has owed us a sync."""
        return 0.0 if self._sync_since is None else trio.current_time() - self._sync_since

    # --- snapshots ------------------------------------------------------------------------------

    def prepare(self, message: InstallSnapshot) -> bool:
        """Check a snapshot that arrived before the core hears of it; False: it is damaged."""
        try:
            self._arrived = (message.snapshot.meta, Machine.restore(message.snapshot.data))
        except SnapshotDamaged as error:
            log.error("a snapshot from member=%d is damaged: %s", message.sender, error)
            return False
        return True

    async def _install(self, effects: Effects) -> None:
        """Make a leader's snapshot durable, then live by it."""
        snapshot = effects.snapshot
        assert snapshot is not None
        self._wal.append(effects.hard_state, ())
        await self._snapshots.save(snapshot)
        self._wal.append(None, effects.entries)
        if self._arrived is not None and self._arrived[0] == snapshot.meta:
            machine = self._arrived[1]
        else:
            machine = Machine.restore(snapshot.data)
        self._arrived = None
        self.machine = machine
        self.applied = snapshot.meta.index
        self.leasing.replace_machine(machine)
        self.watches.replace_machine(machine)
        self.pending.covered(self.applied)
        log.info("installed a snapshot index=%d revision=%d", self.applied, machine.revision)


def _grows(command: list[Any]) -> bool:
    """Whether a command may add bytes to the store."""
    if command[0] == "txn":
        return any(op[0] == "put" for op in operations_in(command))
    return command[0] in ("put", "lease_grant")


def _split(proposals: list[Proposal]) -> list[list[Proposal]]:
    """Groups whose commands stay below ENTRY_BYTES together, each at least one proposal."""
    groups: list[list[Proposal]] = []
    size = ENTRY_BYTES
    for proposal in proposals:
        length = len(pack(proposal.command))
        if size + length > ENTRY_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(proposal)
        size += length
    return groups
