"""What a leader knows about one other member's log, and how much it may send.

Owns: the three states of replication and the window of unanswered messages.
Invariant: 0 <= match < next. The transitions between the states are the methods here alone.

    probe      where the logs part is not known: one message, then wait for an answer
    replicate  the logs match: send ahead, `next` is optimistic, the window limits it
    snapshot   the entries it needs are compacted away: wait for the snapshot's fate
"""

from __future__ import annotations

from collections import deque
from enum import Enum

__all__ = ["Inflights", "Progress", "State"]


class State(Enum):
    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


class Inflights:
    """Messages sent and not answered, by their last index; limited by count and by bytes."""

    __slots__ = ("_bytes", "_max_bytes", "_max_messages", "_queue", "full")

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self._queue: deque[tuple[int, int]] = deque()
        self._bytes = 0
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self.full = False

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, last_index: int, size: int) -> None:
        assert not self.full
        assert not self._queue or self._queue[-1][0] < last_index
        self._queue.append((last_index, size))
        self._bytes += size
        self.full = len(self._queue) >= self._max_messages or self._bytes >= self._max_bytes

    def free_to(self, index: int) -> None:
        """Everything up to `index` was answered."""
        queue = self._queue
        while queue and queue[0][0] <= index:
            self._bytes -= queue.popleft()[1]
        assert self._bytes >= 0
        self.full = len(queue) >= self._max_messages or self._bytes >= self._max_bytes

    def clear(self) -> None:
        self._queue.clear()
        self._bytes = 0
        self.full = False


class Progress:
    __slots__ = (
        "active",
        "commit_sent",
        "inflights",
        "match",
        "next",
        "nudge_due",
        "pending_snapshot",
        "probe_sent",
        "read_sequence",
        "snapshot_ticks",
        "state",
    )

    def __init__(self, next_index: int, inflights: Inflights, *, active: bool = False) -> None:
        assert next_index > 0
        self.match = 0
        self.next = next_index
        self.state = State.PROBE
        self.inflights = inflights
        self.probe_sent = False  # a probe waits for its answer (or for the next heartbeat's)
        self.pending_snapshot = 0
        self.snapshot_ticks = 0
        self.commit_sent = 0  # the highest commit index this member was told
        self.read_sequence = 0  # the latest round of heartbeats it has answered
        self.nudge_due = False  # the next heartbeat answer may bring loss to light
        self.active = active  # heard of since the last quorum check

    def become_probe(self) -> None:
        """Send from where the logs are known to match; a snapshot sent counts if it is above."""
        if self.state is State.SNAPSHOT:
            self.next = max(self.match, self.pending_snapshot) + 1
        else:
            self.next = self.match + 1
        self._enter(State.PROBE)

    def become_replicate(self) -> None:
        self.next = self.match + 1
        self._enter(State.REPLICATE)

    def become_snapshot(self, index: int) -> None:
        assert index > self.match
        self._enter(State.SNAPSHOT)
        self.pending_snapshot = index

    def _enter(self, state: State) -> None:
        self.state = state
        self.probe_sent = False
        self.pending_snapshot = 0
        self.snapshot_ticks = 0
        self.commit_sent = 0
        self.inflights.clear()
        assert 0 <= self.match < self.next

    def sent(self, last_index: int, size: int) -> None:
        """A message with entries up to last_index left."""
        assert self.state is not State.SNAPSHOT
        if self.state is State.REPLICATE:
            self.next = last_index + 1
            self.inflights.add(last_index, size)
        else:
            self.probe_sent = True

    def accepted(self, index: int) -> bool:
        """The member's log matches up to `index`; whether that is news."""
        self.next = max(self.next, index + 1)
        if index <= self.match:
            return False
        self.match = index
        assert self.match < self.next
        return True

    def rejected(self, index: int, may_match: int) -> bool:
        """The member's log does not match at `index`, but perhaps at may_match.

        False: the rejection is stale, an answer to an older message (they get reordered and
        duplicated), and must not move `next` back.
        """
        if self.state is State.REPLICATE:
            if index <= self.match:
                return False
            self.become_probe()
            return True
        if self.state is State.SNAPSHOT or self.next - 1 != index:
            return False
        self.next = max(min(index, may_match + 1), self.match + 1)
        self.probe_sent = False
        return True
