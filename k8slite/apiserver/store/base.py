"""The store as the apiserver needs it: keys and values are bytes, revisions are ints > 0.

Every write is one atomic commit of any number of keys, each with the revision that it must
still have; that one call makes create, update and delete, and lets a Service and its address
come into being together. Two implementations: `memory` and `raftkv`; one suite tests both.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

__all__ = [
    "ANY",
    "Batch",
    "Change",
    "Changed",
    "Item",
    "Page",
    "Store",
    "Watch",
    "Write",
    "prefix_end",
]


ANY = -1
"""As the expected revision of a write: whatever it is."""


class Item(NamedTuple):
    """A stored value and the revision of its last write."""

    key: bytes
    value: bytes
    revision: int


class Write(NamedTuple):
    """One key of a commit. A value of None deletes; `expected` 0: it must not exist; or ANY."""

    key: bytes
    value: bytes | None
    expected: int


class Page(NamedTuple):
    """A slice of a prefix in key order, as it was at `revision`; `remaining` items follow it."""

    items: list[Item]
    revision: int
    remaining: int


class Change(NamedTuple):
    """One key after a commit; a value of None says deleted."""

    key: bytes
    value: bytes | None
    revision: int


class Batch(NamedTuple):
    """Changes in revision order, complete up to `revision`; may be empty (progress)."""

    revision: int
    changes: list[Change]


class Changed(Exception):
    """A commit met keys that are not as expected; nothing was written.

    `current` holds what the commit's keys are now (None: no such key).
    """

    def __init__(self, current: Mapping[bytes, Item | None]) -> None:
        super().__init__(f"keys changed: {', '.join(k.decode() for k in current)}")
        self.current = current


class Watch(Protocol):
    """An open watch: iterate over it for batches. Raises raftkv.errors.Compacted."""

    def __aiter__(self) -> AsyncIterator[Batch]: ...

    async def request_progress(self) -> None:
        """Ask for an early batch, empty if need be, that tells how far this watch is."""
        ...


class Store(Protocol):
    """Errors: those of raftkv.errors; in particular UnknownOutcome for a commit whose answer
    was lost. Reads wait for a quorum as long as the caller lets them."""

    async def current_revision(self) -> int:
        """A revision that covers every commit acknowledged before the call (linearizable)."""
        ...

    async def get(self, key: bytes) -> Item | None:
        """Linearizable."""
        ...

    async def page(self, start: bytes, end: bytes, limit: int = 0, revision: int = 0) -> Page:
        """Keys in [start, end) at `revision` (0: newest, linearizable), at most `limit` (0: all).

        Raises Compacted or FutureRevision.
        """
        ...

    async def commit(self, writes: Sequence[Write]) -> int:
        """Write all or nothing; the commit's revision. Raises Changed."""
        ...

    async def compact(self, revision: int) -> None:
        """Forget what was overwritten before `revision`. Raises Compacted if already done."""
        ...

    def watch(self, prefix: bytes, start_revision: int) -> AbstractAsyncContextManager[Watch]:
        """Every change of keys with the prefix from that revision on, in order, none missing."""
        ...


def prefix_end(prefix: bytes) -> bytes:
    """The first key after all keys with this prefix (which does not end in 0xff)."""
    assert prefix
    assert prefix[-1] < 255
    return prefix[:-1] + bytes([prefix[-1] + 1])
