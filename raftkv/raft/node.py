"""RaftNode: the whole protocol as a value without I/O; the only public class of this package.

In go messages, ticks, proposals; out comes one batch of Effects at a time. The shell's loop:

    while node.has_effects():
        effects = node.take_effects()
        ... obey its fields in their order ...
        node.persisted(effects)         # after the sync, before or after applying
        node.applied_to(index)          # whenever the state machine got there

Between take_effects and persisted everything else may be called: work for the next batch gathers.
Assumes: one caller at a time; what it is told about the disk is true. AssertionErrors are broken
invariants (a bug, or another member lost what it had promised to keep): the process must stop.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from raftkv.raft import candidate, follower, leader, replication, voter
from raftkv.raft.config import RaftConfig, Restored
from raftkv.raft.core import Core
from raftkv.raft.effects import Effects, PeerStatus, RaftStatus, Role
from raftkv.raft.membership import Change, Configuration
from raftkv.raft.messages import (
    NORMAL,
    AppendEntries,
    AppendResponse,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    Message,
    PreVoteResponse,
    RequestPreVote,
    RequestVote,
    SnapshotMeta,
    TimeoutNow,
    VoteResponse,
)

__all__ = ["HANDLERS", "TICKS", "RaftNode"]

# Who reacts to what, in its own term. A message not listed is stale in that role: ignored.
HANDLERS: dict[Role, dict[type[Any], Callable[[Core, Any], None]]] = {
    Role.FOLLOWER: {
        AppendEntries: follower.handle_append_entries,
        Heartbeat: follower.handle_heartbeat,
        InstallSnapshot: follower.handle_install_snapshot,
        TimeoutNow: candidate.handle_timeout_now,
        RequestVote: voter.handle_request_vote,
        RequestPreVote: voter.handle_request_pre_vote,
    },
    Role.PRE_CANDIDATE: {
        AppendEntries: candidate.handle_append_entries,
        Heartbeat: candidate.handle_heartbeat,
        InstallSnapshot: candidate.handle_install_snapshot,
        TimeoutNow: candidate.handle_timeout_now,
        PreVoteResponse: candidate.handle_pre_vote_response,
        RequestVote: voter.handle_request_vote,
        RequestPreVote: voter.handle_request_pre_vote,
    },
    Role.CANDIDATE: {
        AppendEntries: candidate.handle_append_entries,
        Heartbeat: candidate.handle_heartbeat,
        InstallSnapshot: candidate.handle_install_snapshot,
        VoteResponse: candidate.handle_vote_response,
        RequestVote: voter.handle_request_vote,
        RequestPreVote: voter.handle_request_pre_vote,
    },
    Role.LEADER: {
        AppendResponse: leader.handle_append_response,
        HeartbeatResponse: leader.handle_heartbeat_response,
        AppendEntries: leader.handle_rival,
        Heartbeat: leader.handle_rival,
        InstallSnapshot: leader.handle_rival,
        RequestVote: voter.handle_request_vote,
        RequestPreVote: voter.handle_request_pre_vote,
    },
}

TICKS: dict[Role, Callable[[Core], None]] = {
    Role.FOLLOWER: candidate.tick_election,
    Role.PRE_CANDIDATE: candidate.tick_election,
    Role.CANDIDATE: candidate.tick_election,
    Role.LEADER: leader.tick_leader,
}

_FROM_LEADER = (AppendEntries, Heartbeat, InstallSnapshot)


class RaftNode:
    """One member. `voters` begins a new cluster and must then be the same on all its first
    members; it is ignored when `restored` holds a log. Empty for a member that joins: it waits
    for the leader. Randomness is drawn from `rng` alone.
    """

    __slots__ = ("_core", "_outstanding")

    def __init__(
        self, config: RaftConfig, restored: Restored, voters: Sequence[int], rng: random.Random
    ) -> None:
        self._core = Core(config, restored, voters, rng)
        self._outstanding: Effects | None = None
        if config.campaign_at_start:
            candidate.campaign(self._core)

    # -- in -----------------------------------------------------------------------------------

    def tick(self) -> None:
        """One tick of the shell's clock has passed."""
        core = self._core
        if self._outstanding is not None:
            core.outstanding_ticks += 1
        TICKS[core.role](core)

    def step(self, message: Message) -> None:
        """Take a message from another member, in any order, any number of times."""
        core = self._core
        assert message.to == core.id, f"a message for {message.to} was delivered to {core.id}"
        assert message.sender != core.id
        if message.term != core.term and not _agree_on_term(core, message):
            return
        handler = HANDLERS[core.role].get(type(message))
        if handler is not None:
            handler(core, message)

    def propose(self, data: bytes) -> tuple[int, int]:
        """Append data to the log; it is accepted when (index, term) comes back in `committed`.

        If another term comes at that index, it is lost for certain. Raises NotLeader,
        ProposalDropped (nothing was taken in). `data` must not be empty: that is the no-op.
        """
        assert data
        return leader.propose(self._core, NORMAL, data)

    def propose_membership(self, change: Change) -> tuple[int, int]:
        """Change the membership by one member; as propose, and raises ChangeRefused."""
        return leader.propose_membership(self._core, change)

    def read_index(self, read_id: int) -> None:
        """Ask for a linearizable read: `reads` or `failed_reads` will hold the id.

        Ids must grow: one used twice could be confirmed by what came before its second use
        (etcd#20418). Raises NotLeader, ProposalDropped (too many are waiting).
        """
        reads = self._core.reads
        assert read_id > reads.last_id, f"read id {read_id} was used before"
        leader.read_index(self._core, read_id)
        reads.last_id = read_id

    def campaign(self) -> None:
        """Stand for election now, if this member may."""
        candidate.campaign(self._core)

    def transfer_leadership(self, to: int) -> None:
        """Hand leadership to a voter; proposals are dropped until it is done or given up (one
        election timeout). Raises NotLeader, TransferRefused."""
        leader.transfer_leadership(self._core, to)

    @property
    def commit_news_held(self) -> bool:
        """Followers do not know the commit index yet; see RaftConfig.hold_commit_news."""
        return self._core.news_held

    def tell_commit(self) -> None:
        """Tell them now."""
        core = self._core
        if core.news_held:
            core.flush_due = True

    def report_gone(self, peer: int) -> None:
        """The connection that the peer had opened has ended: if it leads, it's likely gone."""
        if self._core.leader == peer:
            follower.forget_leader(self._core)

    def report_unreachable(self, peer: int) -> None:
        """Messages to that member were lost (a connection broke): do not send ahead blindly."""
        if self._core.role is Role.LEADER:
            leader.report_unreachable(self._core, peer)

    def report_snapshot(self, peer: int, ok: bool) -> None:
        """The snapshot for that member was sent whole (ok), or could not be sent."""
        if self._core.role is Role.LEADER:
            leader.report_snapshot(self._core, peer, ok)

    # -- the shell's progress -----------------------------------------------------------------

    def has_effects(self) -> bool:
        core = self._core
        log = core.log
        return bool(
            core.flush_due
            or core.before_sync
            or core.after_sync
            or log.handed < log.last_index
            or log.applying < log.commit
            or core.vote_changed
            or log.pending_snapshot is not None
            or core.reads.ready
            or core.reads.failed
        )

    def take_effects(self) -> Effects:
        """The next batch. The one before must be over (persisted)."""
        core = self._core
        log, reads = core.log, core.reads
        assert self._outstanding is None, "the last batch is not persisted yet"
        if core.flush_due:
            replication.flush(core)
        new_vote = core.vote_changed
        snapshot, log.pending_snapshot = log.pending_snapshot, None
        hard_state = core.take_hard_state()
        entries = log.take_unhanded()
        committed = [] if snapshot else log.take_committed(core.config.max_committed_bytes)
        if committed and core.uncommitted_bytes:
            size = sum(len(entry.data) for entry in committed)
            core.uncommitted_bytes = max(0, core.uncommitted_bytes - size)
        effects = Effects(
            hard_state=hard_state,
            snapshot=snapshot,
            entries=entries,
            must_sync=bool(entries) or new_vote or snapshot is not None,
            messages_before_sync=core.before_sync,
            messages_after_sync=core.after_sync,
            committed=committed,
            reads=reads.ready,
            failed_reads=reads.failed,
        )
        core.before_sync, core.after_sync = [], []
        reads.ready, reads.failed = [], []
        core.outstanding_ticks = 0
        self._outstanding = effects
        return effects

    def persisted(self, effects: Effects) -> None:
        """hard_state, snapshot and entries of the batch are on the disk."""
        assert effects is self._outstanding, "not the outstanding batch"
        core = self._core
        self._outstanding = None
        core.outstanding_ticks = 0
        core.log.persisted()
        if effects.snapshot is not None and core.log.pending_snapshot is None:
            core.snapshot_unsaved = False
        if effects.hard_state is not None:
            core.durable = effects.hard_state
        if core.role is Role.LEADER:
            leader.own_log_persisted(core)
        elif core.role is Role.CANDIDATE:
            candidate.count_own_vote(core)

    def applied_to(self, index: int) -> None:
        """The state machine holds everything up to `index`."""
        self._core.log.applied_to(index)

    def snapshot_meta(self, index: int) -> SnapshotMeta | None:
        """What a snapshot of the state machine at `index` (applied) stands for.

        None: the log begins later already, as the leader's snapshot has arrived and is about to
        replace the state machine; a snapshot would be of no use.
        """
        core = self._core
        assert index <= core.log.applied
        term = core.log.term_at(index)
        if term is None:
            return None
        configuration = core.history.at(index)
        return SnapshotMeta(index, term, configuration.voters, configuration.learners)

    def compact(self, meta: SnapshotMeta, keep_behind: int) -> None:
        """A snapshot at meta is durable: drop the entries up to meta.index - keep_behind."""
        core = self._core
        core.log.compact(meta, keep_behind)
        core.history.compact(meta.index)

    # -- looking in ---------------------------------------------------------------------------

    @property
    def role(self) -> Role:
        return self._core.role

    @property
    def leader(self) -> int:
        """The member believed to lead, 0 if none is known."""
        return self._core.leader

    @property
    def term(self) -> int:
        return self._core.term

    @property
    def configuration(self) -> Configuration:
        """The latest in the log, committed or not."""
        return self._core.configuration

    def status(self) -> RaftStatus:
        core = self._core
        log = core.log
        learners = core.configuration.learners
        return RaftStatus(
            id=core.id,
            role=core.role,
            term=core.term,
            vote=core.vote,
            leader=core.leader,
            commit=log.commit,
            applied=log.applied,
            first_index=log.first_index,
            last_index=log.last_index,
            stable_index=log.stable,
            snapshot_index=log.snapshot_meta.index if log.snapshot_meta else 0,
            voters=core.configuration.voters,
            learners=learners,
            transferee=core.transferee,
            progress={
                id_: PeerStatus(p.match, p.next, p.state.value, p.active, id_ in learners)
                for id_, p in core.progress.items()
            },
        )


