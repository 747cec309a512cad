"""Three members on real loopback: elections, loss and return of members, watches that survive."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from raftkv.client import open_client
from raftkv.errors import UnknownOutcome
from raftkv.os_host import OsHost
from tests.server.support import client_of, open_cluster, put_surely


async def test_write_on_any_read_on_all(tmp_path: Path) -> None:
    async with open_cluster(tmp_path, 3) as cluster, client_of(cluster) as kv:
        revisions = [await kv.put(b"k%d" % number, b"v") for number in range(20)]
        assert revisions == list(range(2, 22))
        await cluster.wait_applied()
        for address in cluster.endpoints:
            host = OsHost()
            async with open_client([address], host.net, rng=host.rng) as one:
                found = await one.range(b"k", b"\0", serializable=True)
                assert found.count == 20
                pair = await one.get(b"k3")
                assert pair is not None
                assert pair.value == b"v"
        members = await kv.members()
        assert [member["id"] for member in members] == [1, 2, 3]
        assert sum(member["leader"] for member in members) == 1


async def test_leader_stops_and_comes_back(tmp_path: Path) -> None:
    async with open_cluster(tmp_path, 3) as cluster, client_of(cluster) as kv:
        await kv.put(b"before", b"1")
        old = await cluster.wait_leader()
        await cluster.stop(old.id)
        new = await cluster.wait_leader(besides=old.id)
        assert new.id != old.id
        await put_surely(kv, b"during")
        pair = await kv.get(b"before")
        assert pair is not None
        assert pair.value == b"1"
        await cluster.start(old.id)
        await put_surely(kv, b"after")
        await cluster.wait_applied()
        assert len({server.replica.machine.hash() for server in cluster.servers.values()}) == 1


async def test_watch_resumes_over_lost_members(tmp_path: Path) -> None:
    async with open_cluster(tmp_path, 3) as cluster, client_of(cluster) as kv:
        seen: list[tuple[int, bytes]] = []

        async def write() -> None:
            for number in range(60):
                await put_surely(kv, b"w%03d" % number)
                if number in (20, 40):
                    leader = await cluster.wait_leader()
                    await cluster.stop(leader.id)
                    await cluster.wait_leader()
                    await cluster.start(leader.id)

        async with kv.watch(b"w", b"x") as watch, trio.open_nursery() as nursery:
            nursery.start_soon(write)
            async for batch in watch:
                seen += [(event.kv.mod_revision, event.kv.key) for event in batch.events]
                if any(key == b"w059" for _, key in seen):
                    break
        assert sorted({key for _, key in seen}) == [b"w%03d" % n for n in range(60)]
        revisions = [revision for revision, _ in seen]
        assert revisions == sorted(set(revisions)), "ordered, none twice"
        first = revisions[0]
        assert revisions == list(range(first, first + len(revisions))), "no gap"


async def test_follower_catches_up_by_snapshot(tmp_path: Path) -> None:
    options = {"snapshot_entries": 20, "catch_up_entries": 5}
    async with open_cluster(tmp_path, 3, **options) as cluster, client_of(cluster) as kv:
        leader = await cluster.wait_leader()
        follower = next(server for server in cluster.servers.values() if server is not leader)
        await kv.put(b"first", b"v")
        await cluster.stop(follower.id)
        for number in range(100):
            await kv.put(b"k%d" % (number % 10), b"%d" % number)
        await cluster.start(follower.id)
        await cluster.wait_applied()
        assert cluster.servers[follower.id].status()["snapshot_index"] > 20
        assert len({server.replica.machine.hash() for server in cluster.servers.values()}) == 1
        await cluster.stop(follower.id)
        await cluster.start(follower.id)
        await kv.put(b"last", b"v")
        await cluster.wait_applied()


async def test_planned_stop_hands_leadership_over(tmp_path: Path) -> None:
    async with open_cluster(tmp_path, 3) as cluster, client_of(cluster) as kv:
        await kv.put(b"k", b"v")
        leader = await cluster.wait_leader()
        await leader.hand_over()
        new = await cluster.wait_leader()
        assert new.id != leader.id
        assert await kv.put(b"k", b"w") == 3


async def test_no_majority_means_no_answer(tmp_path: Path) -> None:
    async with open_cluster(tmp_path, 3) as cluster, client_of(cluster) as kv:
        await kv.put(b"k", b"v")
        leader = await cluster.wait_leader()
        for member in list(cluster.servers):
            if member != leader.id:
                await cluster.stop(member)
        with pytest.raises((trio.TooSlowError, UnknownOutcome)):
            with trio.fail_after(1):
                await kv.put(b"k", b"w")
        with pytest.raises(trio.TooSlowError), trio.fail_after(0.5):
            await kv.get(b"k")
        old = await kv.get(b"k", serializable=True)
        assert old is not None
        assert old.value == b"v"


async def test_wiped_member_is_refused(tmp_path: Path) -> None:
    async with open_cluster(tmp_path, 3) as cluster, client_of(cluster) as kv:
        await kv.put(b"k", b"v")
        await cluster.wait_applied()
        await cluster.stop(3)
        for path in (tmp_path / "member-3").iterdir():
            path.unlink()
        await cluster.start(3)
        await kv.put(b"k", b"w")
        with trio.move_on_after(0.5):
            while cluster.servers[3].status()["raft_applied"] < 2:
                await trio.sleep(0.02)
        assert cluster.servers[3].status()["leader"] == 0
