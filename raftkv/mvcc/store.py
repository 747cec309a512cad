"""Keys and values at revisions, as etcd v3 has them, and the log of events by revision.

Owns the revision counter, the key index and the event log. One call of `commit` makes the writes
since the last one a single revision. The event log is dense: every revision since the last
compaction has its tuple of events, so a watcher is nothing but a number that walks along it.

Compaction is split: `compact` moves the bound that readers see, at once and on every replica at
the same place in the log; `sweep` frees the memory behind it in bounded steps. What sweep has
done so far is never visible: not in reads, not in `hash`, not in a snapshot.

The compaction rules: a read *at* the compacted revision is allowed, and so is a watch from it,
which still gets a delete that happened exactly there (without its previous value, on every
replica alike, because a restored one can't have it).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Final
from zlib import crc32

from raftkv.errors import Compacted, FutureRevision
from raftkv.mvcc.commands import FROM_KEY, Event, Kv, RangeResult
from raftkv.mvcc.keyindex import KeyIndex

__all__ = ["REVISION_AT_START", "Held", "Store", "in_range"]

REVISION_AT_START: Final = 1
SWEEP_REVISIONS: Final = 128
"""Revisions freed per call of `sweep`: about 50 us."""
SWEPT: Final[tuple[Event, ...]] = ()


class Store:
    """Every write goes through `put` and `delete`, then `commit`."""

    __slots__ = (
        "_holds",
        "_log",
        "_log_first",
        "_pending",
        "_swept",
        "compact_revision",
        "digest",
        "index",
        "revision",
    )

    def __init__(self) -> None:
        self.revision = REVISION_AT_START
        self.compact_revision = 0
        self.index = KeyIndex()
        self.digest = 0
        """Checksum over every event since the beginning: equal on all replicas at a revision."""
        self._log: list[tuple[Event, ...]] = []
        self._log_first = REVISION_AT_START + 1
        self._swept = 0
        self._pending: list[Event] = []
        self._holds = 0

    # --- writing --------------------------------------------------------------------------------

    def put(self, key: bytes, value: bytes, lease: int) -> Kv | None:
        """Write in the revision that is being made; the pair that was there before."""
        revision = self.revision + 1
        before = self.index.live.get(key)
        if before is None:
            pair: Kv = (key, value, revision, revision, 1, lease)
        else:
            pair = (key, value, before[2], revision, before[4] + 1, lease)
        self.index.put(pair)
        self._pending.append(("put", pair, before))
        return before

    def delete(self, key: bytes, end: bytes | None) -> list[Kv]:
        """Delete in the revision that is being made; the pairs that existed, in order of key."""
        revision = self.revision + 1
        index = self.index
        deleted = []
        for each in list(index.live_keys(key, end)):
            tombstone: Kv = (each, b"", 0, revision, 0, 0)
            before = index.delete(tombstone)
            self._pending.append(("delete", tombstone, before))
            deleted.append(before)
        return deleted

    def commit(self) -> list[Event]:
        """Make the writes since the last commit one revision. No writes: no revision."""
        events = self._pending
        if not events:
            return events
        self._pending = []
        self.revision += 1
        assert events[0][1][3] == self.revision
        self._log.append(tuple(events))
        digest = self.digest
        for kind, (key, value, _, _, version, lease), _ in events:
            digest = crc32(value, crc32(key, digest))
            if lease or kind == "delete":
                digest = crc32(b"%d,%d" % (version, lease), digest)
        self.digest = digest
        return events

    # --- reading --------------------------------------------------------------------------------

    def check_revision(self, revision: int) -> None:
        """Raise Compacted or FutureRevision where nothing can be read at `revision`; 0 is now."""
        if revision > self.revision:
            raise FutureRevision
        if revision and revision < self.compact_revision:
            raise Compacted(compact_revision=self.compact_revision)

    def range(
        self,
        key: bytes,
        end: bytes | None,
        *,
        limit: int = 0,
        revision: int = 0,
        keys_only: bool = False,
        count_only: bool = False,
    ) -> RangeResult:
        """The pairs of a range, in order of key. Raises Compacted, FutureRevision."""
        self.check_revision(revision)
        if revision and revision < self.revision + bool(self._pending):
            kvs, count = self._range_past(key, end, limit, revision, count_only)
        else:
            kvs, count = self._range_now(key, end, limit, count_only)
        if keys_only:
            kvs = [(k, b"", c, m, v, le) for k, _, c, m, v, le in kvs]
        more = not count_only and len(kvs) < count
        return RangeResult(kvs, count, more, self.revision + bool(self._pending))

    def _range_now(
        self, key: bytes, end: bytes | None, limit: int, count_only: bool
    ) -> tuple[list[Kv], int]:
        index = self.index
        if not end:
            pair = index.live.get(key)
            if pair is None:
                return [], 0
            return [] if count_only else [pair], 1
        count = index.count_live(key, end)
        if count_only or not count:
            return [], count
        live = index.live
        keys: Iterable[bytes] = index.live_keys(key, end)
        if limit:
            keys = islice(keys, limit)
        return [live[each] for each in keys], count

    def _range_past(
        self, key: bytes, end: bytes | None, limit: int, revision: int, count_only: bool
    ) -> tuple[list[Kv], int]:
        index = self.index
        kvs: list[Kv] = []
        if not count_only:
            for each in index.all_keys(key, end):
                pair = index.at(each, revision)
                if pair is not None:
                    kvs.append(pair)
                    if limit and len(kvs) == limit:
                        break
            if not limit or len(kvs) < limit:
                return kvs, len(kvs)
        return kvs, self._count_past(key, end, revision)

    def _count_past(self, key: bytes, end: bytes | None, revision: int) -> int:
        """How many keys of the range existed at `revision`.

        Counted from now backwards over what changed since, which is little for the pages of a
        pinned list; or directly, where more has changed than the range holds.
        """
        index = self.index
        live = index.count_live(key, end)
        if self.revision - revision > live:
            keys = index.all_keys(key, end)
            return sum(index.at(each, revision) is not None for each in keys)
        changed: dict[bytes, None] = {}
        for events in self.events(revision + 1, self.revision + 1):
            for _, pair, _ in events:
                changed[pair[0]] = None
        for _, pair, _ in self._pending:
            changed[pair[0]] = None
        for each in changed:
            if in_range(each, key, end):
                live += (index.at(each, revision) is not None) - (each in index.live)
        return live

    # --- history --------------------------------------------------------------------------------

    def events(self, start: int, stop: int) -> Sequence[tuple[Event, ...]]:
        """The events of the revisions from `start` up to, not including, `stop`.

        Raises Compacted where they are gone. Revisions that changed nothing don't exist, but the
        first one (1) and those skipped by `bump` give nothing.
        """
        if start < self.compact_revision:
            raise Compacted(compact_revision=self.compact_revision)
        first = self._log_first
        return self._log[max(start - first, 0) : max(stop - first, 0)]

    def compact(self, revision: int) -> None:
        """Give up everything before `revision`, except what a read at it needs."""
        if revision <= self.compact_revision:
            raise Compacted(compact_revision=self.compact_revision)
        if revision > self.revision:
            raise FutureRevision
        self.compact_revision = revision
        place = revision - self._log_first
        if place >= 0:
            self._log[place] = tuple((kind, kv, None) for kind, kv, _ in self._log[place])

    def sweep(self, revisions: int = SWEEP_REVISIONS) -> bool:
        """Free memory of at most so many compacted revisions; whether there is more to do."""
        if self._holds:
            return False
        bound = self.compact_revision
        start = max(self._swept + 1, self._log_first)
        stop = min(start + revisions, bound + 1)
        log, first, prune = self._log, self._log_first, self.index.prune
        for revision in range(start, stop):
            for _, pair, _ in log[revision - first]:
                prune(pair[0], bound)
            if revision < bound:
                log[revision - first] = SWEPT
        self._swept = max(self._swept, stop - 1)
        gone = min(self._swept, bound - 1) - first + 1
        if gone > 0 and (2 * gone >= len(log) or self._swept >= bound):
            del log[:gone]
            self._log_first += gone
        return self._swept < bound

    @property
    def swept(self) -> bool:
        return self._swept >= self.compact_revision

    def bump(self, amount: int) -> None:
        """Jump ahead and forget all history, as after the restore of a backup.

        Revisions that clients saw in the lost future are then never used twice, and watchers
        from before are told Compacted instead of waiting silently.
        """
        assert not self._pending
        assert not self._holds
        self.revision += amount
        self.compact_revision = self.revision
        for key in list(self.index.old):
            self.index.prune(key, self.revision)
        self._log = []
        self._log_first = self.revision + 1
        self._swept = self.revision

    # --- as a whole -----------------------------------------------------------------------------

    @contextmanager
    def hold(self) -> Iterator[Held]:
        """Keep every version that is readable now, whatever is written and compacted meanwhile."""
        assert not self._pending
        self._holds += 1
        try:
            yield Held(self)
        finally:
            self._holds -= 1

    @classmethod
    def load(
        cls,
        revision: int,
        compact_revision: int,
        digest: int,
        base: list[Kv],
        log: Sequence[Sequence[Kv]],
    ) -> Store:
        """The store whose `Held` had this base, and these pairs in its log."""
        store = cls()
        first = revision - len(log) + 1
        store.index.load(base)
        store.compact_revision = compact_revision
        store.revision = revision
        store.digest = digest
        store._log_first = first
        store._swept = compact_revision
        for number, pairs in enumerate(log, first):
            events: list[Event] = []
            for pair in pairs:
                assert pair[3] == number
                before: Kv | None
                if pair[4]:
                    if pair[2] == number:
                        pair = (pair[0], pair[1], number, number, pair[4], pair[5])
                    before = store.index.put(pair)
                    events.append(("put", pair, before))
                elif number > compact_revision:
                    events.append(("delete", pair, store.index.delete(pair)))
                else:
                    events.append(("delete", pair, None))
            store._log.append(tuple(events))
        return store


class Held:
    """The state of a store at the moment of `Store.hold`, as a base and a log.

    The base: the pairs as they were just before the compacted revision, less those that the log
    replaces at once. The log: the events of each revision from the compacted one on.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.revision = store.revision
        self.compact_revision = store.compact_revision

    def base(self, keys: int) -> Iterator[list[Kv]]:
        """The pairs of the base in order of key; each piece looks at so many keys."""
        bound = self.compact_revision
        index = self._store.index
        start = b""
        while bound:
            piece = list(islice(index.all_keys(start, FROM_KEY), keys))
            if not piece:
                return
            pairs = (index.at(key, bound) for key in piece)
            yield [pair for pair in pairs if pair is not None and pair[3] < bound]
            start = piece[-1] + b"\0"

    def log(self, revisions: int) -> Iterator[Sequence[tuple[Event, ...]]]:
        """The events of so many revisions in each piece."""
        store = self._store
        start = max(self.compact_revision, store._log_first)
        for first in range(start, self.revision + 1, revisions):
            place = first - store._log_first
            yield store._log[place : min(place + revisions, self.revision + 1 - store._log_first)]


def in_range(candidate: bytes, key: bytes, end: bytes | None) -> bool:
    """Whether `candidate` is in the range that `key` and `end` describe."""
    if not end:
        return candidate == key
    return candidate >= key and (end == FROM_KEY or candidate < end)
