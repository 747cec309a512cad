"""Members come and go while the cluster runs; on real loopback, in one trio process."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from raftkv.client import KvClient
from raftkv.errors import (
    InvalidRequest,
    LearnerNotReady,
    MemberExists,
    MemberNotFound,
    MemberRemoved,
    TooManyLearners,
    UnhealthyCluster,
    UnknownOutcome,
)
from raftkv.os_host import OsHost
from raftkv.server import ServerConfig, open_server
from raftkv.server.inbox import Inbox
from tests.server.support import Cluster, client_of, open_cluster, put_surely


async def add(cluster: Cluster, kv: KvClient, config: ServerConfig, **options: Any) -> None:
    await kv.member_add(config.id, config.display_name, str(config.peer_address), **options)
    await cluster.start(config.id)


async def wait_voters(cluster: Cluster, *voters: int) -> None:
    """Until every running member counts these as the voters."""
    while any(server.status()["members"] != [*voters] for server in cluster.servers.values()):
        await trio.sleep(0.01)


async def put_and_agree(cluster: Cluster, kv: KvClient) -> None:
    await put_surely(kv, b"last")
    await cluster.wait_applied()
    assert len({server.replica.machine.hash() for server in cluster.servers.values()}) == 1


async def test_single_member_grows_to_three(tmp_path: Path) -> None:
    async with open_cluster(tmp_path, 1, peers=None) as cluster, client_of(cluster) as kv:
        await put_surely(kv, b"before")
        for member in (2, 3):
            await add(cluster, kv, cluster.join(member, tmp_path))
            await wait_voters(cluster, *range(1, member + 1))
        await put_and_agree(cluster, kv)
        rows = await kv.members()
        assert [(row["id"], row["name"], row["learner"]) for row in rows] == [
            (1, "member-1", False),
            (2, "member-2", False),
            (3, "member-3", False),
        ]
        for row in rows:
            config = cluster.configs[row["id"]]
            assert row["client_address"] == str(config.client_address)
            assert row["peer_address"] == str(config.peer_address)


async def test_a_tick_between_proposal_and_commit_forgets_no_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The leader, which publishes what members tell of themselves, knew the new id alone then."""
    async with open_cluster(tmp_path, 1, peers=None) as cluster, client_of(cluster) as kv:
        await cluster.wait_leader()
        call = Inbox.call

        def call_and_tick(self: Inbox, function: Any) -> None:
            monkeypatch.undo()
            call(self, function)
            self.tick()

        monkeypatch.setattr(Inbox, "call", call_and_tick)
        await kv.member_add(2, "member-2", "127.0.0.1:2", learner=True)
        await kv.put(b"k", b"v")
        row = (await kv.members())[1]
        assert (row["name"], row["peer_address"]) == ("member-2", "127.0.0.1:2")


async def test_joined_member_restarts_without_being_told_of_the_others(tmp_path: Path) -> None:
    async with open_cluster(tmp_path, 3) as cluster, client_of(cluster) as kv:
        await add(cluster, kv, cluster.join(4, tmp_path))
        await wait_voters(cluster, 1, 2, 3, 4)
        await cluster.stop(4)
        config = attrs.evolve(cluster.configs[4], peers={}, peer_address=None)
        cluster.configs[4] = config
        await cluster.start(4)
        await put_and_agree(cluster, kv)


async def test_member_joins_by_snapshot(tmp_path: Path) -> None:
    options = {"snapshot_entries": 10, "catch_up_entries": 0}
    async with open_cluster(tmp_path, 3, **options) as cluster, client_of(cluster) as kv:
        for number in range(50):
            await kv.put(b"k%d" % (number % 5), b"%d" % number)
        await add(cluster, kv, cluster.join(4, tmp_path))
        await wait_voters(cluster, 1, 2, 3, 4)
        assert cluster.servers[4].status()["snapshot_index"] > 20
        await put_and_agree(cluster, kv)


@pytest.mark.parametrize("who", ["leader", "follower"])
async def test_removed_member_stops_and_stays_away(tmp_path: Path, who: str) -> None:
    async with open_cluster(tmp_path, 3) as cluster, client_of(cluster) as kv:
        await put_surely(kv, b"k")
        leader = (await cluster.wait_leader()).id
        gone = leader if who == "leader" else leader % 3 + 1
        with contextlib.suppress(UnknownOutcome):
            await kv.member_remove(gone)
        await cluster.wait_ended(gone)
        assert "permanently removed" in str(cluster.removed[gone])
        assert f"(id {gone})" in str(cluster.removed[gone])
        await put_and_agree(cluster, kv)
        await wait_voters(cluster, *sorted({1, 2, 3} - {gone}))
        with pytest.raises(MemberExists, match="not used again"):
            await kv.member_add(gone, "other", "127.0.0.1:1")
        with pytest.raises(MemberRemoved):
            async with open_server(cluster.configs[gone], OsHost()):
                await trio.sleep(5)


