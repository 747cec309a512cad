"""Leases: the replicated table, and the leader's clockwork beside it.

`LeaseTable` is part of the state machine: which leases exist, their granted TTL, the keys that
hang on them, and the remaining TTL of the last checkpoint. It changes by log entries alone and
knows no time.

`Lessor` lives on every member but runs only on the leader: it turns TTLs into deadlines on a
monotonic clock that it is handed. It never ends a lease itself. An expiry is a *proposal*
(`lease_revoke`) that has to win its place in the log, so a leader that was paused and deposed can
ask for revocations as it likes: none of them is ever committed.

A new leader gives each lease its full TTL (or what the last checkpoint left of it) plus an
election timeout: leases may live too long after a leader change, never too short.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from typing import Final

from raftkv.errors import LeaseNotFound
from raftkv.mvcc.commands import Command

__all__ = ["CHECKPOINT_SECONDS", "Lease", "LeaseTable", "Lessor"]

CHECKPOINT_SECONDS: Final = 300
"""How often the remaining TTL of a longer lease is replicated; etcd's interval."""


class Lease:
    """A granted lease; `remaining` is 0 without a checkpoint. TTLs are whole seconds."""

    __slots__ = ("id", "keys", "remaining", "ttl")

    def __init__(self, lease_id: int, ttl: int, remaining: int = 0) -> None:
        self.id = lease_id
        self.ttl = ttl
        self.remaining = remaining
        self.keys: dict[bytes, None] = {}


class LeaseTable:
    """All leases by id, in the order in which they were granted."""

    __slots__ = ("_leases",)

    def __init__(self) -> None:
        self._leases: dict[int, Lease] = {}

    def __contains__(self, lease_id: int) -> bool:
        return lease_id in self._leases

    def __iter__(self) -> Iterator[Lease]:
        return iter(self._leases.values())

    def __len__(self) -> int:
        return len(self._leases)

    def get(self, lease_id: int) -> Lease:
        """Raises LeaseNotFound."""
        lease = self._leases.get(lease_id)
        if lease is None:
            raise LeaseNotFound
        return lease

    def add(self, lease: Lease) -> None:
        assert lease.id not in self._leases
        self._leases[lease.id] = lease

    def remove(self, lease_id: int) -> None:
        assert not self._leases[lease_id].keys, "a lease goes after its keys"
        del self._leases[lease_id]

    def attach(self, key: bytes, lease_id: int) -> None:
        self._leases[lease_id].keys[key] = None

    def detach(self, key: bytes, lease_id: int) -> None:
        del self._leases[lease_id].keys[key]


