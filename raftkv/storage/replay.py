"""From the files of a log to what a member knew: reads everything, changes nothing.

Records hold msgpack arrays; the first item tells which:

    [0, format, sequence, chain at the end of the segment before, identity, hard state, last index,
     snapshot metas]
        the head of every segment: enough to start from when all older segments are gone
    [1, hard state or nil, entries, snapshot meta or nil]
        one batch; entries replace everything from their first index on; a snapshot comes last

The rules of recovery:

- Segments are read from the last one backwards as far as their numbers go without a gap. What
  lies before a gap is the leftover of an interrupted release; a gap that matters shows, because
  then no snapshot reaches the first entry.
- A snapshot counts if the log has its record, which also says that it is committed.
- If the newest snapshot's file is bad, an older one is taken only if the log covers the way
  from there without a gap.
- Nothing that was acknowledged may be missing: a commit index beyond the last entry is damage.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import attrs
import msgpack

from raftkv.errors import SnapshotDamaged, WalDamaged
from raftkv.host import Disk
from raftkv.raft.messages import Entry, HardState, SnapshotMeta
from raftkv.storage import snapshots
from raftkv.storage.records import ADVICE, CHAIN_START, Record, Tail, scan

__all__ = [
    "ANYBODY",
    "BATCH",
    "FORMAT",
    "HEAD",
    "Identity",
    "Recovered",
    "Segment",
    "is_segment",
    "replay",
    "segment_name",
]

FORMAT: Final = 1
HEAD: Final = 0
BATCH: Final = 1
SUFFIX: Final = ".wal"
NO_TAIL: Final = Tail(0, CHAIN_START, False)


class Identity(NamedTuple):
    """Whose log this is. `incarnation` is drawn when the log is created: a member that lost its
    disk comes back with another one, and the cluster can tell that it forgot its promises."""

    cluster: int
    member: int
    incarnation: int


class Segment(NamedTuple):
    """A file of the log; `last_index` is that of the entry before its first one."""

    sequence: int
    last_index: int


ANYBODY: Final = Identity(0, 0, 0)


@attrs.define
class Recovered:
    """What a member knew. All defaults: a new log.

    entries: consecutive; they may begin before the snapshot, and follow it without a gap.
    snapshot_data: the state machine's own bytes.
    """

    identity: Identity = ANYBODY
    hard_state: HardState = attrs.Factory(HardState)
    entries: list[Entry] = attrs.Factory(list)
    snapshot_meta: SnapshotMeta | None = None
    snapshot_data: bytes = b""
    snapshot_metas: list[SnapshotMeta] = attrs.Factory(list)
    """All snapshots of which the log knows and that were not released, oldest first."""
    last_index: int = 0
    segments: list[Segment] = attrs.Factory(list)
    tail: Tail = NO_TAIL
    """Where the last segment's whole records end."""
    skipped: list[str] = attrs.Factory(list)
    """Files that play no part: to be deleted."""
    warnings: list[str] = attrs.Factory(list)


def segment_name(sequence: int) -> str:
    return f"{sequence:016x}{SUFFIX}"


def is_segment(name: str) -> bool:
    return name.endswith(SUFFIX)


def replay(disk: Disk) -> Recovered | None:
    """What the log says; None where there is no log yet.

    Raises WalDamaged, or SnapshotDamaged where no usable snapshot is left.
    """
    names = disk.names()
    sequences = sorted(_sequence(name) for name in names if is_segment(name))
    if not sequences:
        orphan = next((name for name in names if snapshots.is_snapshot(name)), None)
        if orphan is not None:
            raise WalDamaged(orphan, 0, ADVICE, "there are snapshots, but their log is missing")
        return None
    start = len(sequences) - 1
    while start and sequences[start - 1] == sequences[start] - 1:
        start -= 1
    reader = _Reader()
    for sequence in sequences[start:]:
        name = segment_name(sequence)
        reader.read_segment(name, sequence, disk.read(name), sequence == sequences[-1])
    found = reader.found
    first = segment_name(sequences[start])
    _choose_snapshot(disk, found, reader.first_index, first)
    if found.hard_state.commit > found.last_index:
        raise WalDamaged(
            segment_name(sequences[-1]),
            found.tail.offset,
            ADVICE,
            f"entries up to {found.hard_state.commit} were committed, but the log ends at "
            f"{found.last_index}",
        )
    known = {snapshots.name_of(meta) for meta in found.snapshot_metas}
    found.skipped = [segment_name(sequence) for sequence in sequences[:start]]
    found.skipped += [n for n in names if snapshots.is_snapshot(n) and n not in known]
    return found


