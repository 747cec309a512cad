"""One cluster for all clients: a control plane, and two nodes whose pods are processes."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from tests.cluster.real import Cluster, cluster


@pytest.fixture(scope="package")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("home"), "clients") as made:
        made.must(
            "up", "--detach", "--fast", "--runtime", "process", "--control-planes", "1"
        )  # fmt: skip
        yield made


@pytest.fixture(autouse=True)
def tidy() -> Iterator[None]:
    """What a client leaves open is noticed in its own test, which may ignore it."""
    yield
    gc.collect()