class Lessor:
    """Deadlines of the leases of one table. All times are seconds of one monotonic clock.

    Each lease has one entry in each heap, with a time that may be too early: a renewal only moves
    the deadline, and the entry is put back when it comes up before its time.
    """

    def __init__(self, table: LeaseTable) -> None:
        self._table = table
        self._leading = False
        self._deadlines: dict[int, float] = {}
        self._renewed: dict[int, float] = {}
        self._expiries: list[tuple[float, int]] = []
        self._checkpoints: list[tuple[float, int]] = []
        self._revoking: dict[int, None] = {}

    def replace_table(self, table: LeaseTable) -> None:
        """A snapshot was installed. Only followers get one."""
        assert not self._leading
        self._table = table

    # --- roles ----------------------------------------------------------------------------------

    def promote(self, now: float, extension: float = 0.0) -> None:
        """Begin to lead: every lease anew from `now`, plus `extension` (an election timeout)."""
        self.demote()
        self._leading = True
        for lease in self._table:
            self._begin(lease.id, now, (lease.remaining or lease.ttl) + extension)

    def demote(self) -> None:
        """Stop to lead: forget all deadlines."""
        self._leading = False
        self._deadlines = {}
        self._renewed = {}
        self._expiries = []
        self._checkpoints = []
        self._revoking = {}

    def _begin(self, lease_id: int, now: float, seconds: float) -> None:
        self._renewed[lease_id] = now
        self._deadlines[lease_id] = now + seconds
        heapq.heappush(self._expiries, (now + seconds, lease_id))
        if seconds > CHECKPOINT_SECONDS:
            heapq.heappush(self._checkpoints, (now + CHECKPOINT_SECONDS, lease_id))

    # --- what the log says ----------------------------------------------------------------------

    def applied(self, command: Command, now: float) -> None:
        """Call after each successful lease_* command was applied, on every member."""
        if not self._leading:
            return
        if command[0] == "lease_grant":
            self._begin(command[1], now, command[2])
        elif command[0] == "lease_revoke":
            self._deadlines.pop(command[1], None)
            self._renewed.pop(command[1], None)
            self._revoking.pop(command[1], None)

    # --- what clients ask -----------------------------------------------------------------------

    def renew(self, lease_id: int, now: float) -> int:
        """Restart the lease's time; its TTL.

        Raises LeaseNotFound for one that does not exist or whose revocation is on its way: an
        answered renewal must mean that the lease lives on. The server must have made sure that it
        leads, and where `must_clear` says so commit `["lease_checkpoint", id, 0]` before it
        answers, for the old checkpoint would cut the renewed lease short after a leader change.
        """
        lease = self._table.get(lease_id)
        if lease_id not in self._deadlines or lease_id in self._revoking:
            raise LeaseNotFound
        # Never sooner: with a new leader's extension it may have had longer, and its entry says so.
        self._deadlines[lease_id] = max(self._deadlines[lease_id], now + lease.ttl)
        self._renewed[lease_id] = now
        return lease.ttl

    def must_clear(self, lease_id: int) -> bool:
        return self._table.get(lease_id).remaining != 0

    def remaining(self, lease_id: int, now: float) -> int:
        """Whole seconds left, rounded up, never below 0. Raises LeaseNotFound."""
        lease = self._table.get(lease_id)
        deadline = self._deadlines.get(lease_id)
        if deadline is None:
            return lease.remaining or lease.ttl
        return max(0, math.ceil(deadline - now))

    # --- what is to be proposed -----------------------------------------------------------------

    def due(self, now: float) -> list[int]:
        """The leases to revoke now, sorted; each is given out once, see `revoke_failed`."""
        found = []
        while self._expiries and self._expiries[0][0] <= now:
            _, lease_id = heapq.heappop(self._expiries)
            deadline = self._deadlines.get(lease_id)
            if deadline is None or lease_id in self._revoking:
                continue
            if deadline > now:
                heapq.heappush(self._expiries, (deadline, lease_id))
                continue
            self._revoking[lease_id] = None
            found.append(lease_id)
        return sorted(found)

    def revoke_failed(self, lease_id: int, now: float) -> None:
        """The proposal to revoke got lost: `due` will give the lease out again."""
        if self._revoking.pop(lease_id, self) is None:
            self._deadlines[lease_id] = now
            heapq.heappush(self._expiries, (now, lease_id))

    def checkpoints(self, now: float) -> list[tuple[int, int]]:
        """(id, remaining seconds) to propose as `lease_checkpoint`, so that long leases don't
        start from the beginning at every change of leader."""
        found = []
        while self._checkpoints and self._checkpoints[0][0] <= now:
            _, lease_id = heapq.heappop(self._checkpoints)
            deadline = self._deadlines.get(lease_id)
            if deadline is None:
                continue
            since = self._renewed[lease_id]
            if now < since + CHECKPOINT_SECONDS:
                heapq.heappush(self._checkpoints, (since + CHECKPOINT_SECONDS, lease_id))
                continue
            left = math.ceil(deadline - now)
            if left > 0 and lease_id not in self._revoking:
                found.append((lease_id, left))
                heapq.heappush(self._checkpoints, (now + CHECKPOINT_SECONDS, lease_id))
        return sorted(found)
