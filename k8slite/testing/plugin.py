"""The plugin that pytest finds where k8slite is installed: a real cluster for a run's tests.

    def test_my_operator(k8slite_cluster):
        k8slite_cluster.kubectl("apply", "-f", "crd.yaml")

The cluster is started for the first test that asks, and is gone after the last one. Its size is the
command line's, or what `k8slite_config` returns where a conftest.py overrides it. Nothing is
imported, and nothing is started, for tests that do not ask.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from k8slite.testing.processes import ProcessCluster

__all__ = ["k8slite_cluster", "k8slite_config", "pytest_addoption"]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("k8slite", "the cluster of the fixture k8slite_cluster")
    add = group.addoption
    add("--k8slite-control-planes", type=int, default=1, metavar="N", help="default: %(default)s")
    add("--k8slite-nodes", type=int, default=1, metavar="N", help="default: %(default)s")
    add(
        "--k8slite-runtime",
        choices=("auto", "oci", "process", "fake"),
        default="auto",
        help="what pods are (default: containers if they can be had, else processes)",
    )


@pytest.fixture(scope="session")
def k8slite_config(pytestconfig: pytest.Config) -> dict[str, Any]:
    """The arguments of `k8slite.testing.processes.open_processes`."""
    return {
        "control_planes": pytestconfig.getoption("--k8slite-control-planes"),
        "nodes": pytestconfig.getoption("--k8slite-nodes"),
        "runtime": pytestconfig.getoption("--k8slite-runtime"),
    }


@pytest.fixture(scope="session")
def k8slite_cluster(k8slite_config: dict[str, Any]) -> Iterator[ProcessCluster]:
    """One cluster of real processes for all tests of the run (each worker of xdist has its own)."""
    from k8slite.testing.processes import open_processes

    with open_processes(**k8slite_config) as cluster:
        yield cluster
