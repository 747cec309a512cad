"""The whole cluster in one process: it survives its leaders, and replays from its seed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import trio

from k8slite.api.kinds import DEPLOYMENTS, NODES
from k8slite.api.meta import Obj
from k8slite.api.status import ApiError
from k8slite.testing import ClusterConfig, SimCluster, run_cluster
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
        with cluster.world.isolate("apiserver-1"):
            with trio.fail_after(120):
                await cluster.eventually(lambda: create_once(cluster, web(2)))

            async def two() -> bool:
                return len(await running_pods(cluster)) == 2

            with trio.fail_after(300):
                await cluster.eventually(two)

    run_cluster(seed, scenario, ClusterConfig(nodes=1))
