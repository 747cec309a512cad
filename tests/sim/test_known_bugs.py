"""Bugs that other stores had, each as a story of a whole cluster under the name of its test.

Those of the core alone are in tests/raft/test_reliability*.py, those of the log file in
tests/storage, those of the state machine in tests/mvcc, those of the client in tests/raftkv_client.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable

import attrs
import pytest
import trio

from netsim.disk import SimDisk
from netsim.world import World, run
from raftkv.cli.hashing import _hash
from raftkv.client import KvClient, open_client
from raftkv.client.lease import open_lease
from raftkv.errors import Corrupt, FutureRevision, LeaseNotFound, NotApplied, UnknownOutcome
from raftkv.host import Address
from raftkv.raft.messages import Entry
from tests.checkers.agreement import Agreement
from tests.sim.members import CLIENT_PORT, Members, cluster, observed, replayed
from tests.sim.test_kv_faults import followers, insist, leader_of


async def wait_running(members: Members, name: str) -> None:
    with trio.fail_after(60):
        while name not in members.running:
            await trio.sleep(0.05)


async def wait_equal(members: Members) -> None:
    """Until all members hold the same."""
    with trio.fail_after(60):
        while True:
            replicas = [server.replica for server in members.running.values()]
            states = {(replica.applied, replica.machine.hash()) for replica in replicas}
            if len(replicas) == len(members.names) and len(states) == 1:
                return
            await trio.sleep(0.1)


def short_logs(every: int) -> Callable[[Members], None]:
    """Snapshots often, and nothing kept behind them."""

    def configure(members: Members) -> None:
        for name, config in members.configs.items():
            members.configs[name] = attrs.evolve(config, snapshot_entries=every, catch_up_entries=0)

    return configure


# -- A. state machine and consistency -------------------------------------------------------------


CRASHES = 20


@pytest.mark.parametrize("first", range(0, CRASHES, 10))
def test_applied_index_atomic_with_data(first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """etcd#13766: a crash at every operation on the disk, while entries are applied and snapshots
    made of them; after the restart every entry has been applied once, on every member."""
    for crash_at in range(first, first + 10):
        log: dict[int, Entry] = {}
        with observed(Agreement(), Counter(), log):
            run(crash_at, _crash_in_apply(3 + 3 * crash_at, log, monkeypatch))


def _crash_in_apply(
    crash_at: int, log: dict[int, Entry], monkeypatch: pytest.MonkeyPatch
) -> Callable[[World], object]:
    async def scenario(world: World) -> None:
        async with cluster(world, configure=short_logs(4)) as (
            members,
            kv,
        ):
            victim = followers(members)[0] if crash_at % 4 else leader_of(members)
            steps = 0
            with monkeypatch.context() as patch:

                def counted(name: str) -> None:
                    right = getattr(SimDisk, name)

                    def operation(disk: SimDisk, *args: object) -> object:
                        nonlocal steps
                        if disk in world.hosts[victim].platters():
                            steps += 1
                            if steps == crash_at:
                                world.crash(victim)
                        return right(disk, *args)

                    patch.setattr(SimDisk, name, operation)

                for name in ("append", "sync", "rename", "delete"):
                    counted(name)
                for number in range(25):
                    with trio.fail_after(60):
                        await insist(kv, b"counted", b"%d" % number)
            assert steps >= crash_at, "the crash never came"
            await world.restart(victim)
            await wait_running(members, victim)
            await insist(kv, b"last", b"")
            await wait_equal(members)
            wanted = replayed(log)
            for server in members.running.values():
                machine = server.replica.machine
                pair = machine.range(b"counted").kvs[0]
                assert (machine.revision, pair[4]) == (
                    wanted.revision,
                    wanted.live[b"counted"].version,
                )

    return scenario


def test_corruption_check_failure_is_not_pass() -> None:
    """The 3.5 postmortem: a member that cannot be asked is unproven, never equal."""

    async def scenario(world: World) -> None:
        async with cluster(world) as (members, kv):
            arguments = argparse.Namespace(timeout=4.0, output="json")
            await insist(kv, b"k", b"v")
            await wait_equal(members)
            assert await _hash(kv, arguments) == 0
            victim = followers(members)[0]
            world.crash(victim)
            assert await _hash(kv, arguments) == 3
            await world.restart(victim)
            await wait_running(members, victim)
            await wait_equal(members)
            store = members.running[victim].replica.machine.store
            kind, pair, before = store._log[-1][0]
            store._log[-1] = ((kind, (pair[0], b"changed", *pair[2:]), before),)
            assert await _hash(kv, arguments) == 1

    run(1, scenario)


@pytest.mark.parametrize("leader_differs", [False, True])
def test_a_member_that_differs_is_noticed_by_itself(leader_differs: bool) -> None:
    """The same postmortem: the check is on by default. A member that applied something else than
    its leader ends, and is made anew from its log; where it's the leader, nobody is stuck."""

    def often(members: Members) -> None:
        for name, config in members.configs.items():
            members.configs[name] = attrs.evolve(config, check_seconds=1.0)
        members.exits = (*members.exits, Corrupt)

    async def scenario(world: World) -> None:
        async with cluster(world, configure=often) as (members, kv):
            leader = leader_of(members)
            odd = leader if leader_differs else followers(members)[0]
            for number in range(10):
                await insist(kv, b"k", b"%d" % number)
                await trio.sleep(0.3)
            assert all(world.hosts[name].alive for name in members.names)
            members.running[odd].replica.machine.store.digest ^= 1
            died: dict[str, int] = {}
            for number in range(60):
                await insist(kv, b"k", b"%d" % number)
                await trio.sleep(0.3)
                for name in members.names:
                    if not world.hosts[name].alive:
                        died[name] = died.get(name, 0) + 1
                        await world.restart(name)
            if leader_differs:
                world.crash(odd)
                await world.restart(odd)
                assert sorted([*died, odd]) == members.names
            else:
                assert died == {odd: 1}
            await wait_equal(members)
            digests = {server.replica.machine.digest for server in members.running.values()}
            assert len(digests) == 1

    run(1, scenario)


