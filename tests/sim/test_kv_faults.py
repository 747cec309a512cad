"""Single faults of which the swarm's dice say too little, each with what must come of it."""

from __future__ import annotations

import pytest
import trio

from netsim.world import World, run
from raftkv.client import KvClient, open_client
from raftkv.errors import UnknownOutcome, WalDamaged
from raftkv.host import Address
from tests.sim.members import CLIENT_PORT, Members, cluster


async def insist(kv: KvClient, key: bytes, value: bytes) -> None:
    """Write until it is known to be done."""
    while True:
        try:
            with trio.move_on_after(5):
                await kv.put(key, value)
                return
        except UnknownOutcome:
            await trio.sleep(0.1)


def followers(members: Members) -> list[str]:
    return [name for name in members.names if name != members.leader()]


def leader_of(members: Members) -> str:
    leader = members.leader()
    assert leader is not None
    return leader


@pytest.mark.parametrize("seed", range(5))
def test_clients_leave_a_member_that_stands_still(seed: int) -> None:
    """Found by seed 6: the kernel of a stopped process accepts connections for ever."""

    async def scenario(world: World) -> None:
        async with cluster(world) as (members, kv):
            world.pause("m1")
            with trio.fail_after(30):
                await kv.range(b"begin")
                await kv.range(b"begin", serializable=True)
            assert members.leader() is not None

    run(seed, scenario)


@pytest.mark.parametrize("seed", range(3))
def test_clients_leave_all_members_that_stand_still(seed: int) -> None:
    """Found by seed 650: of two stopped members out of five each was forgiven before the other was
    left, and the three that worked were never asked."""

    async def scenario(world: World) -> None:
        async with cluster(world, size=5) as (_, kv):
            world.pause("m1")
            world.pause("m2")
            with trio.fail_after(60):
                await kv.range(b"begin")
                await insist(kv, b"k", b"v")
                await kv.range(b"begin", serializable=True)

    run(seed, scenario)


@pytest.mark.parametrize("seed", range(5))
def test_a_leader_that_wakes_up_tells_no_old_news(seed: int) -> None:
    async def scenario(world: World) -> None:
        async with cluster(world) as (members, kv):
            old = leader_of(members)
            reader = world.host("reader")
            async with open_client([Address(old, CLIENT_PORT)], reader.net, rng=reader.rng) as near:
                await near.put(b"k", b"1")
                world.pause(old)
                with trio.fail_after(60):
                    await insist(kv, b"k", b"2")
                answers: list[bytes] = []

                async def read() -> None:
                    found = await near.get(b"k")
                    assert found is not None
                    answers.append(found.value)

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(read)
                    await trio.sleep(0.1)
                    world.resume(old)
                assert answers == [b"2"]

    run(seed, scenario)


def test_a_leader_whose_disk_hangs_gives_way() -> None:
    async def scenario(world: World) -> None:
        async with cluster(world) as (members, kv):
            old = leader_of(members)
            with world.hung_disk(old):
                with trio.fail_after(30):
                    await insist(kv, b"k", b"v")
                assert members.leader() != old

    run(1, scenario)


def test_a_member_whose_disk_fails_ends_and_the_others_go_on() -> None:
    async def scenario(world: World) -> None:
        async with cluster(world) as (members, kv):
            victim = followers(members)[0]
            with world.full_disk(victim):
                with trio.fail_after(30):
                    await insist(kv, b"k", b"v")
                await trio.sleep(1)
                assert not world.hosts[victim].alive
            await world.restart(victim)
            with trio.fail_after(30):
                while victim not in members.running:
                    await trio.sleep(0.1)

    run(1, scenario)


def test_a_log_damaged_at_rest_is_refused_by_name() -> None:
    async def scenario(world: World) -> None:
        async with cluster(world) as (members, kv):
            victim = followers(members)[0]
            for number in range(50):
                await kv.put(b"k%d" % number, b"value")
            await trio.sleep(1)
            world.crash(victim)
            disk = world.hosts[victim].platter("data")
            (log,) = [name for name in disk.names() if name.endswith(".wal")]
            disk.flip_bit(log, len(disk.read(log)) * 8 // 2)
            world.hosts[victim].exit_on = ()
            await world.restart(victim)
            await trio.sleep(10)

    with pytest.raises(WalDamaged, match=r"\.wal is damaged at byte"):
        run(1, scenario)
