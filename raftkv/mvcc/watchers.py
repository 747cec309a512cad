"""Which watcher sees which event, and from where on.

A watcher is a range of keys and a cursor into the store's event log; no event is ever copied for
it. Two kinds:

- *synced*: it has seen everything up to the current revision. `notify` finds the synced watchers
  of each event by hash lookups: exact keys, then prefixes (one lookup per length in use), then
  the few other ranges one by one. Watchers of the same range form one group, and a group gets one
  list: an encoder that remembers the list has encoded for all of them.
- *behind*: it has to read history first, at its start or after `fall_behind`. `history` hands it
  the next piece; when nothing is left it is synced.

Loss policy: a watcher whose outgoing queue is full is put back with `fall_behind`: that costs a
cursor, not memory, so thousands of slow watchers share the one log. If compaction overtakes the
cursor, `history` raises Compacted, and the server must deliver that as the watcher's end. So a
watcher gets every event, in order, the events of a revision together, or it is told that it lost.

Pure; one task mutates it, the one that applies the log.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from raftkv.errors import Compacted
from raftkv.mvcc.commands import Event, is_prefix
from raftkv.mvcc.machine import Machine
from raftkv.mvcc.store import Store, in_range

__all__ = ["HISTORY_REVISIONS", "Watch", "WatchHub"]

HISTORY_REVISIONS: Final = 2000
"""Revisions that one call of `history` looks at: about 0.5 ms."""


class Watch:
    """One watcher. `next_revision` is where `history` goes on; meaningless while synced."""

    __slots__ = ("end", "id", "key", "next_revision", "no_delete", "no_put", "prev_kv", "synced")

    def __init__(
        self,
        watch_id: int,
        key: bytes,
        end: bytes | None,
        next_revision: int,
        prev_kv: bool,
        no_put: bool,
        no_delete: bool,
    ) -> None:
        self.id = watch_id
        self.key = key
        self.end = end
        self.next_revision = next_revision
        self.prev_kv = prev_kv
        self.no_put = no_put
        self.no_delete = no_delete
        self.synced = False

    def wants(self, event: Event) -> bool:
        if self.no_put and event[0] == "put":
            return False
        if self.no_delete and event[0] == "delete":
            return False
        return in_range(event[1][0], self.key, self.end)


GroupKey = tuple[bytes, bytes | None, bool, bool]


class _Group:
    """The synced watchers of one range and filter, in the order in which they came."""

    __slots__ = ("sample", "watches")

    def __init__(self, sample: Watch) -> None:
        self.sample = sample
        self.watches: dict[int, Watch] = {}


class WatchHub:
    """All watchers of one replica, over its machine."""

    def __init__(self, machine: Machine) -> None:
        self._store: Store = machine.store
        self.revision = machine.revision
        """Up to here synced watchers have been told."""
        self._watches: dict[int, Watch] = {}
        self._groups: dict[GroupKey, _Group] = {}
        self._exact: dict[bytes, list[_Group]] = {}
        self._prefixes: dict[bytes, list[_Group]] = {}
        self._prefix_lengths: list[int] = []
        self._ranges: list[_Group] = []
        self._future: dict[int, Watch] = {}

    def __len__(self) -> int:
        return len(self._watches)

    # --- coming and going -----------------------------------------------------------------------

    def add(
        self,
        watch_id: int,
        key: bytes,
        end: bytes | None = None,
        start_revision: int = 0,
        *,
        prev_kv: bool = False,
        no_put: bool = False,
        no_delete: bool = False,
    ) -> Watch:
        """A new watcher of everything from `start_revision` on; 0 means from the next revision.

        A start in the future is allowed: silence until then. Raises Compacted where the start is
        gone. If the watch is not `synced`, `history` is to be called until it is.
        """
        assert watch_id not in self._watches
        start = start_revision or self.revision + 1
        if start < self._store.compact_revision:
            raise Compacted(compact_revision=self._store.compact_revision)
        watch = Watch(watch_id, key or b"\0", end or None, start, prev_kv, no_put, no_delete)
        self._watches[watch_id] = watch
        self._place(watch)
        return watch

    def remove(self, watch_id: int) -> None:
        """Forget a watcher; one that is gone already is no error."""
        watch = self._watches.pop(watch_id, None)
        if watch is None:
            return
        self._future.pop(watch_id, None)
        if watch.synced:
            self._leave_group(watch)

    def fall_behind(self, watch_id: int, next_revision: int) -> None:
        """A watcher could not take the events of `next_revision`, nor any since."""
        watch = self._watches[watch_id]
        assert next_revision <= self.revision + 1
        if watch.synced:
            self._leave_group(watch)
            watch.synced = False
        watch.next_revision = next_revision

    def replace_machine(self, machine: Machine) -> Iterable[Watch]:
        """A snapshot was installed: every watcher goes on from where it is, in the new history.

        Gives the watchers that are behind now and need `history`. Revisions never go back: a
        snapshot older than what was told is a broken invariant.
        """
        assert machine.revision >= self.revision
        told = self.revision
        for watch in self._watches.values():
            if watch.synced:
                self._leave_group(watch)
                watch.synced = False
                watch.next_revision = told + 1
        self._store = machine.store
        self.revision = machine.revision
        self._future = {}
        behind = []
        for watch in self._watches.values():
            self._place(watch)
            if watch.next_revision <= self.revision:
                behind.append(watch)
        return behind

    # --- what is told ---------------------------------------------------------------------------

    def notify(self, events: Sequence[Event]) -> dict[int, Sequence[Event]]:
        """The new events, of one or several whole revisions, per synced watcher that wants any.

        To be called once for everything that `apply` gave, in order. Watchers of one range share
        the list object, and all share the event objects: don't change them.
        """
        if not events:
            return {}
        last = events[-1][1][3]
        assert events[0][1][3] == self.revision + 1
        if self._future:
            return self._notify_by_revision(events, last)
        self.revision = last
        return self._match(events)

    def _notify_by_revision(self, events: Sequence[Event], last: int) -> dict[int, Sequence[Event]]:
        """As long as somebody waits for a revision to come, look at each one by itself."""
        told: dict[int, list[Event]] = {}
        start = 0
        while start < len(events):
            revision = events[start][1][3]
            stop = start
            while stop < len(events) and events[stop][1][3] == revision:
                stop += 1
            for watch in [w for w in self._future.values() if w.next_revision <= revision]:
                del self._future[watch.id]
                self._join_group(watch)
            for watch_id, matched in self._match(events[start:stop]).items():
                told.setdefault(watch_id, []).extend(matched)
            start = stop
        self.revision = last
        for watch in [w for w in self._future.values() if w.next_revision <= last + 1]:
            del self._future[watch.id]
            self._join_group(watch)
        return dict(told)

    def _match(self, events: Sequence[Event]) -> dict[int, Sequence[Event]]:
        if not self._groups:
            return {}
        found: dict[_Group, list[Event]] = {}
        for event in events:
            key = event[1][0]
            for group in self._groups_of(key):
                sample = group.sample
                if (event[0] == "put" and sample.no_put) or (
                    event[0] == "delete" and sample.no_delete
                ):
                    continue
                matched = found.get(group)
                if matched is None:
                    found[group] = [event]
                else:
                    matched.append(event)
        return {watch_id: matched for group, matched in found.items() for watch_id in group.watches}

    def _groups_of(self, key: bytes) -> list[_Group]:
        groups = list(self._exact.get(key, ()))
        prefixes = self._prefixes
        for length in self._prefix_lengths:
            if length > len(key):
                break
            found = prefixes.get(key[:length])
            if found is not None:
                groups += found
        for group in self._ranges:
            if in_range(key, group.sample.key, group.sample.end):
                groups.append(group)
        return groups

    def history(
        self, watch_id: int, revisions: int = HISTORY_REVISIONS
    ) -> tuple[list[Event], bool]:
        """The next events of a watcher that is behind, and whether it is synced now.

        Looks at no more than so many revisions, so the list may be empty before the end is
        reached. Raises Compacted where compaction overtook the watcher: it has lost events and
        must be ended; `remove` it when its end is delivered.
        """
        watch = self._watches[watch_id]
        assert not watch.synced
        start = watch.next_revision
        stop = min(start + revisions, self.revision + 1)
        found: list[Event] = []
        for events in self._store.events(start, stop):
            for event in events:
                if watch.wants(event):
                    found.append(event)
        watch.next_revision = max(stop, start)
        if watch.next_revision > self.revision:
            self._place(watch)
        return found, watch.synced

    def progress(self, watch_ids: Iterable[int]) -> int | None:
        """The revision up to which all of these watchers have been told everything.

        None while one of them is behind, or waits for a future revision (then nothing below its
        start may be said). The caller sends it after the events that it has queued before.
        """
        for watch_id in watch_ids:
            if not self._watches[watch_id].synced:
                return None
        return self.revision

    # --- where a watcher stands -----------------------------------------------------------------

    def _place(self, watch: Watch) -> None:
        if watch.next_revision == self.revision + 1:
            self._join_group(watch)
        elif watch.next_revision > self.revision:
            self._future[watch.id] = watch

    def _join_group(self, watch: Watch) -> None:
        watch.synced = True
        group_key = (watch.key, watch.end, watch.no_put, watch.no_delete)
        group = self._groups.get(group_key)
        if group is None:
            group = self._groups[group_key] = _Group(watch)
            if watch.end is None:
                self._exact.setdefault(watch.key, []).append(group)
            elif is_prefix(watch.key, watch.end):
                self._prefixes.setdefault(watch.key, []).append(group)
                self._measure_prefixes()
            elif watch.key == b"\0" == watch.end:
                self._prefixes.setdefault(b"", []).append(group)
                self._measure_prefixes()
            else:
                self._ranges.append(group)
        group.watches[watch.id] = watch

    def _leave_group(self, watch: Watch) -> None:
        group_key = (watch.key, watch.end, watch.no_put, watch.no_delete)
        group = self._groups[group_key]
        del group.watches[watch.id]
        if group.watches:
            return
        del self._groups[group_key]
        if watch.end is None:
            _drop(self._exact, watch.key, group)
        elif is_prefix(watch.key, watch.end):
            _drop(self._prefixes, watch.key, group)
            self._measure_prefixes()
        elif watch.key == b"\0" == watch.end:
            _drop(self._prefixes, b"", group)
            self._measure_prefixes()
        else:
            self._ranges.remove(group)

    def _measure_prefixes(self) -> None:
        self._prefix_lengths = sorted({len(prefix) for prefix in self._prefixes})


def _drop(index: dict[bytes, list[_Group]], key: bytes, group: _Group) -> None:
    index[key].remove(group)
    if not index[key]:
        del index[key]