def _sequence(name: str) -> int:
    try:
        return int(name.removesuffix(SUFFIX), 16)
    except ValueError:
        raise WalDamaged(name, 0, "move it elsewhere", "this is not a file of the log") from None


class _Reader:
    """Applies the records of the segments, in order."""

    def __init__(self) -> None:
        self.found = Recovered()
        self.first_index = 1
        self._chain = CHAIN_START

    def read_segment(self, name: str, sequence: int, data: bytes, last: bool) -> None:
        begun = False
        for item in scan(name, data, last):
            if isinstance(item, Tail):
                self.found.tail = item
                self._chain = item.chain
                continue
            try:
                record = msgpack.unpackb(item.payload, use_list=False)
                if not begun:
                    self._head(name, sequence, record, item)
                else:
                    self._batch(name, record, item)
            except (ValueError, TypeError, IndexError) as error:
                raise WalDamaged(name, item.offset, ADVICE, f"not a record: {error}") from error
            begun = True
        if not begun:
            raise WalDamaged(name, 0, ADVICE, "the segment has no head")

    def _head(self, name: str, sequence: int, record: Any, item: Record) -> None:
        if record[0] != HEAD:
            raise WalDamaged(name, item.offset, ADVICE, "the segment does not begin with a head")
        if record[1] != FORMAT:
            raise WalDamaged(
                name, item.offset, "use the version that wrote it", f"unknown format {record[1]}"
            )
        _, _, own_sequence, chain, identity, hard_state, last_index, metas = record
        found = self.found
        if own_sequence != sequence:
            raise WalDamaged(
                name, item.offset, ADVICE, f"the file is segment {own_sequence} of the log"
            )
        if not found.segments:
            found.identity = Identity(*identity)
            found.hard_state = HardState(*hard_state)
            found.last_index = last_index
            found.snapshot_metas = [SnapshotMeta(*meta) for meta in metas]
            self.first_index = last_index + 1
        elif chain != self._chain or found.identity != Identity(*identity):
            raise WalDamaged(name, item.offset, ADVICE, "the head does not continue the log")
        found.segments.append(Segment(sequence, last_index))

    def _batch(self, name: str, record: Any, item: Record) -> None:
        if record[0] != BATCH:
            raise WalDamaged(name, item.offset, ADVICE, f"unknown record {record[0]!r:.20}")
        _, hard_state, entries, meta = record
        found = self.found
        if hard_state is not None:
            found.hard_state = HardState(*hard_state)
        if entries:
            index = entries[0][0]
            if found.hard_state.commit < index < self.first_index:
                # Written over uncommitted entries of a segment that was released since. A
                # snapshot stands for what came before, else _choose_snapshot will miss it.
                found.entries = []
                found.last_index = index - 1
                self.first_index = index
            if not self.first_index <= index <= found.last_index + 1:
                raise WalDamaged(
                    name,
                    item.offset,
                    ADVICE,
                    f"entry {index} does not follow the log from {self.first_index} to "
                    f"{found.last_index}",
                )
            del found.entries[index - self.first_index :]
            found.entries += [Entry(*entry) for entry in entries]
            found.last_index = entries[-1][0]
        if meta is not None:
            self._snapshot(SnapshotMeta(*meta))

    def _snapshot(self, meta: SnapshotMeta) -> None:
        """A log that does not hold the snapshot's last entry is replaced by the snapshot.

        One that begins behind it has held it, in a segment that is released by now.
        """
        found = self.found
        place = meta.index - self.first_index
        old = place < 0
        if not old and (place >= len(found.entries) or found.entries[place].term != meta.term):
            found.entries = []
            found.last_index = meta.index
            self.first_index = meta.index + 1
        found.snapshot_metas = [*found.snapshot_metas[-1:], meta]
        state = found.hard_state
        found.hard_state = state._replace(commit=max(state.commit, meta.index))


def _choose_snapshot(disk: Disk, found: Recovered, first_index: int, name: str) -> None:
    if not found.snapshot_metas:
        if first_index > 1:
            raise WalDamaged(
                name, 0, ADVICE, f"the log begins at entry {first_index} without a snapshot"
            )
        return
    reason: SnapshotDamaged | None = None
    for meta in reversed(found.snapshot_metas):
        if meta.index + 1 < first_index:
            break
        try:
            snapshot = snapshots.read(disk, meta)
        except SnapshotDamaged as error:
            reason = reason or error
            found.warnings.append(str(error))
            continue
        found.snapshot_meta = meta
        found.snapshot_data = snapshot.data
        return
    if reason is None:
        raise WalDamaged(
            name, 0, ADVICE, f"the log begins at entry {first_index}, behind its snapshot"
        )
    raise SnapshotDamaged(f"{reason}, and the log does not reach back to an older one; {ADVICE}")
