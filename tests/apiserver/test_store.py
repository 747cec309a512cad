"""One suite for both stores."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
import trio

from k8slite.apiserver.config import StoreConfig
from k8slite.apiserver.store.base import ANY, Changed, Store, Write, prefix_end
from k8slite.apiserver.store.open import open_store
from raftkv.errors import Compacted
from raftkv.host import Address
from raftkv.os_host import OsHost


@asynccontextmanager
async def open_memory(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(StoreConfig(), OsHost("test")) as store:
        yield store


@asynccontextmanager
async def open_raftkv(tmp_path: Path) -> AsyncIterator[Store]:
    from raftkv.server import ServerConfig, open_server

    free = Address("127.0.0.1", 0)
    config = ServerConfig(
        name="one",
        id=1,
        data_dir=str(tmp_path / "data"),
        client_address=free,
        peer_address=free,
        campaign_at_start=True,
        fsync=False,
    )
    host = OsHost("test")
    async with open_server(config, host) as server:
        async with open_store(StoreConfig((server.client_address,)), host) as store:
            yield store


OPENERS = {"memory": open_memory, "raftkv": open_raftkv}


@pytest.fixture(params=list(OPENERS))
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    opened: AbstractAsyncContextManager[Store] = OPENERS[request.param](tmp_path)
    async with opened as running:
        yield running


async def test_a_commit_is_all_or_nothing(store: Store) -> None:
    first = await store.commit([Write(b"/registry/a", b"1", 0), Write(b"/registry/b", b"2", 0)])
    assert await store.current_revision() >= first
    with pytest.raises(Changed) as caught:
        await store.commit([Write(b"/registry/c", b"3", 0), Write(b"/registry/a", b"x", 0)])
    current = caught.value.current
    assert current[b"/registry/c"] is None
    item = current[b"/registry/a"]
    assert item is not None
    assert (item.value, item.revision) == (b"1", first)
    assert await store.get(b"/registry/c") is None


async def test_update_and_delete_need_the_revision(store: Store) -> None:
    key = b"/registry/a"
    first = await store.commit([Write(key, b"1", 0)])
    second = await store.commit([Write(key, b"2", first)])
    assert second > first
    with pytest.raises(Changed):
        await store.commit([Write(key, None, first)])
    await store.commit([Write(key, None, second)])
    assert await store.get(key) is None
    with pytest.raises(Changed) as caught:
        await store.commit([Write(key, b"3", second)])
    assert caught.value.current == {key: None}
    await store.commit([Write(key, None, ANY), Write(b"/registry/b", b"4", ANY)])
    found = await store.get(b"/registry/b")
    assert found is not None
    assert found.value == b"4"


async def test_pages_are_of_one_revision(store: Store) -> None:
    keys = [b"/registry/x/%d" % i for i in range(5)]
    for key in keys:
        revision = await store.commit([Write(key, b"old", 0)])
    end = prefix_end(b"/registry/x/")
    page = await store.page(b"/registry/x/", end, 2)
    assert ([i.key for i in page.items], page.remaining) == (keys[:2], 3)
    assert page.revision == revision
    await store.commit([Write(keys[3], b"new", ANY)])
    rest = await store.page(page.items[-1].key + b"\0", end, 0, page.revision)
    assert [(i.key, i.value) for i in rest.items] == [(key, b"old") for key in keys[2:]]
    assert rest.revision == page.revision


async def test_a_watch_misses_nothing(store: Store) -> None:
    first = await store.commit([Write(b"/registry/a", b"1", 0)])
    second = await store.commit([Write(b"/registry/a", b"2", first)])
    await store.commit([Write(b"/elsewhere", b"0", 0)])
    seen = []
    with trio.fail_after(10):
        async with store.watch(b"/registry/", second) as watch:
            third = await store.commit(
                [Write(b"/registry/a", None, second), Write(b"/registry/b", b"3", 0)]
            )
            async for batch in watch:
                seen += [tuple(change) for change in batch.changes]
                if batch.revision >= third:
                    break
    assert seen[0] == (b"/registry/a", b"2", second)
    assert sorted(seen[1:]) == [(b"/registry/a", None, third), (b"/registry/b", b"3", third)]


async def test_progress_can_be_asked_for(store: Store) -> None:
    async with store.watch(b"/registry/", 0) as watch:
        await store.commit([Write(b"/elsewhere", b"0", 0)])
        revision = await store.current_revision()
        with trio.fail_after(10):
            await watch.request_progress()
            async for batch in watch:
                if batch.revision >= revision:
                    return


async def test_compacted_history_is_an_error(store: Store) -> None:
    key = b"/registry/a"
    first = await store.commit([Write(key, b"1", 0)])
    for i in range(3):
        last = await store.commit([Write(key, b"%d" % i, ANY)])
    await store.compact(last)
    with pytest.raises(Compacted):
        await store.page(key, prefix_end(key), 0, first)

    async def watch_it() -> None:
        async with store.watch(key, first) as watch:
            async for _ in watch:
                pass

    with trio.fail_after(10), pytest.raises(Compacted):
        await watch_it()
