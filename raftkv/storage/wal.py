"""The write-ahead log: what a member has promised, durable before it is said.

Owns the files of one `Disk`: segments (`*.wal`) and snapshots (`*.snap`). One task uses it.

    wal, recovered = await Wal.open(disk, identity)
    wal.append(hard_state, entries)      # gathers, in memory
    await wal.sync()                     # one encode, one append, one sync: now it is durable
                                         # (begin_sync before it: work that goes on meanwhile)
    await wal.save_snapshot(snapshot)    # file first, then its record
    await wal.release(index)             # old segments go, once a snapshot stands for them

A failed write or sync is final. What the disk holds is then unknown (after a failed fsync the
kernel may have dropped the dirty pages and report success the next time), so nothing is retried:
every further call raises StorageFailed and the process must end. So it is after a cancellation in
the middle of a write.
"""

from __future__ import annotations

import errno
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, Final

import msgpack

from raftkv.errors import StorageFailed, WrongCluster
from raftkv.host import Disk, File
from raftkv.raft.messages import Entry, HardState, Snapshot, SnapshotMeta
from raftkv.storage import snapshots
from raftkv.storage.records import ALIGNMENT, CHAIN_START, encode
from raftkv.storage.replay import (
    ANYBODY,
    BATCH,
    FORMAT,
    HEAD,
    Identity,
    Recovered,
    Segment,
    replay,
    segment_name,
)

__all__ = ["SEGMENT_BYTES", "Wal"]

