"""The leader: it replicates, counts, commits and keeps proving that it leads.

Owns: progress of the others, the commit index, read confirmation, the quorum check. What it sends
is gathered: handlers only mark `flush_due`, and one flush a batch sends to each member what it
lacks, so a burst of proposals or answers costs one message each way.
Assumes: every entry from term_start_index on is of its own term (it wrote them all).
"""

from __future__ import annotations

from raftkv.raft.core import Core
from raftkv.raft.effects import Role
from raftkv.raft.errors import (
    ChangeTooEarly,
    LearnerBehind,
    NotLeader,
    ProposalDropped,
    QuorumAtRisk,
    TransferRefused,
)
from raftkv.raft.follower import become_follower
from raftkv.raft.membership import Change, ChangeKind, Configuration, changed, encode
from raftkv.raft.messages import (
    MEMBERSHIP,
    NORMAL,
    AppendResponse,
    Entry,
    Heartbeat,
    HeartbeatResponse,
    TimeoutNow,
)
from raftkv.raft.progress import Inflights, Progress, State
from raftkv.raft.quorum import has_quorum, majority_index
from raftkv.raft.replication import flush, nudge

__all__ = [
    "become_leader",
    "handle_append_response",
    "handle_heartbeat_response",
    "handle_rival",
    "own_log_persisted",
    "propose",
    "propose_membership",
    "read_index",
    "report_snapshot",
    "report_unreachable",
    "tick_leader",
    "transfer_leadership",
]


def become_leader(core: Core) -> None:
    """Begin with an empty entry of the own term: only counting that commits older ones."""
    core.reset(core.term)
    core.enter(Role.LEADER)
    core.leader = core.id
    core.eager = False
    core.uncommitted_bytes = 0
    _follow_configuration(core, active=False)
    core.term_start_index = core.log.last_index + 1
    core.append_to_log((Entry(core.term_start_index, core.term, NORMAL, b""),))
    core.flush_due = True
    assert core.log.last_term == core.term


def _follow_configuration(core: Core, *, active: bool) -> None:
    """Progress for every other member, in the order of their ids; none for those who left."""
    config = core.config
    known = core.progress
    core.progress = {}
    for member in core.configuration.members:
        if member != core.id:
            core.progress[member] = known.get(member) or Progress(
                core.log.last_index + 1,
                Inflights(config.max_inflight_messages, config.max_inflight_bytes),
                active=active,
            )
    assert core.id not in core.progress


# -- commit ---------------------------------------------------------------------------------------


def _advance_commit(core: Core) -> None:
    """Commit what a majority has, if it is of the current term (paper 5.4.2, figure 8).

    A leader that is being removed does not count itself.
    """
    log, progress, own = core.log, core.progress, core.id
    matches = [
        log.stable if voter == own else progress[voter].match for voter in core.configuration.voters
    ]
    index = majority_index(matches)
    if index <= log.commit or index < core.term_start_index:
        return
    first = log.commit < core.term_start_index
    log.commit_to(index)
    core.commit_news()
    assert log.term_at(index) == core.term
    if first:
        for read_id in core.reads.take_waiting():
            read_index(core, read_id)
    if own not in core.configuration.voters and core.history.current_index <= index:
        _retire(core)


def _retire(core: Core) -> None:
    """The own removal is committed: tell it, name the best successor, and step down."""
    flush(core)
    voters = core.configuration.voters
    best = max(voters, key=lambda voter: core.progress[voter].match)
    core.before_sync.append(TimeoutNow(best, core.id, core.term))
    become_follower(core, core.term, 0)


def own_log_persisted(core: Core) -> None:
    """The leader's own acknowledgement: its disk holds the log up to log.stable."""
    if core.log.stable > core.log.commit:
        _advance_commit(core)


# -- answers --------------------------------------------------------------------------------------


