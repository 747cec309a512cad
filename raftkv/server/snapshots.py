"""When the state machine is written down whole, and the log behind it forgotten.

Owns: the newest durable snapshot, and the one that is being made. The state is fixed on the
replica's task (`begin`); `run`, a task of its own, packs it piece by piece and writes the file, so
that nobody waits for a large store; then the replica's task records it in the log (`finish`).

A snapshot is due after so many entries, unless they are little beside the last snapshot, or when
the log since then has outgrown both a fixed size and the last snapshot: so the work per write
stays bounded however large the store is.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Generator

import trio

from raftkv.errors import SnapshotDamaged
from raftkv.host import Disk
from raftkv.mvcc.machine import Machine
from raftkv.raft.messages import Entry, Snapshot, SnapshotMeta
from raftkv.raft.node import RaftNode
from raftkv.storage import snapshots
from raftkv.storage.wal import Wal
from raftkv.streams import Wakeup

__all__ = ["Snapshots"]

log = logging.getLogger(__name__)

PATIENCE = 10
"""After so many times the entries a snapshot is made however little they hold."""

SMALL_BYTES = 1024 * 1024
"""A snapshot of this size is made whenever the entries say so."""


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
        self.stored: tuple[SnapshotMeta, int] | None = None
        """What waits for `finish`: its meta and size."""
        self._making = False
        self._job: tuple[SnapshotMeta, list[bytes], Generator[bytes, None, None]] | None = None
        self._wakeup = Wakeup()

    @property
    def index(self) -> int:
        return self.newest.index if self.newest else 0

    def grown(self, entries: list[Entry]) -> None:
        """Entries went to the log."""
        for entry in entries:
            self._bytes += len(entry.data)

    def due(self, applied: int) -> bool:
        """Whether to begin one."""
        if self._making or applied <= self.index:
            return False
        behind = applied - self.index
        if behind >= self._every_entries:
            little = 4 * self._bytes + SMALL_BYTES < self._size
            return not little or behind >= PATIENCE * self._every_entries
        return self._bytes > max(self._every_bytes, 2 * self._size)

    def begin(self, node: RaftNode, applied: int, machine: Machine) -> None:
        """Fix the state at `applied`; the rest is done by `run`."""
        meta = node.snapshot_meta(applied)
        if meta is None:
            return
        pieces = machine.snapshot_parts()
        self._making = True
        self._job = (meta, [next(pieces)], pieces)
        self._bytes = 0
        self._wakeup.set()

    async def run(self, wake: Callable[[], None]) -> None:
        """Make snapshots when they were begun, until cancelled; `wake` calls for `finish`."""
        while True:
            await self._wakeup.wait()
            if self._job is None:
                continue
            (meta, done, pieces), self._job = self._job, None
            with contextlib.closing(pieces):
                for piece in pieces:
                    done.append(piece)
                    await trio.lowlevel.checkpoint()
            data = b"".join(done)
            await self._wal.store_snapshot(Snapshot(meta, data))
            self.stored = (meta, len(data))
            wake()

    async def finish(self, node: RaftNode) -> None:
        """Let the snapshot that `run` has stored count, and the log behind it go."""
        assert self.stored is not None
        (meta, size), self.stored = self.stored, None
        self._making = False
        if meta.index <= self.index:  # the leader's came first
            self._wal.drop_snapshot(meta)
            return
        await self._wal.record_snapshot(meta)
        self.newest, self._size = meta, size
        node.compact(meta, self._keep_behind)
        await self._wal.release(max(0, meta.index - self._keep_behind))
        log.info("snapshot index=%d bytes=%d", meta.index, size)

    async def save(self, snapshot: Snapshot) -> None:
        """Make a leader's snapshot durable, now."""
        await self._wal.save_snapshot(snapshot)
        self.newest = snapshot.meta
        self._size = len(snapshot.data)
        self._bytes = 0

    async def read_newest(self) -> Snapshot | None:
        """For a follower that is too far behind; None where there is none that can be read."""
        if self.newest is None:
            return None
        try:
            return await snapshots.load(self._disk, self.newest)
        except SnapshotDamaged as error:
            log.error("snapshot can't be sent: %s", error)
            return None
