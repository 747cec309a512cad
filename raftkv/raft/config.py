"""How a node is set up, and what its storage found at start.

Owns: RaftConfig and Restored. Units are in the names; times are ticks of the shell's clock.
"""

from __future__ import annotations

import attrs

from raftkv.raft.messages import Entry, HardState, SnapshotMeta

__all__ = ["RaftConfig", "Restored"]


@attrs.frozen(slots=True, kw_only=True)
class RaftConfig:
    id: int
    election_ticks: int = 10
    """T: a follower campaigns after a time drawn from [T, 2T-1] without a leader's word."""
    heartbeat_ticks: int = 1
    pre_vote: bool = True
    check_quorum: bool = True
    campaign_at_start: bool = False
    """Campaign at once, and again every two ticks until a leader is known: for the one member
    that should lead a new cluster without waiting for an election timeout."""
    hold_commit_news: bool = False
    """Do not tell the followers of a grown commit index by a message of its own, unless asked to
    (RaftNode.tell_commit): under load the next entries carry it."""
    max_append_bytes: int = 256 << 10
    """Entry bytes in one AppendEntries; at least one entry always fits."""
    max_inflight_messages: int = 256
    max_inflight_bytes: int = 2 << 20
    """Entry bytes sent to one member and not acknowledged. One who comes back after long gets as
    much in one turn of the shell, for which all others wait: some milliseconds."""
    max_uncommitted_bytes: int = 64 << 20
    """Proposals beyond this are dropped, but one is always allowed when nothing is pending."""
    max_committed_bytes: int = 512 << 10
    """Entry bytes handed out for applying in one batch; at least one entry always fits."""
    max_pending_reads: int = 10_000
    snapshot_ticks: int = 100
    """A snapshot of whose fate nothing was heard for so long is sent again."""
    promotion_lag_max: int = 1000
    """A learner further behind (entries) is not made a voter."""

    def __attrs_post_init__(self) -> None:
        if self.id <= 0:
            raise ValueError(f"member id must be positive, not {self.id}")
        if not 0 < self.heartbeat_ticks < self.election_ticks:
            raise ValueError(
                f"heartbeat_ticks ({self.heartbeat_ticks}) must be at least 1 and less than "
                f"election_ticks ({self.election_ticks})"
            )
        if min(self.max_inflight_messages, self.max_append_bytes, self.max_inflight_bytes) < 1:
            raise ValueError("limits of messages and bytes must be positive")


@attrs.frozen(slots=True)
class Restored:
    """What the storage found: all defaults for a first start.

    entries: consecutive; they may begin before the snapshot (kept for slow followers).
    applied: index of the state machine as restored, at least the snapshot's.
    """

    hard_state: HardState = attrs.Factory(HardState)
    snapshot_meta: SnapshotMeta | None = None
    entries: list[Entry] = attrs.Factory(list)
    applied: int = 0

    @property
    def empty(self) -> bool:
        return self.snapshot_meta is None and not self.entries
