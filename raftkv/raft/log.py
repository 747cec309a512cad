"""The replicated log in memory, and how far each stage of its life has come.

Owns: the entries since the last compaction and the cursors over them,

    offset < first kept entry;  applied <= applying <= commit <= last_index
    stable <= handed <= last_index   (stable: on this member's disk; handed: given to the shell
                                      to write, and still valid)

Assumes: one batch outstanding at the shell at most. Never does: decide what is committed.

A crash here means that a promise was broken on this member or another (an acknowledged entry was
lost): the process must not go on, and nothing is repaired (reliability before availability).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from operator import attrgetter

from raftkv.raft.config import Restored
from raftkv.raft.messages import Entry, Snapshot, SnapshotMeta

__all__ = ["RaftLog"]

_term_of = attrgetter("term")


class RaftLog:
    __slots__ = (
        "applied",
        "applying",
        "commit",
        "entries",
        "handed",
        "last_index",
        "last_term",
        "offset",
        "offset_term",
        "pending_snapshot",
        "snapshot_meta",
        "stable",
    )

    def __init__(self, restored: Restored) -> None:
        meta = restored.snapshot_meta
        self.snapshot_meta = meta
        self.offset, self.offset_term, self.entries = _restored_entries(restored)
        self.last_index = self.offset + len(self.entries)
        self.last_term = self.entries[-1].term if self.entries else self.offset_term
        self.commit = max(restored.hard_state.commit, meta.index if meta else 0)
        self.applied = self.applying = restored.applied
        self.stable = self.handed = self.last_index
        self.pending_snapshot: Snapshot | None = None
        assert self.commit <= self.last_index, (
            f"the log ends at {self.last_index} but {self.commit} was committed: entries were "
            "lost from this disk; remove this member and add it again with a new id"
        )
        assert (meta.index if meta else 0) <= self.applied, "state machine is behind its snapshot"
        assert self.offset <= self.applied <= self.commit, "state machine and log disagree"

    # -- reading ------------------------------------------------------------------------------

    @property
    def first_index(self) -> int:
        return self.offset + 1

    def term_at(self, index: int) -> int | None:
        """The term of the entry at `index`, None when compacted away or not there yet."""
        if index == self.last_index:
            return self.last_term
        place = index - self.offset
        if 0 < place <= len(self.entries):
            return self.entries[place - 1].term
        return self.offset_term if place == 0 else None

    def slice(self, start: int, end: int, max_bytes: int) -> list[Entry]:
        """Entries start..end (inclusive), cut at max_bytes of data, but never to nothing."""
        assert self.offset < start, "entries were compacted"
        assert start <= end <= self.last_index
        chosen = self.entries[start - self.offset - 1 : end - self.offset]
        if len(chosen) == 1:
            return chosen
        total = 0
        for count, entry in enumerate(chosen):
            total += len(entry.data)
            if total > max_bytes and count:
                del chosen[count:]
                break
        return chosen

    def is_up_to_date(self, last_index: int, last_term: int) -> bool:
        """Whether a log that ends so is at least as up to date as this one (paper 5.4.1)."""
        if last_term != self.last_term:
            return last_term > self.last_term
        return last_index >= self.last_index

    def last_index_with_term_at_most(self, index: int, term: int) -> tuple[int, int]:
        """The highest place <= index whose term is <= term, as (index, its term).

        Both sides use it to skip whole terms after a conflict. Below the compacted part the term
        is not known: then (offset, 0).
        """
        index = min(index, self.last_index)
        if index <= self.offset:
            known = index == self.offset and self.offset_term <= term
            return index, self.offset_term if known else 0
        place = bisect_right(self.entries, term, hi=index - self.offset, key=_term_of)
        if place > 0:
            return self.offset + place, self.entries[place - 1].term
        return self.offset, self.offset_term if self.offset_term <= term else 0

    # -- writing ------------------------------------------------------------------------------

    def append(self, entries: Sequence[Entry]) -> None:
        """Add entries right after the last one."""
        assert entries[0].index == self.last_index + 1
        assert entries[0].term >= self.last_term
        self.entries.extend(entries)
        last = entries[-1]
        self.last_index = last.index
        self.last_term = last.term
        assert self.last_index == self.offset + len(self.entries)

    def find_conflict(self, entries: Sequence[Entry]) -> int | None:
        """The first position in `entries` that the log lacks or contradicts; None if it has all.

        A delayed, shorter request must not erase what a later one brought: entries that are
        present already are skipped, never rewritten (paper 5.3).
        """
        if not entries:
            return None
        if entries[0].index > self.last_index:
            return 0
        for position, entry in enumerate(entries):
            if self.term_at(entry.index) != entry.term:
                return position
        return None

    def truncate_from(self, index: int) -> None:
        """Drop the entry at `index` and all after it."""
        assert index > self.commit, (
            f"a leader contradicts entry {index}, but {self.commit} is committed: another member "
            "lost entries that it had acknowledged"
        )
        assert index <= self.last_index
        del self.entries[index - self.offset - 1 :]
        self.last_index = index - 1
        self.last_term = self.entries[-1].term if self.entries else self.offset_term
        self.handed = min(self.handed, self.last_index)
        self.stable = min(self.stable, self.last_index)

    def commit_to(self, index: int) -> None:
        if index <= self.commit:
            return
        assert index <= self.last_index, (
            f"the leader says {index} is acknowledged here, but the log ends at "
            f"{self.last_index}: entries were lost from this disk; remove this member and add it "
            "again with a new id"
        )
        self.commit = index

    def install(self, snapshot: Snapshot) -> None:
        """Replace everything by a snapshot that is not durable yet."""
        meta = snapshot.meta
        assert meta.index > self.commit
        self.stable = min(self.stable, self.commit)  # only this much of the old log is true
        self.entries.clear()
        self.offset = self.last_index = self.commit = meta.index
        self.offset_term = self.last_term = meta.term
        self.handed = self.applying = meta.index
        self.snapshot_meta = meta
        self.pending_snapshot = snapshot

    def compact(self, meta: SnapshotMeta, keep_behind: int) -> None:
        """A snapshot at meta is durable: forget entries, but keep some for slow followers."""
        assert keep_behind >= 0
        assert meta.index <= self.applied, "a snapshot cannot be ahead of the state machine"
        if self.snapshot_meta is not None and meta.index <= self.snapshot_meta.index:
            return
        known = self.term_at(meta.index)
        assert known == meta.term, f"snapshot of term {meta.term}, log of term {known}"
        self.snapshot_meta = meta
        offset = meta.index - keep_behind
        if offset <= self.offset:
            return
        term = self.term_at(offset)
        assert term is not None
        assert offset <= self.handed
        del self.entries[: offset - self.offset]
        self.offset = offset
        self.offset_term = term

    # -- the shell's progress -----------------------------------------------------------------

    def take_unhanded(self) -> list[Entry]:
        """The entries the shell has not been given yet; they count as given from now on."""
        taken = self.entries[self.handed - self.offset :] if self.handed < self.last_index else []
        self.handed = self.last_index
        return taken

    def take_committed(self, max_bytes: int) -> list[Entry]:
        """The next entries to apply."""
        if self.applying >= self.commit:
            return []
        entries = self.slice(self.applying + 1, self.commit, max_bytes)
        self.applying = entries[-1].index
        return entries

    def persisted(self) -> None:
        """The outstanding batch is on the disk.

        What was truncated meanwhile does not count, truncate_from lowered `handed`: else an entry
        of a newer term at the same index, not yet written, would be taken for durable (etcd's
        append ABA race). A snapshot that came meanwhile is in the next batch.
        """
        if self.pending_snapshot is None:
            self.stable = self.handed
        assert self.stable <= self.handed <= self.last_index

    def applied_to(self, index: int) -> None:
        assert index <= self.applying, f"applied {index}, but only {self.applying} was handed out"
        self.applied = max(self.applied, index)


def _restored_entries(restored: Restored) -> tuple[int, int, list[Entry]]:
    """(offset, term at offset, entries after it) of what the storage found.

    Entries that begin at or before the snapshot were kept for slow followers; the first of them
    then becomes the place before the log, as the term before it is not known. Where the log does
    not hold the snapshot's entry, the snapshot replaced it: only entries written after that
    count, and they have at least its term.
    """
    meta, entries = restored.snapshot_meta, restored.entries
    for before, after in pairwise(entries):
        assert after.index == before.index + 1, "storage returned a gap in the log"
    if meta is None:
        assert not entries or entries[0].index == 1, "the log's beginning and its snapshot are lost"
        return 0, 0, list(entries)
    assert not entries or entries[0].index <= meta.index + 1, "gap between snapshot and log"
    overlaps = bool(entries) and entries[0].index <= meta.index <= entries[-1].index
    if overlaps and entries[meta.index - entries[0].index].term == meta.term:
        return entries[0].index, entries[0].term, entries[1:]
    later = [e for e in entries if e.index > meta.index and e.term >= meta.term]
    assert not later or later[0].index == meta.index + 1, "gap between snapshot and log"
    return meta.index, meta.term, later
