"""Granting and refusing votes; alike in every role (paper 5.2, 5.4.1; thesis 9.6).

Owns: the vote. Every answer leaves after the sync, so a vote given is a vote remembered.
"""

from __future__ import annotations

from raftkv.raft.core import Core
from raftkv.raft.messages import (
    PreVoteResponse,
    RequestPreVote,
    RequestVote,
    VoteResponse,
)

__all__ = ["handle_request_pre_vote", "handle_request_vote", "in_lease"]


def in_lease(core: Core) -> bool:
    """A leader was heard within the election timeout: nobody needs another one (thesis 4.2.3).

    Keeps removed or isolated members from disrupting a working cluster. A leader that loses its
    majority steps down by itself, which ends its own lease.
    """
    if not core.config.check_quorum or core.leader == 0:
        return False
    return core.leader == core.id or core.election_elapsed < core.config.election_ticks


def handle_request_pre_vote(core: Core, message: RequestPreVote) -> None:
    """Answer without any change of state. A learner answers too: it may have been promoted."""
    free = message.term > core.term or core.vote == message.sender
    free = free or (core.vote == 0 and core.leader == 0)
    granted = free and core.log.is_up_to_date(message.last_index, message.last_term)
    term = message.term if granted else core.term
    core.after_sync.append(PreVoteResponse(message.sender, core.id, term, granted))


def handle_request_vote(core: Core, message: RequestVote) -> None:
    """At most one vote a term; the same candidate gets it again, its answer may be lost."""
    assert message.term == core.term
    free = core.vote == message.sender or (core.vote == 0 and core.leader == 0)
    granted = free and core.log.is_up_to_date(message.last_index, message.last_term)
    if granted:
        core.vote = message.sender
        core.election_elapsed = 0
    assert not granted or core.vote == message.sender
    core.after_sync.append(VoteResponse(message.sender, core.id, core.term, granted))
