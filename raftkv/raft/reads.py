"""Linearizable reads without a log entry (thesis 6.4, ReadIndex).

Owns: the requests between arrival and confirmation. A request notes the commit index at its
arrival and is confirmed when a majority has answered a round of heartbeats *begun after* the
arrival. Rounds are numbered by `sequence`, which only grows, and answers carry the number back: a
late answer to an earlier round can never confirm a later request, whatever its id.
Assumes: the leader starts a round by `begin_round` before it sends that round's heartbeats.
"""

from __future__ import annotations

from collections import deque

__all__ = ["Reads"]


class Reads:
    __slots__ = (
        "_fresh",
        "_rounds",
        "_waiting",
        "failed",
        "last_id",
        "pending",
        "ready",
        "sequence",
    )

    def __init__(self) -> None:
        self.sequence = 0
        self.last_id = 0
        self.pending = 0  # requests between arrival and `ready` or `failed`
        self._waiting: list[int] = []  # until the leader commits an entry of its own term
        self._fresh: list[tuple[int, int]] = []  # (read_id, index) without a round yet
        self._rounds: deque[tuple[int, list[tuple[int, int]]]] = deque()
        self.ready: list[tuple[int, int]] = []
        self.failed: list[int] = []

    def wait(self, read_id: int) -> None:
        """The leader's commit index may still be behind the last leader's: no index yet."""
        self._waiting.append(read_id)
        self.pending += 1

    def add(self, read_id: int, commit: int) -> None:
        self._fresh.append((read_id, commit))
        self.pending += 1

    def add_confirmed(self, read_id: int, commit: int) -> None:
        """The leader alone is a majority: nobody else can have been elected."""
        self.ready.append((read_id, commit))

    def take_waiting(self) -> list[int]:
        """The requests that waited for a commit in this term, which has come."""
        waiting, self._waiting = self._waiting, []
        self.pending -= len(waiting)
        return waiting

    @property
    def wants_round(self) -> bool:
        return bool(self._fresh)

    def begin_round(self) -> int:
        """All requests so far belong to the round whose number is returned."""
        assert self._fresh
        self.sequence += 1
        self._rounds.append((self.sequence, self._fresh))
        self._fresh = []
        return self.sequence

    def confirm(self, sequence: int) -> None:
        """A majority answered the round of that number, or a later one."""
        assert sequence <= self.sequence, "an answer to a round that was never begun"
        rounds = self._rounds
        while rounds and rounds[0][0] <= sequence:
            reads = rounds.popleft()[1]
            self.pending -= len(reads)
            self.ready.extend(reads)
        assert self.pending >= 0

    @property
    def unconfirmed(self) -> bool:
        return bool(self._rounds)

    def fail_all(self) -> None:
        """Leadership is lost. What is confirmed stays so: it was true when it was asked."""
        self.failed.extend(self._waiting)
        for _, reads in self._rounds:
            self.failed.extend(read_id for read_id, _ in reads)
        self.failed.extend(read_id for read_id, _ in self._fresh)
        self._waiting.clear()
        self._rounds.clear()
        self._fresh.clear()
        self.pending = 0
