"""One member on real loopback: every operation end to end, and its restart."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from raftkv.client import compare, delete_op, get_op, prefix_end, put_op
from raftkv.errors import (
    Compacted,
    DuplicateKey,
    EmptyKey,
    FutureRevision,
    LeaseNotFound,
    RequestTooLarge,
)
from tests.server.support import client_of, open_cluster


async def test_keys_and_revisions(tmp_path: Path) -> None:
    async with open_cluster(tmp_path, 1) as cluster, client_of(cluster) as kv:
        assert await kv.current_revision() == 1
        assert await kv.put(b"a", b"1") == 2
        assert await kv.put(b"b", b"2") == 3
        assert await kv.put(b"a", b"3") == 4
        pair = await kv.get(b"a")
        assert pair is not None
        assert pair == (b"a", b"3", 2, 4, 2, 0)
        assert await kv.get(b"missing") is None
        old = await kv.get(b"a", revision=2)
        assert old is not None
        assert old.value == b"1"
        found = await kv.range(b"a", b"\0", limit=1)
        assert ([kv.key for kv in found.kvs], found.count, found.more) == ([b"a"], 2, True)
        assert (await kv.range(b"a", b"\0", keys_only=True)).kvs[0].value == b""
        assert (await kv.range(b"a", b"\0", count_only=True)).count == 2
        assert (await kv.range(b"a", serializable=True)).kvs[0].value == b"3"
        assert await kv.delete(b"a", b"\0") == 2
        await kv.compact(4)
        with pytest.raises(Compacted):
            await kv.get(b"a", revision=3)
        with pytest.raises(FutureRevision):
            await kv.get(b"a", revision=99)
        with pytest.raises(EmptyKey):
            await kv.put(b"", b"")
        with pytest.raises(RequestTooLarge):
            await kv.put(b"k", bytes(2_000_000))


async def test_transactions(tmp_path: Path) -> None:
    async with open_cluster(tmp_path, 1) as cluster, client_of(cluster) as kv:
        create = [compare(b"k", "mod", "=", 0)]
        first = await kv.txn(create, [put_op(b"k", b"v"), put_op(b"l", b"w")], [get_op(b"k")])
        assert (first.succeeded, first.revision) == (True, 2)
        second = await kv.txn(create, [put_op(b"k", b"x")], [get_op(b"k")])
        assert not second.succeeded
        assert second.results[0].kvs[0].value == b"v"
        read = await kv.txn([], [get_op(b"k", b"\0")], [])
        assert read.succeeded
        assert read.results[0].count == 2
        assert await kv.current_revision() == 2
        removed = await kv.txn([], [delete_op(b"k", prev_kv=True)], [])
        assert removed.results[0][1] == 1
        with pytest.raises(DuplicateKey):
            await kv.txn([], [put_op(b"k", b"1"), put_op(b"k", b"2")])


async def test_watch_sees_the_past_and_the_present(tmp_path: Path) -> None:
    async with open_cluster(tmp_path, 1) as cluster, client_of(cluster) as kv:
        for number in range(10):
            await kv.put(b"k%d" % number, b"v")
        seen: list[int] = []
        async with kv.watch(b"k", prefix_end(b"k"), start_revision=2, prev_kv=True) as watch:
            await kv.put(b"k1", b"again")
            await kv.delete(b"k2")
            async for batch in watch:
                seen += [event.kv.mod_revision for event in batch.events]
                if seen[-1] == 13:
                    last = batch.events[-1]
                    break
        assert seen == list(range(2, 14))
        assert last.type == "delete"
        assert last.prev_kv is not None
        assert last.prev_kv.value == b"v"


async def test_watch_progress_on_request(tmp_path: Path) -> None:
    async with open_cluster(tmp_path, 1) as cluster, client_of(cluster) as kv:
        async with kv.watch(b"quiet") as watch:
            revision = await kv.put(b"elsewhere", b"")
            watch.request_progress()
            batch = await watch.__anext__()
            assert batch == (revision, [])


async def test_watch_from_compacted_revision(tmp_path: Path) -> None:
    async with open_cluster(tmp_path, 1) as cluster, client_of(cluster) as kv:
        for _ in range(5):
            await kv.put(b"k", b"v")
        await kv.compact(5)
        with pytest.raises(Compacted) as caught:
            async with kv.watch(b"k", start_revision=3):
                pass
        assert caught.value.compact_revision == 5


async def test_leases(tmp_path: Path) -> None:
    async with open_cluster(tmp_path, 1) as cluster, client_of(cluster) as kv:
        lease = await kv.lease_grant(60)
        await kv.put(b"k", b"v", lease)
        left, granted, keys = await kv.lease_time_to_live(lease)
        assert (left in (59, 60), granted, keys) == (True, 60, [b"k"])
        assert await kv.leases() == [lease]
        assert await kv.lease_keep_alive(lease) == 60
        await kv.lease_revoke(lease)
        assert await kv.get(b"k") is None
        with pytest.raises(LeaseNotFound):
            await kv.lease_keep_alive(lease)
        with pytest.raises(LeaseNotFound):
            await kv.put(b"k", b"v", lease)
        short = await kv.lease_grant(1)
        async with kv.watch(b"k") as watch:
            await kv.put(b"k", b"v", short)
            events = []
            async for batch in watch:
                events += [event.type for event in batch.events]
                if "delete" in events:
                    break
        assert events == ["put", "delete"]


@pytest.mark.parametrize("snapshot_entries", [10_000, 7])
async def test_restart_keeps_everything(tmp_path: Path, snapshot_entries: int) -> None:
    options = {"snapshot_entries": snapshot_entries, "catch_up_entries": 3}
    async with open_cluster(tmp_path, 1, **options) as cluster, client_of(cluster) as kv:
        for number in range(40):
            await kv.put(b"k%02d" % (number % 20), b"%d" % number)
        while snapshot_entries == 7 and not cluster.servers[1].status()["snapshot_index"]:
            await trio.sleep(0.01)
        before = cluster.servers[1].status()
        assert (before["snapshot_index"] > 0) == (snapshot_entries == 7)
        await cluster.stop(1)
        await cluster.start(1)
        after = cluster.servers[1].status()
        assert await kv.current_revision() == before["revision"]
        assert (await kv.range(b"k", b"\0")).count == 20
        pair = await kv.get(b"k07")
        assert pair is not None
        assert (pair.value, pair.version) == (b"27", 2)
        assert cluster.servers[1].status()["digest"] == before["digest"]
        assert after["term"] > 0


async def test_many_requests_in_flight(tmp_path: Path) -> None:
    async with open_cluster(tmp_path, 1) as cluster, client_of(cluster) as kv:
        revisions: list[int] = []

        async def put(number: int) -> None:
            revisions.append(await kv.put(b"%d" % number, b"v"))

        async with trio.open_nursery() as nursery:
            for number in range(500):
                nursery.start_soon(put, number)
        assert sorted(revisions) == list(range(2, 502))
        status = cluster.servers[1].status()
        assert status["entries"] < 100, "proposals of a turn share an entry"