SEGMENT_BYTES: Final = 64 << 20
FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Wal:
    """An open log. `identity` and `hard_state` are the durable ones."""

    def __init__(self, disk: Disk, file: File, recovered: Recovered, segment_bytes: int) -> None:
        """Use `Wal.open`."""
        self._disk = disk
        self._file = file
        self._segment_bytes = segment_bytes
        self._segments = recovered.segments
        self._chain = recovered.tail.chain
        self._snapshots = recovered.snapshot_metas
        self._terms = _Terms(recovered.last_index - len(recovered.entries))
        if recovered.entries:
            self._terms.replace(recovered.entries)
        self._pending_state: HardState | None = None
        self._pending: list[Entry] = []
        self._failure: str | None = None
        self._flight: tuple[HardState | None, list[Entry], SnapshotMeta | None] | None = None
        self.identity = recovered.identity
        self.hard_state = recovered.hard_state

    @classmethod
    async def open(
        cls,
        disk: Disk,
        identity: Identity = ANYBODY,
        *,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> tuple[Wal, Recovered]:
        """The log on this disk, made new for `identity` where there is none, ready to append.

        A torn tail is cut off, leftovers of crashes are deleted. Raises WalDamaged and
        SnapshotDamaged where a member must not start, WrongCluster where the log belongs to
        another cluster or member (zeros in `identity` match any), StorageFailed.
        """
        try:
            for name in disk.names():
                if name.endswith(".tmp"):
                    disk.delete(name)
            recovered = replay(disk)
            if recovered is None:
                recovered = Recovered(identity=identity)
                await _begin_segment(disk, recovered, 1, CHAIN_START)
            else:
                _check_identity(recovered.identity, identity)
            file = disk.open_append(segment_name(recovered.segments[-1].sequence))
            end = recovered.tail.offset
            padded = end + -end % ALIGNMENT
            if recovered.tail.torn or file.size != padded:
                file.truncate(end)
                file.append(bytes(padded - end))
            # A process that was killed leaves what it wrote, but perhaps only in the kernel's
            # memory. What we have read we are going to rely on, so it must be durable first.
            await file.sync()
            for name in recovered.skipped:
                disk.delete(name)
            await disk.sync_directory()
        except OSError as error:
            hint = "; the disk is full: free some space first" if error.errno in FULL else ""
            raise StorageFailed(f"the log can't be opened: {error}{hint}") from error
        return cls(disk, file, recovered, segment_bytes), recovered

    @property
    def last_index(self) -> int:
        """The last entry's index, with those that are not yet durable."""
        return self._pending[-1].index if self._pending else self._terms.last_index

    # --- writing --------------------------------------------------------------------------------

    def append(self, hard_state: HardState | None, entries: Sequence[Entry]) -> None:
        """Add to what the next `sync` makes durable.

        The first entry follows the log or replaces its end. A commit index alone needs no sync of
        its own: it is only a hint at restart.
        """
        self._check()
        if hard_state is not None:
            assert hard_state.term >= self.hard_state.term
            self._pending_state = hard_state
        if not entries:
            return
        assert self._flight is None, "appended while a sync is under way"
        first = entries[0].index
        pending = self._pending
        if pending and first <= pending[-1].index:
            assert first > self.hard_state.commit
            del pending[max(first - pending[0].index, 0) :]
        assert first <= self.last_index + 1, "the log would get a gap"
        pending += entries

    async def sync(self) -> None:
        """Make everything appended durable; with nothing appended, nothing is done.

        Raises StorageFailed: the process must end.
        """
        self._check()
        if self._flight is not None or self._pending_state is not None or self._pending:
            await self._write(None)

    def begin_sync(self) -> None:
        """Write what was appended and let its sync begin, to be waited for by `sync` before
        anything else is done with the log. Raises StorageFailed.
        """
        if self._pending_state is not None or self._pending:
            self._begin(None)

    async def save_snapshot(self, snapshot: Snapshot) -> None:
        """Make a snapshot durable: the file, then its record together with all that is pending.

        Where the log does not hold the entry that the snapshot ends with (it came from the
        leader), the snapshot replaces the log. For that case append the new hard state first:
        then term and snapshot become durable in one record.
        """
        await self.store_snapshot(snapshot)
        await self.record_snapshot(snapshot.meta)

    async def store_snapshot(self, snapshot: Snapshot) -> None:
        """Write the file alone, which may take long: meanwhile the log may be used as always.

        The snapshot counts only after `record_snapshot`; a crash before it leaves a file that is
        deleted at the next start.
        """
        self._check()
        packed = await snapshots.pack(snapshot)
        try:
            await self._disk.replace(snapshots.name_of(snapshot.meta), packed)
        except OSError as error:
            raise self._failed("a snapshot can't be written", error) from error

    async def record_snapshot(self, meta: SnapshotMeta) -> None:
        """Make a stored snapshot count, and delete those that it makes obsolete."""
        assert not self._snapshots or meta.index >= self._snapshots[-1].index
        await self._write(meta)
        obsolete = self._snapshots[:-2]
        self._snapshots = self._snapshots[-2:]
        kept = {snapshots.name_of(each) for each in self._snapshots}
        for name in [snapshots.name_of(each) for each in obsolete]:
            if name not in kept:
                self._disk.delete(name)

    def drop_snapshot(self, meta: SnapshotMeta) -> None:
        """Forget a stored snapshot that was overtaken before it was recorded."""
        if meta not in self._snapshots:
            self._disk.delete(snapshots.name_of(meta))

    async def _write(self, meta: SnapshotMeta | None) -> None:
        """Put all that is pending, and the snapshot, into one durable record."""
        if self._flight is None:
            self._begin(meta)
        assert self._flight is not None
        state, entries, meta = self._flight
        try:
            await self._file.sync()
        except OSError as error:
            raise self._failed("the log can't be written", error) from error
        except BaseException:
            self._failure = "a write was interrupted"
            raise
        self._flight = None
        self._note(state, entries, meta)
        if self._file.size >= self._segment_bytes:
            await self._rotate()

    def _begin(self, meta: SnapshotMeta | None) -> None:
        self._check()
        assert self._flight is None, "a log has one writer"
        self._flight = self._pending_state, self._pending, meta
        self._pending_state, self._pending = None, []
        record, self._chain = encode(msgpack.packb((BATCH, *self._flight)), self._chain)
        try:
            self._file.append(record)
            self._file.begin_sync()
        except OSError as error:
            raise self._failed("the log can't be written", error) from error

    def _note(
        self, state: HardState | None, entries: Sequence[Entry], meta: SnapshotMeta | None
    ) -> None:
        """What has just become durable; the same as `replay` will make of it."""
        if state is not None:
            self.hard_state = state
        if entries:
            self._terms.replace(entries)
        if meta is not None:
            self._snapshots = [*self._snapshots, meta]
            if not self._terms.holds(meta.index, meta.term):
                self._terms = _Terms(meta.index)
            commit = max(self.hard_state.commit, meta.index)
            self.hard_state = self.hard_state._replace(commit=commit)

    async def _rotate(self) -> None:
        """Go on in a new segment. The old one is complete and durable; the new one appears under
        its name only with its head, so a crash at any point leaves a log that can be read."""
        now = Recovered(
            identity=self.identity,
            hard_state=self.hard_state,
            last_index=self._terms.last_index,
            snapshot_metas=self._snapshots,
        )
        try:
            await _begin_segment(self._disk, now, self._segments[-1].sequence + 1, self._chain)
            self._file.close()
            self._file = self._disk.open_append(segment_name(now.segments[-1].sequence))
        except OSError as error:
            raise self._failed("a new segment can't be made", error) from error
        self._segments += now.segments
        self._chain = now.tail.chain

    # --- room -----------------------------------------------------------------------------------

    async def release(self, index: int) -> None:
        """Delete the segments in which only entries up to `index` lie.

        Never more than the newest durable snapshot stands for. Oldest first, so that a crash
        leaves no gap that would matter.
        """
        self._check()
        bound = min(index, self._snapshots[-1].index if self._snapshots else 0)
        gone = 0
        while gone + 1 < len(self._segments) and self._segments[gone + 1].last_index <= bound:
            self._disk.delete(segment_name(self._segments[gone].sequence))
            gone += 1
        if gone:
            self._segments = self._segments[gone:]
            try:
                await self._disk.sync_directory()
            except OSError as error:
                raise self._failed("segments can't be released", error) from error

    def close(self) -> None:
        self._failure = self._failure or "it is closed"
        self._file.close()

    def _check(self) -> None:
        if self._failure is not None:
            raise StorageFailed(f"the log is not usable: {self._failure}")

    def _failed(self, what: str, error: OSError) -> StorageFailed:
        self._failure = f"{what}: {error}"
        if error.errno in FULL:
            advice = (
                "the disk is full. This member stops; free some space and start it again: nothing "
                "that was acknowledged is lost"
            )
        else:
            advice = "this member stops, and may be started again once the disk is in order"
        return StorageFailed(f"{self._failure}; {advice}")


class _Terms:
    """Which entry has which term: the first index of each term, and the last index."""

    def __init__(self, index: int) -> None:
        """A log that begins behind the entry `index`."""
        self.last_index = index
        self._firsts = [index]
        self._values = [0]

    def replace(self, entries: Sequence[Entry]) -> None:
        first = entries[0].index
        while len(self._firsts) > 1 and self._firsts[-1] >= first:
            self._firsts.pop()
            self._values.pop()
        if entries[-1].term != self._values[-1]:
            for entry in entries:
                if entry.term != self._values[-1]:
                    self._firsts.append(entry.index)
                    self._values.append(entry.term)
        self.last_index = entries[-1].index

    def holds(self, index: int, term: int) -> bool:
        """Whether the entry is in the log, or was before the log's beginning was released."""
        if index > self.last_index:
            return False
        place = bisect_right(self._firsts, index) - 1
        return place <= 0 or self._values[place] == term


def _check_identity(found: Identity, expected: Identity) -> None:
    for what in ("cluster", "member"):
        wanted, has = getattr(expected, what), getattr(found, what)
        if wanted and wanted != has:
            raise WrongCluster(f"the log belongs to {what} {has}, not {wanted}")


async def _begin_segment(disk: Disk, state: Recovered, sequence: int, chain: int) -> None:
    """Write a segment that holds only its head, atomically; `state` then ends there."""
    head: list[Any] = [
        HEAD,
        FORMAT,
        sequence,
        chain,
        state.identity,
        state.hard_state,
        state.last_index,
        state.snapshot_metas,
    ]
    record, after = encode(msgpack.packb(head), CHAIN_START)
    await disk.replace(segment_name(sequence), record)
    state.segments.append(Segment(sequence, state.last_index))
    state.tail = state.tail._replace(offset=len(record), chain=after)
