"""Resources of running pods that change: granted, put off, refused, and what the status tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from k8slite.api.kinds import PODS
from k8slite.api.meta import Obj
from k8slite.kubelet.containers.resize import Resize, first_allocated, plan_resize, with_allocated
from k8slite.kubelet.runtime.cgroups import set_limits, weight_of
from k8slite.kubelet.runtime.interface import Resources
from tests.kubelet.test_kubelet_real import open_real, root
from tests.kubelet.world import KubeletApi, container, open_fake_node, pod

__all__ = ["root"]  # the fixture

ROOM = {"cpu": "2", "memory": "1Gi", "pods": "10"}


def asking(cpu: str, *policies: tuple[str, str], uid: str = "u", **more: Any) -> Obj:
    policy = [{"resourceName": name, "restartPolicy": how} for name, how in policies]
    resources = {"requests": {"cpu": cpu}, "limits": {"cpu": cpu, "memory": "64Mi"}}
    one = container("c", resources=resources, resizePolicy=policy)
    return pod(uid=uid, containers=[one], **more)


def test_what_was_granted_is_remembered() -> None:
    old, new = asking("100m"), asking("200m")
    allocated = first_allocated(old)
    assert with_allocated(new, allocated)["spec"] == old["spec"]
    assert with_allocated(old, allocated)["spec"] == old["spec"]
    told = {"name": "c", "resources": {"requests": {"cpu": "1"}}, "state": {"running": {}}}
    new["status"]["containerStatuses"] = [told]
    assert first_allocated(new) == {"c": {"requests": {"cpu": "1"}}}, "by an earlier kubelet"
    told["state"] = {"waiting": {}}
    assert first_allocated(new)["c"]["requests"] == {"cpu": "200m"}


def test_what_is_granted() -> None:
    allocated = first_allocated(asking("100m"))
    assert plan_resize(asking("100m"), allocated, (), ROOM) == Resize()
    assert plan_resize(asking("1"), allocated, (), ROOM) == Resize(None, {"c": False})
    restarts = asking("1", ("cpu", "RestartContainer"))
    assert plan_resize(restarts, allocated, (), ROOM).changed == {"c": True}
    other = asking("1", ("memory", "RestartContainer"))
    assert plan_resize(other, allocated, (), ROOM).changed == {"c": False}


def test_what_is_refused() -> None:
    allocated = first_allocated(asking("100m"))
    never = plan_resize(asking("3"), allocated, (), ROOM)
    assert never.refused == (
        "Infeasible",
        "Node didn't have enough capacity: cpu, requested: 3000, capacity: 2000",
    )
    later = plan_resize(asking("1"), allocated, [asking("1500m")], ROOM)
    assert later.refused == (
        "Deferred",
        "Node didn't have enough resource: cpu, requested: 1000, used: 1500, capacity: 2000",
    )
    assert not later.changed


def test_limits_in_both_layouts(tmp_path: Path) -> None:
    given = Resources(cpu_shares=512, cpu_quota_us=50_000, memory_bytes=4096)
    one = tmp_path / "one"
    for controller in ("cpu", "memory"):
        (one / controller / "g").mkdir(parents=True)
    set_limits("g", given, one)
    assert (one / "cpu/g/cpu.cfs_quota_us").read_text() == "50000"
    assert (one / "cpu/g/cpu.shares").read_text() == "512"
    assert (one / "memory/g/memory.limit_in_bytes").read_text() == "4096"
    set_limits("g", Resources(), one)
    assert (one / "cpu/g/cpu.cfs_quota_us").read_text() == "-1"
    two = tmp_path / "two"
    (two / "g").mkdir(parents=True)
    (two / "cgroup.controllers").touch()
    set_limits("g", given, two)
    assert (two / "g/cpu.max").read_text() == "50000 100000"
    assert (two / "g/memory.max").read_text() == "4096"
    set_limits("g", Resources(), two)
    assert (two / "g/cpu.max").read_text() == "max 100000"
    assert (weight_of(2), weight_of(1024), weight_of(262144)) == (1, 39, 10000)


def change(node: Any, cpu: str, *policies: tuple[str, str]) -> None:
    def update(found: Obj) -> None:
        found["spec"]["containers"] = asking(cpu, *policies)["spec"]["containers"]

    node.api.change(PODS, "default/p", update)


def told(node: Any) -> str:
    cpu: str = node.status()["containerStatuses"][0]["resources"]["requests"]["cpu"]
    return cpu


async def test_in_place_and_put_off(autojump_clock: MockClock) -> None:
    async with open_fake_node(capacity={"cpu": "2"}) as (node, runtime):
        node.api.add(PODS, asking("100m"))
        other = asking("1", uid="other")
        other["metadata"]["name"] = "other"
        node.api.add(PODS, other)
        await node.until(lambda: node.condition("Ready") == "True")
        first = node.status()["containerStatuses"][0]["containerID"]
        change(node, "500m")
        await node.until(lambda: told(node) == "500m")
        assert [update.cpu_quota_us for _, update in runtime.updates] == [50_000]
        assert node.status()["containerStatuses"][0]["containerID"] == first

        change(node, "1500m")
        await node.until(lambda: node.condition("PodResizePending") == "True")
        [condition] = [c for c in node.status()["conditions"] if c["type"] == "PodResizePending"]
        assert condition["reason"] == "Deferred"
        assert told(node) == "500m"
        node.api.end("default/other", 1)
        await node.until(lambda: told(node) == "1500m", 60)
        await node.until(lambda: node.condition("PodResizePending") == "")
        change(node, "5")
        await node.until(lambda: "ResizeInfeasible" in dict(node.api.events()))
        change(node, "100m")
        await node.until(lambda: told(node) == "100m")


async def test_by_a_restart(autojump_clock: MockClock) -> None:
    policy = ("cpu", "RestartContainer")
    async with open_fake_node() as (node, runtime):
        node.api.add(PODS, asking("100m", policy))
        await node.until(lambda: node.condition("Ready") == "True")
        change(node, "200m", policy)
        await node.until(lambda: told(node) == "200m")
        await node.until(lambda: node.status()["containerStatuses"][0]["restartCount"] == 1)
        assert runtime.updates == []
        await trio.sleep(30)
        assert node.status()["containerStatuses"][0]["restartCount"] == 1


def memory_limits(pod_group: str) -> list[str]:
    groups = [p for p in Path("/sys/fs/cgroup").glob(f"**/k8slite-*/{pod_group}/*") if p.is_dir()]
    files = [p / name for p in groups for name in ("memory.limit_in_bytes", "memory.max")]
    return [p.read_text().strip() for p in files if p.exists()]


@pytest.mark.root
@pytest.mark.tool("runc")
async def test_the_kernel_hears_of_it(root: Path) -> None:
    api = KubeletApi()
    async with open_real("oci", root, api) as node:
        made = asking("100m")
        made["spec"]["containers"][0]["command"] = ["sleep", "1000"]
        api.add(PODS, made)
        await node.until(lambda: node.condition("Ready") == "True")

        def update(found: Obj) -> None:
            resources = {"requests": {"cpu": "300m"}, "limits": {"cpu": "300m", "memory": "96Mi"}}
            found["spec"]["containers"][0]["resources"] = resources

        api.change(PODS, "default/p", update)
        await node.until(lambda: told(node) == "300m")
        assert memory_limits("podu") == [str(96 * 1024**2)]
        api.end("default/p", 0)
        await node.until(lambda: not api.all(PODS) and not node.kubelet.pods())