def handle_append_response(core: Core, message: AppendResponse) -> None:
    peer = core.progress.get(message.sender)
    if peer is None:
        return
    peer.active = True
    if message.rejected:
        _handle_rejection(core, peer, message)
        return
    index = message.index
    assert index <= core.log.last_index, f"{message.sender} acknowledged entries never sent to it"
    news = peer.accepted(index)
    state = peer.state
    if state is State.REPLICATE:
        peer.inflights.free_to(index)
    elif state is State.PROBE:
        # An answer to a probe, even without news, tells that the logs match: go on from there.
        peer.become_replicate()
    elif index + 1 >= core.log.first_index:
        peer.become_replicate()  # caught up, by this snapshot or by another
    log = core.log
    if peer.next <= log.last_index:
        core.flush_due = True
    elif peer.commit_sent < log.commit:
        core.commit_news()
    if not news:
        return
    if index > log.commit:
        _advance_commit(core)
    if core.transferee == message.sender:
        _hand_over_if_complete(core)


def _handle_rejection(core: Core, peer: Progress, message: AppendResponse) -> None:
    """Step back, by whole terms where the hint allows it."""
    may_match = message.hint_index
    if message.hint_term > 0:
        may_match, _ = core.log.last_index_with_term_at_most(may_match, message.hint_term)
    if peer.rejected(message.index, may_match):
        core.flush_due = True
    assert peer.match < peer.next


def handle_heartbeat_response(core: Core, message: HeartbeatResponse) -> None:
    peer = core.progress.get(message.sender)
    if peer is None:
        return
    peer.active = True
    if peer.nudge_due:
        peer.nudge_due = False
        nudge(core, message.sender, peer)
    if message.sequence > peer.read_sequence:
        peer.read_sequence = message.sequence
        if core.reads.unconfirmed:
            _confirm_reads(core)


def _confirm_reads(core: Core) -> None:
    own, sequence = core.id, core.reads.sequence
    answered = [
        sequence if voter == own else core.progress[voter].read_sequence
        for voter in core.configuration.voters
    ]
    core.reads.confirm(majority_index(answered))


def handle_rival(core: Core, message: object) -> None:
    raise AssertionError(f"a second leader in term {core.term}: {message!r}")


# -- requests -------------------------------------------------------------------------------------


def require_leader(core: Core) -> None:
    if core.role is not Role.LEADER:
        raise NotLeader(core.leader)


def propose(core: Core, kind: int, data: bytes) -> tuple[int, int]:
    """Append an entry. Raises NotLeader, ProposalDropped."""
    if core.role is not Role.LEADER:
        raise NotLeader(core.leader)
    if core.transferee:
        raise ProposalDropped(f"leadership is being transferred to {core.transferee}")
    if core.id not in core.configuration.voters:
        raise ProposalDropped("this leader is being removed")
    size = core.uncommitted_bytes + len(data)
    if core.uncommitted_bytes and size > core.config.max_uncommitted_bytes:
        raise ProposalDropped(f"{core.uncommitted_bytes} bytes of proposals are uncommitted")
    core.uncommitted_bytes = size
    index = core.log.last_index + 1
    core.append_to_log((Entry(index, core.term, kind, data),))
    core.flush_due = True
    return index, core.term


def propose_membership(core: Core, change: Change) -> tuple[int, int]:
    """Raises NotLeader, ChangeRefused, ProposalDropped."""
    require_leader(core)
    log = core.log
    if log.commit < core.term_start_index:
        raise ChangeTooEarly("this leader has not committed an entry of its term yet; try again")
    if core.history.current_index > log.commit:
        raise ChangeTooEarly("another membership change is in progress; try again")
    configuration = changed(core.configuration, change)
    if change.kind is ChangeKind.ADD_VOTER and change.member in core.configuration.learners:
        _check_promotable(core, change.member)
    _check_live_quorum(core, configuration, change)
    place = propose(core, MEMBERSHIP, encode(configuration, change.context))
    assert core.configuration == configuration
    _follow_configuration(core, active=True)
    _advance_commit(core)  # with fewer voters, what is acknowledged already may suffice
    return place


def _check_promotable(core: Core, member: int) -> None:
    peer = core.progress[member]
    lag = core.log.last_index - peer.match
    if not peer.active or peer.match == 0 or peer.state is not State.REPLICATE:
        raise LearnerBehind(f"learner {member} is not started or not connected")
    if lag > core.config.promotion_lag_max:
        raise LearnerBehind(f"learner {member} is {lag} entries behind")


