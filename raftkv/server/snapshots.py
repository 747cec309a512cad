"""When the state machine is written down whole, and the log behind it forgotten.

Owns: the newest durable snapshot. Runs on the replica's task, which alone may use the log.
Assumes: it's asked between two batches of effects (`consider`), when the log is at rest.

A snapshot is due after so many entries, or when the log since the last one has outgrown both a
fixed size and the last snapshot: so the work per write stays bounded however large the store is.
"""

from __future__ import annotations

import logging

from raftkv.errors import SnapshotDamaged
from raftkv.host import Disk
from raftkv.mvcc.machine import Machine
from raftkv.raft.messages import Entry, Snapshot, SnapshotMeta
from raftkv.raft.node import RaftNode
from raftkv.storage import snapshots
from raftkv.storage.wal import Wal

__all__ = ["Snapshots"]

log = logging.getLogger(__name__)


class Snapshots:
    def __init__(
        self,
        *,
        disk: Disk,
        wal: Wal,
        newest: SnapshotMeta | None,
        size: int,
        every_entries: int,
        every_bytes: int,
        keep_behind: int,
    ) -> None:
        self._disk = disk
        self._wal = wal
        self._every_entries = every_entries
        self._every_bytes = every_bytes
        self._keep_behind = keep_behind
        self._size = size
        self._bytes = 0
        self.newest = newest

    @property
    def index(self) -> int:
        return self.newest.index if self.newest else 0

    def grown(self, entries: list[Entry]) -> None:
        """Entries went to the log."""
        for entry in entries:
            self._bytes += len(entry.data)

    def due(self, applied: int) -> bool:
        if applied <= self.index:
            return False
        if applied - self.index >= self._every_entries:
            return True
        return self._bytes > max(self._every_bytes, 2 * self._size)

    async def take(self, node: RaftNode, applied: int, machine: Machine) -> None:
        """Write the state at `applied` down and let the log behind it go."""
        meta = node.snapshot_meta(applied)
        if meta is None:
            return
        data = machine.snapshot()
        await self.save(Snapshot(meta, data))
        node.compact(meta, self._keep_behind)
        await self._wal.release(max(0, meta.index - self._keep_behind))
        log.info("snapshot index=%d bytes=%d", meta.index, len(data))

    async def save(self, snapshot: Snapshot) -> None:
        """Make a snapshot durable, an own one or a leader's."""
        await self._wal.save_snapshot(snapshot)
        self.newest = snapshot.meta
        self._size = len(snapshot.data)
        self._bytes = 0

    def read_newest(self) -> Snapshot | None:
        """For a follower that is too far behind; None where there is none that can be read."""
        if self.newest is None:
            return None
        try:
            return snapshots.read(self._disk, self.newest)
        except SnapshotDamaged as error:
            log.error("snapshot can't be sent: %s", error)
            return None
