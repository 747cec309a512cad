"""Leases kept alive, and elections whose winners are fenced."""

from __future__ import annotations

from pathlib import Path

import trio

from netsim.world import World, run
from raftkv.client import put_op
from raftkv.client.election import current_leader, open_candidacy
from raftkv.client.lease import open_lease
from tests.server.support import client_of, open_cluster
from tests.sim.members import cluster as simulated_cluster


def test_lease_lives_with_its_block() -> None:
    async def scenario(world: World) -> None:
        async with simulated_cluster(world) as (_, kv):
            async with open_lease(kv, 2) as lease:
                await kv.put(b"k", b"v", lease.id)
                await trio.sleep(60)
                assert not lease.lost.is_set()
                assert await kv.get(b"k") is not None
            assert await kv.get(b"k") is None

    run(1, scenario)


async def test_lease_that_is_revoked_is_lost(tmp_path: Path) -> None:
    async with open_cluster(tmp_path, 1) as cluster, client_of(cluster) as kv:
        async with open_lease(kv, 1) as lease:
            await kv.lease_revoke(lease.id)
            await lease.lost.wait()


async def test_one_leads_after_the_other(tmp_path: Path) -> None:
    async with open_cluster(tmp_path, 1) as cluster, client_of(cluster) as kv:
        order: list[tuple[int, int]] = []
        leading: list[int] = []

        async def stand(number: int) -> None:
            async with open_candidacy(kv, b"post", b"%d" % number) as leadership:
                leading.append(number)
                assert leading == [number], "never two"
                leader = await current_leader(kv, b"post")
                assert leader is not None
                assert leader.value == b"%d" % number
                done = await kv.txn([leadership.still_leading()], [put_op(b"work", b"")])
                assert done.succeeded
                order.append((leadership.revision, number))
                leading.remove(number)

        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(stand, number)
        assert order == sorted(order), "in the order of their tokens"


async def test_a_deposed_leader_is_fenced(tmp_path: Path) -> None:
    async with open_cluster(tmp_path, 1) as cluster, client_of(cluster) as kv:
        async with open_candidacy(kv, b"post", b"old") as old:
            await kv.lease_revoke(old.lease.id)
            async with open_candidacy(kv, b"post", b"new") as new:
                assert new.revision > old.revision
                late = await kv.txn([old.still_leading()], [put_op(b"work", b"late")])
                assert not late.succeeded
