"""What the core wants done, and what it shows of itself.

Owns: Effects, the one batch that leaves the core, and RaftStatus. The order of the fields of
Effects is the order in which the shell obeys them; that order is Raft's durability contract.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

import attrs

from raftkv.raft.messages import Entry, HardState, Message, Snapshot

__all__ = ["Effects", "PeerStatus", "RaftStatus", "Role"]


class Role(Enum):
    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


@attrs.define(slots=True, eq=False)
class Effects:
    """One batch of work for the shell, to be done field by field, from the top.

    At most one batch is outstanding; RaftNode.persisted ends it. While the disk writes, the core
    takes messages, ticks and proposals as usual: they gather for the next batch.
    """

    hard_state: HardState | None
    """Append to the log file; None when unchanged."""

    snapshot: Snapshot | None
    """Received from the leader: make it durable, then replace the state machine by it (and call
    applied_to with its index). Replaces the whole log. Never together with `committed`."""

    entries: list[Entry]
    """Append to the log file. The first may replace an earlier one of the same index: then all
    that followed it is void."""

    must_sync: bool
    """The above must be on the disk before messages_after_sync leave. False: a hint at most."""

    messages_before_sync: list[Message]
    """May leave while the disk writes (thesis 10.2.1)."""

    messages_after_sync: list[Message]
    """Promises: leave only after the sync."""

    committed: list[Entry]
    """Apply in this order; then call applied_to. A shell may do so while the disk writes, as they
    are durable on a majority: but what it then writes to its own disk must not overtake them."""

    reads: list[tuple[int, int]]
    """(read_id, index): a linearizable read may be answered once `index` is applied."""

    failed_reads: list[int]
    """Leadership was lost: ask again with a new id."""


class PeerStatus(NamedTuple):
    """A leader's view of one other member. state: "probe", "replicate" or "snapshot"."""

    match: int
    next: int
    state: str
    active: bool
    learner: bool


@attrs.frozen(slots=True)
class RaftStatus:
    id: int
    role: Role
    term: int
    vote: int
    leader: int
    commit: int
    applied: int
    first_index: int
    last_index: int
    stable_index: int
    snapshot_index: int
    voters: tuple[int, ...]
    learners: tuple[int, ...]
    transferee: int
    progress: dict[int, PeerStatus]
