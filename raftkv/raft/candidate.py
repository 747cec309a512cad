"""Elections from the asking side: pre-candidate and candidate (paper 5.2; thesis 9.6).

Owns: the campaign, its votes, and what starts it: the election timeout and TimeoutNow. A
pre-candidate keeps term and vote: it only asks whether a campaign could succeed, so that a member
that was cut off does not come back with a higher term and depose a good leader.
"""

from __future__ import annotations

from raftkv.raft import follower, leader
from raftkv.raft.core import Core
from raftkv.raft.effects import Role
from raftkv.raft.messages import (
    AppendEntries,
    Heartbeat,
    InstallSnapshot,
    PreVoteResponse,
    RequestPreVote,
    RequestVote,
    TimeoutNow,
    VoteResponse,
)
from raftkv.raft.quorum import Ballot, count_votes

__all__ = [
    "campaign",
    "count_own_vote",
    "handle_append_entries",
    "handle_heartbeat",
    "handle_install_snapshot",
    "handle_pre_vote_response",
    "handle_timeout_now",
    "handle_vote_response",
    "tick_election",
]

EAGER_TICKS = 2  # between the pre-votes of a member that has just started


def tick_election(core: Core) -> None:
    """A follower's or candidate's tick."""
    core.election_elapsed += 1
    hurried = core.eager and core.role is Role.PRE_CANDIDATE
    timeout = EAGER_TICKS if hurried else core.election_timeout
    if core.election_elapsed >= timeout and core.promotable:
        core.election_elapsed = 0
        campaign(core)


def campaign(core: Core, *, transfer: bool = False) -> None:
    """Stand for election if that is allowed; `transfer`: the leader asked for it."""
    if not core.promotable or core.role is Role.LEADER:
        return
    if core.config.pre_vote and not transfer:
        _become_pre_candidate(core)
    else:
        _become_candidate(core, transfer)


def _become_pre_candidate(core: Core) -> None:
    core.enter(Role.PRE_CANDIDATE)
    core.leader = 0
    core.votes = {core.id: True}
    core.election_elapsed = 0
    log = core.log
    for voter in core.configuration.voters:
        if voter != core.id:
            core.after_sync.append(
                RequestPreVote(voter, core.id, core.term + 1, log.last_index, log.last_term)
            )
    _count(core)


def _become_candidate(core: Core, transfer: bool) -> None:
    """The own vote counts once it is durable: count_own_vote."""
    core.reset(core.term + 1)
    core.enter(Role.CANDIDATE)
    core.vote = core.id
    log = core.log
    for voter in core.configuration.voters:
        if voter != core.id:
            core.after_sync.append(
                RequestVote(voter, core.id, core.term, log.last_index, log.last_term, transfer)
            )


def count_own_vote(core: Core) -> None:
    """A batch is on the disk; if it held this campaign's term and vote, the vote is cast."""
    if core.role is not Role.CANDIDATE or core.id in core.votes:
        return
    if core.durable.term == core.term and core.durable.vote == core.id:
        core.votes[core.id] = True
        _count(core)


def _count(core: Core) -> None:
    assert core.role in (Role.PRE_CANDIDATE, Role.CANDIDATE)
    ballot = count_votes(core.configuration.voters, core.votes)
    if ballot is Ballot.WON:
        if core.role is Role.PRE_CANDIDATE:
            _become_candidate(core, transfer=False)
        else:
            leader.become_leader(core)
    elif ballot is Ballot.LOST:
        follower.become_follower(core, core.term, 0)


def handle_pre_vote_response(core: Core, message: PreVoteResponse) -> None:
    """A grant carries the term asked for, one above our own."""
    assert core.role is Role.PRE_CANDIDATE
    if message.granted and message.term != core.term + 1:
        return
    core.votes.setdefault(message.sender, message.granted)
    _count(core)


def handle_vote_response(core: Core, message: VoteResponse) -> None:
    assert message.term == core.term
    core.votes.setdefault(message.sender, message.granted)
    _count(core)


def handle_timeout_now(core: Core, message: TimeoutNow) -> None:
    """The leader found our log complete and wants us to take over, without a pre-vote."""
    assert message.term == core.term
    campaign(core, transfer=True)


def handle_append_entries(core: Core, message: AppendEntries) -> None:
    """Another candidate has won this term."""
    follower.become_follower(core, core.term, message.sender)
    follower.handle_append_entries(core, message)


def handle_heartbeat(core: Core, message: Heartbeat) -> None:
    follower.become_follower(core, core.term, message.sender)
    follower.handle_heartbeat(core, message)


def handle_install_snapshot(core: Core, message: InstallSnapshot) -> None:
    follower.become_follower(core, core.term, message.sender)
    follower.handle_install_snapshot(core, message)