def test_permission_change_deterministic() -> None:
    """etcd#14571: nothing that members may be set up differently for decides inside of apply.

    There are no users here; there is a quota: it is the leader's, asked before the proposal.
    """

    def quotas(members: Members) -> None:
        for number, (name, config) in enumerate(members.configs.items()):
            members.configs[name] = attrs.evolve(config, quota_bytes=10 ** (2 + 2 * number))

    async def scenario(world: World) -> None:
        async with cluster(world, configure=quotas) as (members, kv):
            with trio.fail_after(60):
                while members.leader() != "m3":
                    await kv.move_leader(3)
                    await trio.sleep(1)
            for number in range(20):
                await kv.put(b"k%d" % number, bytes(1000))
            await wait_equal(members)

    run(1, scenario)


@pytest.mark.parametrize("power", [True, False])
def test_consistent_index_after_snapshot(power: bool) -> None:
    """etcd#13933, #20426: what a leader's snapshot says of its place counts, not what was here."""

    async def scenario(world: World) -> None:
        async with cluster(world, configure=short_logs(10)) as (
            members,
            kv,
        ):
            lagging = followers(members)[0]
            await insist(kv, b"before", b"")
            with world.isolate(lagging):
                for number in range(60):
                    await insist(kv, b"k%d" % (number % 7), b"%d" % number)
            log = members.running[lagging].snapshots
            old = log.index
            with trio.fail_after(60):
                while members.running[lagging].snapshots.index <= max(old, 40):
                    await trio.sleep(0.01)
            replica = members.running[lagging].replica
            snapshot = replica.node.status().snapshot_index
            assert replica.applied >= snapshot == members.running[lagging].snapshots.index
            world.crash(lagging, power=power)
            del members.running[lagging]
            await world.restart(lagging)
            await wait_running(members, lagging)
            again = members.running[lagging].replica
            assert again.node.status().snapshot_index >= snapshot
            assert again.applied >= snapshot
            await wait_equal(members)

    run(3, scenario)


def test_split_brain_after_wipe() -> None:
    """etcd#14143: it may have acknowledged what it no longer has; with it there's no majority."""

    async def scenario(world: World) -> None:
        async with cluster(world) as (members, kv):
            wiped, down = followers(members)
            await kv.put(b"k", b"v")
            await trio.sleep(1)
            world.crash(wiped)
            world.hosts[wiped].platter("data").wipe()
            world.crash(down)
            await world.restart(wiped)
            with trio.move_on_after(30) as scope:
                await insist(kv, b"k", b"w")
            assert scope.cancelled_caught

    run(1, scenario)


# -- E. leases ------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_clock_jump_on_leader(jump: float) -> None:
    """A wall clock that jumps by an hour ends no lease, and keeps none alive."""

    async def scenario(world: World) -> None:
        async with cluster(world) as (members, kv):
            kept, left = await kv.lease_grant(5), await kv.lease_grant(5)
            granted = world.time()
            await kv.put(b"kept", b"", kept)
            await kv.put(b"left", b"", left)
            for _ in range(10):
                await trio.sleep(0.4)
                for host in members.names:
                    world.hosts[host].clock_offset += jump
                await kv.lease_keep_alive(kept)
                assert (await kv.get(b"left") is None) == (world.time() > granted + 5)
            await trio.sleep(3)
            assert await kv.get(b"kept") is not None
            assert await kv.get(b"left") is None

    run(1, scenario)


@pytest.mark.parametrize("seed", range(5))
def test_keepalive_vs_grant(seed: int) -> None:
    """etcd#13932: a renewal through any member right after the grant finds the lease."""

    async def scenario(world: World) -> None:
        async with cluster(world) as (members, kv):
            host = world.host("other")
            for name in members.names:
                near = [Address(name, CLIENT_PORT)]
                async with open_client(
                    [*near, *members.endpoints], host.net, rng=host.rng
                ) as other:
                    await other.current_revision()
                    for _ in range(10):
                        lease = await kv.lease_grant(5)
                        assert await other.lease_keep_alive(lease) == 5

    run(seed, scenario)


