"""The store over raftkv: every call is one request to the cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from k8slite.apiserver.config import StoreConfig
from k8slite.apiserver.store.base import (
    ANY,
    Batch,
    Change,
    Changed,
    Item,
    Page,
    Watch,
    Write,
    prefix_end,
)
from raftkv.client.client import KvClient, open_client
from raftkv.client.types import KeyValue, compare, delete_op, get_op, put_op
from raftkv.client.watch import Watch as KvWatch
from raftkv.errors import UnknownOutcome
from raftkv.host import Host

__all__ = ["RaftkvStore", "open_raftkv_store"]


@asynccontextmanager
async def open_raftkv_store(config: StoreConfig, host: Host) -> AsyncIterator[RaftkvStore]:
    """Connects when something is asked; so it can be opened before the store runs."""
    async with open_client(config.endpoints, host.net, tls=config.tls, rng=host.rng) as client:
        yield RaftkvStore(client)


class RaftkvStore:
    """See `Store`."""

    def __init__(self, client: KvClient) -> None:
        self._client = client

    async def current_revision(self) -> int:
        return await self._client.current_revision()

    async def get(self, key: bytes) -> Item | None:
        found = await self._client.get(key)
        return None if found is None else _item(found)

    async def page(self, start: bytes, end: bytes, limit: int = 0, revision: int = 0) -> Page:
        found = await self._client.range(start, end, limit=limit, revision=revision)
        items = [_item(kv) for kv in found.kvs]
        return Page(items, revision or found.revision, found.count - len(items))

    async def commit(self, writes: Sequence[Write]) -> int:
        guarded = [w for w in writes if w.expected != ANY]
        try:
            result = await self._client.txn(
                [compare(w.key, "mod", "=", w.expected) for w in guarded],
                [delete_op(w.key) if w.value is None else put_op(w.key, w.value) for w in writes],
                [get_op(w.key) for w in guarded],
            )
        except UnknownOutcome:
            revision = await self._written(writes)
            if revision is None:
                raise
            return revision
        if result.succeeded:
            return result.revision
        raise Changed(
            {
                w.key: _item(found.kvs[0]) if found.kvs else None
                for w, found in zip(guarded, result.results, strict=True)
            }
        )

    async def _written(self, writes: Sequence[Write]) -> int | None:
        """The revision of a commit whose answer was lost, if it can be seen to have happened.

        Not seeing it proves nothing: it may still be on its way.
        """
        for write in writes:
            if write.value is not None:
                found = await self._client.get(write.key)
                if found is None or found.value != write.value:
                    return None
                return found.mod_revision
        return None

    async def compact(self, revision: int) -> None:
        await self._client.compact(revision)

    @asynccontextmanager
    async def watch(self, prefix: bytes, start_revision: int) -> AsyncIterator[Watch]:
        async with self._client.watch(
            prefix, prefix_end(prefix), start_revision=start_revision, progress=True
        ) as watch:
            yield _RaftkvWatch(watch)


class _RaftkvWatch:
    def __init__(self, watch: KvWatch) -> None:
        self._watch = watch

    def __aiter__(self) -> AsyncIterator[Batch]:
        return self

    async def __anext__(self) -> Batch:
        batch = await self._watch.__anext__()
        return Batch(
            batch.revision,
            [
                Change(kv.key, kv.value if kind == "put" else None, kv.mod_revision)
                for kind, kv, _ in batch.events
            ],
        )

    async def request_progress(self) -> None:
        self._watch.request_progress()


def _item(kv: KeyValue) -> Item:
    return Item(kv.key, kv.value, kv.mod_revision)
