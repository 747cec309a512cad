"""Watches under pressure: slow readers, compaction behind their backs, members without a leader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from raftkv.client import prefix_end
from raftkv.errors import Compacted
from raftkv.wire.framing import encode
from tests.server.support import client_of, open_cluster
from tests.server.test_sessions import Raw

BIG = bytes(100_000)


async def test_slow_reader_loses_nothing(tmp_path: Path) -> None:
    """One who does not read falls behind at a bounded cost, then gets every event, in order."""
    async with open_cluster(tmp_path, 1) as cluster, client_of(cluster) as kv:
        server = await cluster.wait_leader()
        raw = await Raw.open(cluster, cluster.endpoints[0])
        assert (await raw.ask([2, "watch", 5, b"k", prefix_end(b"k"), 0, 0]))[1] == [1]
        for number in range(200):
            await kv.put(b"k%d" % number, BIG)
        assert server.status()["watches_behind"] == 1
        seen: list[int] = []
        while len(seen) < 200:
            for push in await raw.receive():
                assert push[:3] == [0, 5, "events"]
                seen += [event[1][3] for event in push[4]]
                assert push[3] == seen[-1]
        assert seen == list(range(2, 202))
        assert server.status()["watches_behind"] == 0


async def test_compaction_overtakes_a_slow_reader(tmp_path: Path) -> None:
    """Then its end says so, with the revision from which one could begin again."""
    async with open_cluster(tmp_path, 1) as cluster, client_of(cluster) as kv:
        raw = await Raw.open(cluster, cluster.endpoints[0])
        await raw.ask([2, "watch", 5, b"k", prefix_end(b"k"), 0, 0])
        for number in range(200):
            await kv.put(b"k%d" % number, BIG)
        await kv.compact(201)
        last: list[Any] = []
        while not last:
            last = [push for push in await raw.receive() if push[2] == "canceled"]
        assert last[0][3][:2] == ["error", "Compacted"]
        assert last[0][3][3] == [201]


async def test_periodic_progress_is_never_ahead(tmp_path: Path) -> None:
    async with (
        open_cluster(tmp_path, 1, progress_seconds=0.02) as cluster,
        client_of(cluster) as kv,
    ):
        async with kv.watch(b"k", progress=True) as watch, trio.open_nursery() as nursery:

            async def write() -> None:
                for number in range(100):
                    await kv.put(b"k" if number % 5 else b"other", b"v")
                    if number % 20 == 0:
                        await trio.sleep(0.05)

            nursery.start_soon(write)
            told, bookmarks = 1, 0
            async for batch in watch:
                for event in batch.events:
                    assert event.kv.mod_revision > told
                told = max(told, batch.revision)
                bookmarks += not batch.events
                if told >= 101 and bookmarks >= 3:
                    break
            nursery.cancel_scope.cancel()


async def test_same_events_to_many_watchers(tmp_path: Path) -> None:
    async with open_cluster(tmp_path, 1) as cluster, client_of(cluster) as kv:
        raw = await Raw.open(cluster, cluster.endpoints[0])
        watches = [[10 + n, "watch", n, b"a" if n % 2 else b"k", b"z", 0, n % 2] for n in range(50)]
        await raw.stream.send_all(encode(watches))
        created = 0
        while created < 50:
            created += len(await raw.receive())
        await kv.put(b"k", b"1")
        await kv.put(b"k", b"2")
        pushes: dict[int, list[Any]] = {}
        while sum(map(len, pushes.values())) < 100:
            for push in await raw.receive():
                assert len(push[1]) == 25, "one push for all that are told the same"
                for number in push[1]:
                    pushes.setdefault(number, []).extend(push[4])
        for number, events in pushes.items():
            assert [event[1][1] for event in events] == [b"1", b"2"]
            assert (events[1][2] is not None) == (number % 2 == 1), "prev_kv only where asked for"


async def test_cancelled_watch_is_silent(tmp_path: Path) -> None:
    async with open_cluster(tmp_path, 1) as cluster, client_of(cluster) as kv:
        server = await cluster.wait_leader()
        async with kv.watch(b"k"):
            assert server.status()["watches"] == 1
        await kv.current_revision()
        assert server.status()["watches"] == 0


async def test_future_start_is_silent_until_then(tmp_path: Path) -> None:
    async with open_cluster(tmp_path, 1) as cluster, client_of(cluster) as kv:
        async with kv.watch(b"k", start_revision=5) as watch:
            for number in range(6):
                await kv.put(b"k", b"%d" % number)
            batch = await watch.__anext__()
            assert batch.events[0].kv.mod_revision == 5


async def test_member_without_leader_ends_watches(tmp_path: Path) -> None:
    """A member that is cut off must not let its watchers wait in silence: they go elsewhere."""
    async with open_cluster(tmp_path, 3) as cluster, client_of(cluster) as kv:
        await kv.put(b"k", b"v")
        await cluster.wait_applied()
        leader = await cluster.wait_leader()
        raw = await Raw.open(cluster, leader.client_address)
        await raw.ask([2, "watch", 5, b"k", None, 0, 0])
        for member in list(cluster.servers):
            if member != leader.id:
                await cluster.stop(member)
        said = await raw.receive()
        assert said[0][2] == "canceled"
        assert said[0][3][:2] == ["error", "NoLeader"]


async def test_client_watch_raises_compacted_after_it_fell_behind(tmp_path: Path) -> None:
    async with open_cluster(tmp_path, 1) as cluster, client_of(cluster) as kv:
        async with kv.watch(b"k") as watch:
            await kv.put(b"k", b"1")
            assert (await watch.__anext__()).revision == 2
            await cluster.stop(1)
            await cluster.start(1)
            for _ in range(5):
                await kv.put(b"other", b"v")
            await kv.put(b"k", b"2")
            batch = await watch.__anext__()
            assert [event.kv.value for event in batch.events] == [b"2"]
        await kv.compact(8)
        with pytest.raises(Compacted):
            await kv.watch(b"k", start_revision=4).__aenter__()
