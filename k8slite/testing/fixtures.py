"""pytest fixtures: a cluster for each test that asks for one (with pytest-trio).

    from k8slite.testing.fixtures import *  # in conftest.py; or pytest_plugins

    async def test_it(cluster: SimCluster) -> None:
        client = cluster.client()

Override `cluster_seed` or `cluster_config` in a module or class for another seed or shape. A test
that must give the same trace each time, down to its hash, calls `run_cluster` instead: pytest-trio
runs fixtures and test in tasks of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import trio.testing

from k8slite.testing.cluster import ClusterConfig, SimCluster, open_cluster
from netsim.determinism import seeded_scheduler

__all__ = ["cluster", "cluster_config", "cluster_seed", "seeded_trio"]


@pytest.fixture
def cluster_seed() -> int:
    """What decides everything random."""
    return 0


@pytest.fixture
def cluster_config() -> ClusterConfig:
    """How many of each component, and their timings."""
    return ClusterConfig()


@pytest.fixture
def seeded_trio(cluster_seed: int) -> Iterator[None]:
    """Tasks run in an order that the seed decides."""
    with seeded_scheduler(cluster_seed):
        yield


@pytest.fixture
async def cluster(
    seeded_trio: None,
    cluster_seed: int,
    cluster_config: ClusterConfig,
    autojump_clock: trio.testing.MockClock,
) -> AsyncIterator[SimCluster]:
    """A cluster that works, under virtual time."""
    async with open_cluster(cluster_seed, cluster_config) as opened:
        yield opened