@pytest.mark.parametrize("seed", range(3))
def test_expired_key_deleted(seed: int) -> None:
    """etcd#10686, #9935: leases end over changes of leader and restarts of everybody."""

    async def scenario(world: World) -> None:
        async with cluster(world) as (members, kv):
            leases = []
            for number in range(12):
                lease = await kv.lease_grant(2 + number % 5)
                leases.append(lease)
                await kv.put(b"l/%d" % number, b"", lease)
                if number % 4 == 3:
                    victim = leader_of(members)
                    world.crash(victim)
                    await insist(kv, b"k", b"")
                    await world.restart(victim)
            for name in members.names:
                world.crash(name)
            for name in members.names:
                await world.restart(name)
            with trio.fail_after(60):
                await insist(kv, b"k", b"")
                while (await kv.range(b"l/", b"l0")).count or await kv.leases():
                    await trio.sleep(0.2)
            for lease in leases:
                with pytest.raises(LeaseNotFound):
                    await kv.lease_keep_alive(lease)

    run(seed, scenario)


def test_old_leader_cannot_revoke() -> None:
    """etcd#15247: a leader that was stopped for long wakes up and finds all leases overdue; they
    were renewed at another one meanwhile, and stay."""

    async def scenario(world: World) -> None:
        async with cluster(world) as (members, kv):
            old = leader_of(members)
            async with open_lease(kv, 15) as lease:
                await kv.put(b"k", b"v", lease.id)
                world.pause(old)
                await trio.sleep(30)
                assert members.leader() != old
                world.resume(old)
                await trio.sleep(10)
                assert not lease.lost.is_set()
                assert await kv.get(b"k") is not None

    run(2, scenario)


# -- F. clients -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_endpoint_switch_no_back_in_time(seed: int) -> None:
    """A client that is moved from member to member never reads older than it has read."""

    async def scenario(world: World) -> None:
        async with cluster(world) as (members, kv):
            host = world.host("reader")
            stop = trio.Event()

            async def write() -> None:
                number = 0
                while not stop.is_set():
                    number += 1
                    await insist(kv, b"k", b"%d" % number)
                    await trio.sleep(0.1)

            async def read() -> None:
                newest = 0
                async with open_client(members.endpoints, host.net, rng=host.rng) as reader:
                    for turn in range(40):
                        name = members.names[turn % 3]
                        with world.partition("reader", name):
                            with trio.move_on_after(3):
                                found = await reader.range(b"k")
                                assert found.revision >= newest
                                newest = found.revision
                        await trio.sleep(0.1)
                stop.set()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(write)
                nursery.start_soon(read)

    run(seed, scenario)


def test_pause_client() -> None:
    """etcd#14891: a client that was stopped for long goes on: its watch has lost nothing, its
    lease is gone and says so."""

    async def scenario(world: World) -> None:
        async with cluster(world) as (members, kv):
            host = world.host("sleeper")
            seen: list[int] = []
            lost: list[bool] = []

            async def sleeper() -> None:
                async with open_client(members.endpoints, host.net, rng=host.rng) as own:
                    async with open_lease(own, 3) as lease:
                        async with own.watch(b"k", start_revision=1) as watch:
                            async for batch in watch:
                                seen.extend(event.kv.mod_revision for event in batch.events)
                                if len(seen) == 30:
                                    break
                        await lease.lost.wait()
                        lost.append(await own.get(b"k") is not None)

            host.start(sleeper)
            revisions = []
            for number in range(30):
                if number == 10:
                    world.pause(host)
                if number == 20:
                    await trio.sleep(30)
                revisions.append(await kv.put(b"k", b"%d" % number))
            world.resume(host)
            with trio.fail_after(60):
                while not lost:
                    await trio.sleep(0.1)
            assert seen == revisions

    run(1, scenario)


async def _hash_at(kv: KvClient, address: Address, revision: int) -> tuple[int, int, int] | None:
    try:
        return await kv.hash(address, revision)
    except (FutureRevision, NotApplied, UnknownOutcome):
        return None


def test_two_snapshots_fast() -> None:
    """etcd#18055: a second snapshot comes before the follower has made anything of the first."""

    async def scenario(world: World) -> None:
        async with cluster(world, configure=short_logs(5)) as (
            members,
            kv,
        ):
            lagging = followers(members)[0]
            for turn in range(6):
                with world.isolate(lagging):
                    for number in range(12):
                        await insist(kv, b"k%d" % number, b"%d" % turn)
                with world.slow_disk(lagging, 0.3):
                    for number in range(12):
                        await insist(kv, b"k%d" % number, b"%d" % turn)
            await wait_equal(members)
            revision = await kv.current_revision()
            hashes = [await _hash_at(kv, endpoint, revision) for endpoint in members.endpoints]
            assert len(set(hashes)) == 1
            assert hashes[0] is not None

    run(4, scenario)
