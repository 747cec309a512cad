"""Which versions of which key exist: the index under the store.

Owns the pairs. A key's newest pair is in `live`; replaced pairs and tombstones are in `old`, in
order of revision, until compaction prunes them. Two sorted lists make ranges cheap: keys that are
live, and keys that are only history. So a read of the present never meets a deleted key, and
counting a range of the present is two bisections.

Never decides revisions and never checks requests: `store.py` does.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Iterator
from operator import itemgetter

from sortedcontainers import SortedList

from raftkv.mvcc.commands import FROM_KEY, Kv

__all__ = ["KeyIndex"]

_mod_revision = itemgetter(3)


class KeyIndex:
    """All versions of all keys."""

    __slots__ = ("_dead_keys", "_live_keys", "live", "old", "size")

    def __init__(self) -> None:
        self.live: dict[bytes, Kv] = {}
        self.old: dict[bytes, list[Kv]] = {}
        self.size = 0
        """Bytes of keys and values over all versions kept."""
        self._live_keys: SortedList[bytes] = SortedList()
        self._dead_keys: SortedList[bytes] = SortedList()

    def put(self, pair: Kv) -> Kv | None:
        """Make `pair` the newest version of its key; the version it replaces, if any."""
        key = pair[0]
        previous = self.live.get(key)
        self.live[key] = pair
        self.size += len(key) + len(pair[1])
        if previous is not None:
            versions = self.old.get(key)
            if versions is None:
                self.old[key] = [previous]
            else:
                versions.append(previous)
        else:
            self._live_keys.add(key)
            if key in self.old:
                self._dead_keys.remove(key)
        return previous

    def delete(self, tombstone: Kv) -> Kv:
        """End a live key's life; the version that it had."""
        key = tombstone[0]
        previous = self.live.pop(key)
        self.old.setdefault(key, []).extend((previous, tombstone))
        self.size += len(key)
        self._live_keys.remove(key)
        self._dead_keys.add(key)
        return previous

    def at(self, key: bytes, revision: int) -> Kv | None:
        """The pair as of `revision`, or None where the key did not exist then."""
        pair = self.live.get(key)
        if pair is not None and pair[3] <= revision:
            return pair
        versions = self.old.get(key)
        if versions is None:
            return None
        place = bisect_right(versions, revision, key=_mod_revision)
        if place == 0:
            return None
        pair = versions[place - 1]
        return pair if pair[4] else None

    def live_keys(self, key: bytes, end: bytes | None) -> Iterator[bytes]:
        """The keys of the range that exist now, in order. Copy before changing anything."""
        if not end:
            return iter((key,) if key in self.live else ())
        return _slice(self._live_keys, key, end)

    def all_keys(self, key: bytes, end: bytes | None) -> Iterator[bytes]:
        """The keys of the range that exist or have a past, in order."""
        if not end:
            return iter((key,) if key in self.live or key in self.old else ())
        if not self._dead_keys:
            return _slice(self._live_keys, key, end)
        return heapq.merge(_slice(self._live_keys, key, end), _slice(self._dead_keys, key, end))

    def count_live(self, key: bytes, end: bytes | None) -> int:
        if not end:
            return int(key in self.live)
        keys = self._live_keys
        last = len(keys) if end == FROM_KEY else keys.bisect_left(end)
        return max(0, last - keys.bisect_left(key))

    def prune(self, key: bytes, revision: int) -> None:
        """Forget the versions of `key` that no read at `revision` or later can see.

        That leaves the newest version up to `revision`, unless it is a tombstone.
        """
        versions = self.old.get(key)
        if versions is None:
            return
        pair = self.live.get(key)
        if pair is not None and pair[3] <= revision:
            keep = len(versions)
        else:
            keep = bisect_right(versions, revision, key=_mod_revision)
            if keep and versions[keep - 1][4]:
                keep -= 1
        for version in versions[:keep]:
            self.size -= len(key) + len(version[1])
        if keep < len(versions):
            del versions[:keep]
            return
        del self.old[key]
        if pair is None:
            self._dead_keys.remove(key)

    def load(self, pairs: list[Kv]) -> None:
        """Take the pairs of a snapshot into an empty index; they come sorted by key."""
        assert not self.live
        assert not self.old
        self.live = {pair[0]: pair for pair in pairs}
        self._live_keys = SortedList(self.live)
        self.size = sum(len(pair[0]) + len(pair[1]) for pair in pairs)


def _slice(keys: SortedList[bytes], key: bytes, end: bytes) -> Iterator[bytes]:
    if end == FROM_KEY:
        return keys.irange(key)
    if end <= key:
        return iter(())
    return keys.irange(key, end, inclusive=(True, False))
