"""The whole cluster in one process: it survives its leaders, and replays from its seed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import trio

from k8slite.api.kinds import CONFIG_MAPS, DEPLOYMENTS, NODES
from k8slite.api.meta import Obj
from k8slite.api.status import ApiError
from k8slite.client.client import Client
from k8slite.client.informer import open_informer
from k8slite.testing import ClusterConfig, SimCluster, run_cluster
from netsim.hosts import SimHost
from tests.testing.scenarios import evictions, running_pods, web


def test_it_survives_its_leaders_and_a_node() -> None:
    after = run_cluster(1, evictions).result
    assert after["raft"] < 10
    assert after["scheduler"] < 40
    assert after["controller-manager"] < 40
    # 40 seconds until the node is given up, 300 until its pods are.
    assert 330 < after["node"] < 400


def test_one_seed_is_one_run_in_two_processes() -> None:
    hashes = []
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-m", "tests.testing.scenarios", "evictions", "2"],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=100,
        )
        hashes.append(done.stdout.strip())
    assert len(hashes[0]) == 32
    assert hashes[0] == hashes[1]


async def test_the_fixture_gives_a_cluster(cluster: SimCluster) -> None:
    nodes = await cluster.client().list(NODES)
    assert [node["metadata"]["name"] for node in nodes.items] == ["node-1", "node-2"]


async def create_once(cluster: SimCluster, obj: Obj) -> bool:
    """Create it; an attempt whose answer was lost may have done so."""
    try:
        await cluster.client().create(DEPLOYMENTS, obj)
    except ApiError as error:
        return error.reason == "AlreadyExists"
    return True


@pytest.mark.parametrize("seed", range(3))
def test_an_apiserver_that_is_cut_off_is_left(seed: int) -> None:
    async def scenario(cluster: SimCluster) -> None:
        with cluster.isolate("apiserver-1"):
            with trio.fail_after(120):
                await cluster.eventually(lambda: create_once(cluster, web(2)))

            async def two() -> bool:
                return len(await running_pods(cluster)) == 2

            with trio.fail_after(300):
                await cluster.eventually(two)

    run_cluster(seed, scenario, ClusterConfig(nodes=1))


async def label_config_maps(client: Client, host: SimHost) -> None:
    """An operator: every config map gets a label."""
    async with open_informer(client, CONFIG_MAPS, host, "default") as informer:
        await informer.wait_synced()
        while True:
            for config_map in informer.list():
                if "seen" not in config_map["metadata"].get("labels", {}):
                    patch = {"metadata": {"labels": {"seen": "yes"}}}
                    name = config_map["metadata"]["name"]
                    await client.patch(CONFIG_MAPS, name, "default", patch)
            await trio.sleep(1)


def test_an_operator_under_test_is_killed_and_catches_up() -> None:
    async def scenario(cluster: SimCluster) -> None:
        client = cluster.client()

        async def create(number: int) -> None:
            metadata = {"name": f"m{number}", "namespace": "default"}
            await client.create(
                CONFIG_MAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
            )

        async def all_seen() -> bool:
            listed = await client.list(CONFIG_MAPS, "default")
            return all("seen" in obj["metadata"].get("labels", {}) for obj in listed.items)

        cluster.run("operator", label_config_maps)
        await create(1)
        with trio.fail_after(60):
            await cluster.eventually(all_seen)
        cluster.crash("operator", power=False)
        await create(2)
        await trio.sleep(60)
        assert not await all_seen()
        await cluster.restart("operator")
        with cluster.isolate("apiserver-2"), trio.fail_after(300):
            await cluster.eventually(all_seen)

    run_cluster(1, scenario, ClusterConfig(nodes=0))


def test_users_have_the_rights_of_their_groups() -> None:
    async def scenario(cluster: SimCluster) -> None:
        async with cluster.open_client_as("alice") as alice:
            with pytest.raises(ApiError, match="alice"):
                await alice.list(NODES)
        async with cluster.open_client_as("bob") as bob:
            await bob.list(NODES)

    users = {"alice": (), "bob": ("system:masters",)}
    run_cluster(1, scenario, ClusterConfig(nodes=0, users=users))
