"""A whole cluster as root: nodes are network namespaces, pods are containers."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from k8slite.cluster.cleanup import leftovers
from tests.cluster.real import Cluster, cluster, eventually

pytestmark = [pytest.mark.slow, pytest.mark.root, pytest.mark.tool("runc"),
              pytest.mark.tool("iptables-restore")]  # fmt: skip

NAMESPACES = Path("/run/netns")
OCI = ("--fast", "--runtime", "oci", "--control-planes", "1", "--nodes", "1")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("home"), "rooted") as made:
        made.must("up", "--detach", "--fast", "--runtime", "oci", "--nodes", "2")
        yield made


def namespaces(made: Cluster) -> list[str]:
    prefix = f"k8slite.{made.layout.network(made.name)}."
    names = os.listdir(NAMESPACES) if NAMESPACES.is_dir() else []
    return sorted(name.removeprefix(prefix) for name in names if name.startswith(prefix))


def pod(name: str) -> dict[str, Any]:
    container = {"name": "main", "image": "busybox", "command": ["sleep", "1000"]}
    return {"metadata": {"name": name}, "spec": {"containers": [container]}}


def is_running(made: Cluster, name: str) -> bool:
    found = made.get(f"/api/v1/namespaces/default/pods/{name}")
    return bool(found["status"].get("phase") == "Running")


def test_nodes_are_namespaces_and_pods_run_and_come_back(whole: Cluster) -> None:
    assert [name for name in namespaces(whole) if name.startswith(("node", "switch"))] == [
        "node-1", "node-2", "switch",
    ]  # fmt: skip
    whole.get("/api/v1/namespaces/default/pods", pod("sleeper"))
    assert eventually(lambda: is_running(whole, "sleeper"))
    assert any("cgroup" in each for each in leftovers(whole.name, whole.layout))
    whole.must("stop")
    assert leftovers(whole.name, whole.layout) == []
    whole.must("start")
    assert eventually(lambda: is_running(whole, "sleeper"))
    whole.kill_all()
    whole.must("up", "--detach")
    assert eventually(lambda: is_running(whole, "sleeper"))


def test_one_of_the_same_name_in_another_home_is_another(whole: Cluster, tmp_path: Path) -> None:
    with cluster(tmp_path / "home", whole.name) as other:
        other.must("up", "--detach", *OCI)
        assert namespaces(other) != []
        other.write("here")
        assert not whole.has("here")
    assert namespaces(other) == []
    assert whole.all_run()
    assert whole.get("/api/v1/nodes/node-1")


def test_up_that_is_killed_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    with cluster(tmp_path / "home", "cut") as made:
        with made.popen("up", *OCI) as up:
            assert eventually(lambda: bool(namespaces(made)) or up.poll() is not None)
            time.sleep(0.05)
            up.send_signal(signal.SIGKILL)
            up.communicate(timeout=60)
        assert eventually(lambda: not made.layout.is_running())
        assert leftovers(made.name, made.layout) == []