async def test_member_that_was_away_when_it_was_removed_is_told(tmp_path: Path) -> None:
    async with open_cluster(tmp_path, 3) as cluster, client_of(cluster) as kv:
        await put_surely(kv, b"k")
        leader = (await cluster.wait_leader()).id
        away = leader % 3 + 1
        await cluster.stop(away)
        await kv.member_remove(away)
        await cluster.start(away)
        await cluster.wait_ended(away)
        assert away in cluster.removed
        await put_and_agree(cluster, kv)


async def test_learner_is_promoted_when_it_has_caught_up(tmp_path: Path) -> None:
    async with open_cluster(tmp_path, 3) as cluster, client_of(cluster) as kv:
        config = cluster.join(4, tmp_path)
        await kv.member_add(4, "m4", str(config.peer_address), learner=True)
        with pytest.raises(LearnerNotReady):
            await kv.member_promote(4)
        await cluster.start(4)
        await put_and_agree(cluster, kv)
        await wait_voters(cluster, 1, 2, 3)
        assert [row["learner"] for row in await kv.members()] == [False, False, False, True]
        while True:
            with contextlib.suppress(LearnerNotReady):
                await kv.member_promote(4)
                break
        await wait_voters(cluster, 1, 2, 3, 4)


async def test_what_is_refused(tmp_path: Path) -> None:
    async with open_cluster(tmp_path, 3) as cluster, client_of(cluster) as kv:
        await put_surely(kv, b"k")
        taken = str(cluster.configs[2].peer_address)
        for member, name, address in (
            (1, "new", "127.0.0.1:1"),
            (4, "member-2", "127.0.0.1:1"),
            (4, "m4", taken),
        ):
            with pytest.raises(MemberExists):
                await kv.member_add(member, name, address)
        with pytest.raises(InvalidRequest, match="HOST:PORT"):
            await kv.member_add(4, "m4", "nowhere")
        with pytest.raises(MemberNotFound):
            await kv.member_remove(9)
        with pytest.raises(MemberNotFound):
            await kv.member_promote(9)
        with pytest.raises(InvalidRequest, match="voter already"):
            await kv.member_promote(2)
        for member in range(4, 8):
            await kv.member_add(member, f"m{member}", f"127.0.0.1:{member}", learner=True)
        with pytest.raises(TooManyLearners):
            await kv.member_add(8, "m8", "127.0.0.1:8")


async def test_removal_that_would_cost_the_majority_is_refused(tmp_path: Path) -> None:
    async with open_cluster(tmp_path, 3) as cluster, client_of(cluster) as kv:
        await put_surely(kv, b"k")
        leader = (await cluster.wait_leader()).id
        down, alive = sorted({1, 2, 3} - {leader})
        await cluster.stop(down)
        while True:  # until the leader's next check it counts as heard of
            progress = cluster.servers[leader].replica.node.status().progress
            if not progress[down].active and progress[alive].active:
                break
            await trio.sleep(0.005)
        with pytest.raises(UnhealthyCluster):
            await kv.member_remove(alive)
        await kv.member_remove(down)
        await put_surely(kv, b"k")


async def test_member_without_a_peer_address_adds_nobody(tmp_path: Path) -> None:
    async with open_cluster(tmp_path, 1) as cluster, client_of(cluster) as kv:
        with pytest.raises(InvalidRequest, match="listens for no peers"):
            await kv.member_add(2, "m2", "127.0.0.1:1")
        with pytest.raises(InvalidRequest, match="last voter"):
            await kv.member_remove(1)


async def test_wiped_member_is_refused_by_those_who_never_met_it(tmp_path: Path) -> None:
    """Its incarnation was published; one who joined later knows it from the table."""
    async with open_cluster(tmp_path, 3) as cluster, client_of(cluster) as kv:
        await put_surely(kv, b"k")
        await cluster.wait_leader()
        while not all(info.incarnation for info in cluster.servers[1].replica.machine.members):
            await trio.sleep(0.01)
        await cluster.stop(3)
        await add(cluster, kv, cluster.join(4, tmp_path))
        await wait_voters(cluster, 1, 2, 3, 4)
        for path in (tmp_path / "member-3").iterdir():
            path.unlink()
        await cluster.start(3)
        await put_surely(kv, b"k")
        await trio.sleep(0.3)
        newest = cluster.servers[4]
        assert 3 not in newest.status()["peers_connected"]
        assert cluster.servers[3].status()["leader"] == 0