def _agree_on_term(core: Core, message: Message) -> bool:
    """Settle a difference of terms (paper 5.1); whether the message is still to be handled."""
    kind = type(message)
    if message.term < core.term:
        _answer_old_term(core, message)
        return False
    if kind is RequestVote or kind is RequestPreVote:
        transfer = kind is RequestVote and message.transfer  # type: ignore[union-attr]  # by kind
        if not transfer and voter.in_lease(core):
            return False
    if kind is RequestPreVote:
        return True  # asking changes nothing
    if kind is PreVoteResponse and message.granted:  # type: ignore[union-attr]  # by kind
        return True  # it carries the term that we asked about
    follower.become_follower(core, message.term, message.sender if kind in _FROM_LEADER else 0)
    return True


def _answer_old_term(core: Core, message: Message) -> None:
    """Refuse a request of an older term and tell the newer one (paper 5.1, figure 2).

    Silence could leave both sides stuck: a member whose term ran ahead (its campaign was cut off)
    ignores the leader's messages and is itself ignored in the others' leases, or may not campaign
    at all, being a learner. The answer makes the leader step down, and all find the same term.
    """
    to, own, term = message.sender, core.id, core.term
    kind = type(message)
    if kind in _FROM_LEADER:
        core.after_sync.append(AppendResponse(to, own, term, 0, True, 0, 0))
    elif kind is RequestPreVote:
        core.after_sync.append(PreVoteResponse(to, own, term, False))
    elif kind is RequestVote:
        core.after_sync.append(VoteResponse(to, own, term, False))
