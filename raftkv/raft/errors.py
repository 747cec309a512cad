"""What the Raft core refuses, as types.

Owns: the exceptions a caller of RaftNode is expected to handle. A broken invariant is none of
them: it is an AssertionError that nobody catches.
"""

from __future__ import annotations

__all__ = [
    "ChangeRefused",
    "ChangeTooEarly",
    "LearnerBehind",
    "MessageError",
    "NotLeader",
    "ProposalDropped",
    "QuorumAtRisk",
    "RaftError",
    "TransferRefused",
]


class RaftError(Exception):
    """Base of all refusals of the core; nothing was changed."""


class NotLeader(RaftError):
    """This node does not lead. `leader` is the member id it believes in, 0 if it knows none."""

    def __init__(self, leader: int) -> None:
        super().__init__(f"not the leader; known leader: {leader or 'none'}")
        self.leader = leader


class ProposalDropped(RaftError):
    """The leader took nothing in: provably not applied, the caller may retry later."""


class ChangeRefused(RaftError):
    """A membership change that is not allowed now, or not at all; the message says why."""


class ChangeTooEarly(ChangeRefused):
    """Another change is in progress, or this leader is too new: the same may be asked again."""


class LearnerBehind(ChangeRefused):
    """A learner that is not connected, or has not caught up, can't be made a voter."""


class QuorumAtRisk(ChangeRefused):
    """The voters that can be reached would be no majority any more."""


class TransferRefused(RaftError):
    """Leadership cannot be given to that member; the message says why."""


class MessageError(RaftError, ValueError):
    """Bytes from a peer that are not a message of this protocol."""