def _check_live_quorum(core: Core, configuration: Configuration, change: Change) -> None:
    """Refuse what would leave the cluster without a majority that is heard of."""
    alive = [core.id, *(id_ for id_, peer in core.progress.items() if peer.active)]
    if change.kind is ChangeKind.ADD_VOTER and change.member not in alive:
        alive.append(change.member)  # a stranger cannot have been heard of yet
    if not has_quorum(configuration.voters, alive):
        raise QuorumAtRisk(
            f"of the voters {list(configuration.voters)} then only {sorted(alive)} could be reached"
        )


def read_index(core: Core, read_id: int) -> None:
    """Raises NotLeader; ProposalDropped when too many wait."""
    require_leader(core)
    reads, commit = core.reads, core.log.commit
    if reads.pending >= core.config.max_pending_reads:
        raise ProposalDropped(f"{reads.pending} reads are waiting for confirmation")
    if commit < core.term_start_index:
        reads.wait(read_id)
    elif core.alone:
        reads.add_confirmed(read_id, commit)
    else:
        reads.add(read_id, commit)
        core.flush_due = True


def transfer_leadership(core: Core, to: int) -> None:
    """Raises NotLeader, TransferRefused. Given up after an election timeout."""
    require_leader(core)
    if to == core.id:
        raise TransferRefused(f"{to} leads already")
    if to not in core.configuration.voters:
        raise TransferRefused(f"{to} is not a voter")
    if to == core.transferee:
        return
    core.transferee = to
    core.transfer_elapsed = 0
    _hand_over_if_complete(core)


def _hand_over_if_complete(core: Core) -> None:
    """The last entries must have arrived: an incomplete log cannot win."""
    assert core.transferee in core.progress
    if core.progress[core.transferee].match == core.log.last_index:
        core.before_sync.append(TimeoutNow(core.transferee, core.id, core.term))


def report_unreachable(core: Core, member: int) -> None:
    peer = core.progress.get(member)
    if peer is not None and peer.state is State.REPLICATE:
        peer.become_probe()
        peer.probe_sent = True  # the next heartbeat's answer lets it go on


def report_snapshot(core: Core, member: int, ok: bool) -> None:
    peer = core.progress.get(member)
    if peer is None or peer.state is not State.SNAPSHOT:
        return
    if not ok:
        peer.pending_snapshot = 0
    peer.become_probe()
    peer.probe_sent = True  # the follower's own answer comes first, or the next heartbeat's


# -- time -----------------------------------------------------------------------------------------


def tick_leader(core: Core) -> None:
    config = core.config
    core.heartbeat_elapsed += 1
    core.quorum_elapsed += 1
    if core.quorum_elapsed >= config.election_ticks:
        core.quorum_elapsed = 0
        if config.check_quorum and not _check_quorum(core):
            become_follower(core, core.term, 0)
            return
    if core.outstanding_ticks >= config.election_ticks and not core.alone:
        become_follower(core, core.term, 0)  # the disk hangs: let another one lead
        return
    if core.transferee:
        core.transfer_elapsed += 1
        if core.transfer_elapsed >= config.election_ticks:
            core.transferee = 0
    if core.heartbeat_elapsed >= config.heartbeat_ticks:
        core.heartbeat_elapsed = 0
        _send_heartbeats(core)


def _check_quorum(core: Core) -> bool:
    """Whether a majority was heard of since the last check (thesis 6.2)."""
    alive = [core.id, *(id_ for id_, peer in core.progress.items() if peer.active)]
    for peer in core.progress.values():
        peer.active = False
    return has_quorum(core.configuration.voters, alive)


def _send_heartbeats(core: Core) -> None:
    commit, sequence = core.log.commit, core.reads.sequence
    for member, peer in core.progress.items():
        peer.nudge_due = True
        known = min(peer.match, commit)  # never beyond what it acknowledged
        core.before_sync.append(Heartbeat(member, core.id, core.term, known, sequence))
        if peer.state is State.SNAPSHOT:
            peer.snapshot_ticks += core.config.heartbeat_ticks
            if peer.snapshot_ticks >= core.config.snapshot_ticks:
                report_snapshot(core, member, False)
