"""The store in this process: raftkv's own state machine without Raft, disk or network.

Owns: one Machine. For tests and for `k8slite up --store memory`; what it holds ends with the
process. Several apiservers of one process may share it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio

from k8slite.apiserver.store.base import ANY, Batch, Change, Changed, Item, Page, Watch, Write
from raftkv.errors import from_wire
from raftkv.mvcc.machine import Machine

__all__ = ["MemoryStore"]

STEP_REVISIONS = 2_000
"""How much of the history one batch holds at most."""


class MemoryStore:
    """See `Store`."""

    def __init__(self) -> None:
        self._machine = Machine()
        self._watches: dict[int, _MemoryWatch] = {}
        self._next_watch = 0

    async def current_revision(self) -> int:
        await trio.lowlevel.checkpoint()
        return self._machine.revision

    async def get(self, key: bytes) -> Item | None:
        await trio.lowlevel.checkpoint()
        return self._get(key)

    def _get(self, key: bytes) -> Item | None:
        kvs = self._machine.range(key, None).kvs
        return _item(kvs[0]) if kvs else None

    async def page(self, start: bytes, end: bytes, limit: int = 0, revision: int = 0) -> Page:
        await trio.lowlevel.checkpoint()
        found = self._machine.range(start, end, limit=limit, revision=revision)
        items = [_item(kv) for kv in found.kvs]
        return Page(items, revision or found.revision, found.count - len(items))

    async def commit(self, writes: Sequence[Write]) -> int:
        await trio.lowlevel.checkpoint()
        revision, succeeded, _ = self._apply(
            [
                "txn",
                [[w.key, None, "mod", "=", w.expected] for w in writes if w.expected != ANY],
                [
                    ["delete", w.key, None, False]
                    if w.value is None
                    else ["put", w.key, w.value, 0, False]
                    for w in writes
                ],
                [],
            ]
        )
        if not succeeded:
            raise Changed({w.key: self._get(w.key) for w in writes if w.expected != ANY})
        assert isinstance(revision, int)
        return revision

    async def compact(self, revision: int) -> None:
        await trio.lowlevel.checkpoint()
        self._apply(["compact", revision])

    def _apply(self, command: list[Any]) -> list[Any]:
        result, events = self._machine.apply(command)
        if result[0] == "error":
            raise from_wire(result[1], result[2])
        if events:
            for watch in self._watches.values():
                watch.wake()
        return result

    @asynccontextmanager
    async def watch(self, prefix: bytes, start_revision: int) -> AsyncIterator[Watch]:
        await trio.lowlevel.checkpoint()
        watch = _MemoryWatch(self._machine, prefix, start_revision)
        number = self._next_watch = self._next_watch + 1
        self._watches[number] = watch
        try:
            yield watch
        finally:
            del self._watches[number]


class _MemoryWatch:
    """A place in the machine's history, not a queue: what is not read yet costs nothing."""

    def __init__(self, machine: Machine, prefix: bytes, start_revision: int) -> None:
        machine.store.events(start_revision, start_revision)  # raises Compacted
        self._machine = machine
        self._prefix = prefix
        self._next = start_revision
        self._news = trio.Event()
        self._news.set()

    def wake(self) -> None:
        """There is more to read."""
        self._news.set()

    def __aiter__(self) -> AsyncIterator[Batch]:
        return self

    async def __anext__(self) -> Batch:
        """Raises Compacted when the reader is too late."""
        await self._news.wait()
        start = self._next
        self._next = min(max(start, self._machine.revision + 1), start + STEP_REVISIONS)
        if self._next > self._machine.revision:
            self._news = trio.Event()
        prefix = self._prefix
        changes = [
            _change(event)
            for events in self._machine.store.events(start, self._next)
            for event in events
            if event[1][0].startswith(prefix)
        ]
        return Batch(self._next - 1, changes)

    async def request_progress(self) -> None:
        await trio.lowlevel.checkpoint()
        self._news.set()


def _item(kv: Sequence[Any]) -> Item:
    return Item(kv[0], kv[1], kv[3])


def _change(event: Sequence[Any]) -> Change:
    kv = event[1]
    return Change(kv[0], kv[1] if event[0] == "put" else None, kv[3])
