"""A store whose values are encrypted where an EncryptionConfiguration says so.

Owns the keys of what was read and would be written otherwise now (with a newer key, or not in
plain): a write that changes nothing is carried out for those all the same.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from k8slite.apiserver.objects import parse_key
from k8slite.apiserver.store.base import Batch, Change, Changed, Item, Page, Store, Watch, Write
from k8slite.apiserver.store.encryption import (
    Chosen,
    Encryption,
    Undecipherable,
    read_encryption,
)
from raftkv.errors import KvError

__all__ = ["EncryptedStore", "Unreadable", "open_encrypted"]


class Unreadable(KvError):
    """A value that can't be decrypted; the text names its key and the reason."""


def open_encrypted(path: str, inner: Store) -> EncryptedStore | None:
    """The store as an EncryptionConfiguration says; None where there is none.

    Raises OSError, and ValueError that names file and field.
    """
    if not path:
        return None
    try:
        return EncryptedStore(inner, read_encryption(Path(path).read_text()))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


class EncryptedStore:
    """See `Store`."""

    def __init__(self, inner: Store, encryption: Encryption) -> None:
        self._inner = inner
        self._encryption = encryption
        self._stale: set[bytes] = set()

    def is_stale(self, key: bytes) -> bool:
        """Would the value that lies there be written otherwise now?"""
        return key in self._stale

    def _chosen(self, key: bytes) -> Chosen:
        group, plural, _ = parse_key(key)
        return self._encryption.of(group, plural)

    def _open(self, key: bytes, stored: bytes) -> bytes:
        try:
            value, stale = self._chosen(key).open(stored, key)
        except Undecipherable as error:
            raise Unreadable(str(error)) from None
        (self._stale.add if stale else self._stale.discard)(key)
        return value

    def _item(self, item: Item) -> Item:
        return item._replace(value=self._open(item.key, item.value))

    def _change(self, change: Change) -> Change:
        if change.value is None:
            self._stale.discard(change.key)
            return change
        return change._replace(value=self._open(change.key, change.value))

    async def current_revision(self) -> int:
        return await self._inner.current_revision()

    async def get(self, key: bytes) -> Item | None:
        found = await self._inner.get(key)
        return None if found is None else self._item(found)

    async def page(self, start: bytes, end: bytes, limit: int = 0, revision: int = 0) -> Page:
        page = await self._inner.page(start, end, limit, revision)
        return page._replace(items=[self._item(item) for item in page.items])

    async def commit(self, writes: Sequence[Write]) -> int:
        sealed = [
            write
            if write.value is None
            else write._replace(value=self._chosen(write.key).seal(write.value, write.key))
            for write in writes
        ]
        try:
            return await self._inner.commit(sealed)
        except Changed as changed:
            current = changed.current.items()
            found = {key: item and self._item(item) for key, item in current}
            raise Changed(found) from None

    async def compact(self, revision: int) -> None:
        await self._inner.compact(revision)

    @asynccontextmanager
    async def watch(self, prefix: bytes, start_revision: int) -> AsyncIterator[Watch]:
        async with self._inner.watch(prefix, start_revision) as watch:
            yield _OpenedWatch(watch, self)

    def opened(self, batch: Batch) -> Batch:
        """A batch as it was before it was encrypted."""
        return batch._replace(changes=[self._change(change) for change in batch.changes])


class _OpenedWatch:
    def __init__(self, watch: Watch, store: EncryptedStore) -> None:
        self._watch = watch
        self._store = store

    def __aiter__(self) -> AsyncIterator[Batch]:
        return self

    async def __anext__(self) -> Batch:
        return self._store.opened(await self._watch.__aiter__().__anext__())

    async def request_progress(self) -> None:
        await self._watch.request_progress()
