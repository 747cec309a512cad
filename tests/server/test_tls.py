"""Mutual TLS between members and for clients: it works, and nothing works without it."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
import trio

from raftkv.client import open_client
from raftkv.os_host import OsHost
from tests.certificates import Authority
from tests.server.support import client_of, open_cluster


async def test_three_members_and_a_client(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "pki")
    tls = authority.tls("member")
    async with open_cluster(tmp_path, 3, tls=tls, peer_tls=tls) as cluster:
        async with client_of(cluster, authority.tls("client")) as kv:
            async with kv.watch(b"k") as watch:
                for number in range(20):
                    await kv.put(b"k", bytes(50_000) + b"%d" % number)
                seen = 0
                while seen < 20:
                    seen += len((await watch.__anext__()).events)
            await cluster.wait_applied()
            leader = await cluster.wait_leader()
            await leader.hand_over()
            assert (await kv.range(b"k")).kvs[0].version == 20


@pytest.mark.parametrize("stranger", ["plain", "other authority"])
async def test_strangers_get_nothing(tmp_path: Path, stranger: str) -> None:
    authority = Authority(tmp_path / "pki")
    tls = None if stranger == "plain" else Authority(tmp_path / "other", "other").tls("client")
    async with open_cluster(tmp_path, 1, tls=authority.tls("member")) as cluster:
        host = OsHost()
        async with open_client(cluster.endpoints, host.net, tls=tls, rng=host.rng) as kv:
            with pytest.raises(trio.TooSlowError), trio.fail_after(0.5):
                await kv.get(b"k")
        async with client_of(cluster, authority.tls("client")) as kv:
            assert await kv.put(b"k", b"v") == 2


async def test_member_without_the_certificate_stays_outside(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path / "pki"), Authority(tmp_path / "other", "other")
    async with open_cluster(tmp_path, 3, peer_tls=authority.tls("member")) as cluster:
        async with client_of(cluster) as kv:
            await kv.put(b"k", b"v")
            await cluster.wait_applied()
            await cluster.stop(3)
            cluster.configs[3] = attrs.evolve(cluster.configs[3], peer_tls=other.tls("member"))
            await cluster.start(3)
            await kv.put(b"k", b"w")
            with trio.move_on_after(0.3):
                while cluster.servers[3].status()["revision"] < 3:
                    await trio.sleep(0.02)
            assert cluster.servers[3].status()["peers_connected"] == []
            assert cluster.servers[3].status()["revision"] < 3
