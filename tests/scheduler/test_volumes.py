"""Pods with claims: which nodes reach their volumes, and claims that wait for the node."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import trio

from k8slite.api.kinds import (
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    STORAGE_CLASSES,
)
from k8slite.api.meta import Obj, get_condition
from k8slite.client.client import ClientConfig
from k8slite.controllers.manager import ControllerManagerConfig, run_controllers
from k8slite.controllers.storage import volume_provisioner
from k8slite.controllers.storage.volume_provisioner import NAME
from k8slite.scheduler.plugins.images import normalized
from k8slite.scheduler.scheduler import SchedulerConfig, run_scheduling
from raftkv.host import Address
from tests.client.fake_api import FakeApi
from tests.client.world import MemoryHost
from tests.scheduler.objects import node, pod

CLIENT = ClientConfig(endpoints=(Address("x", 1),))
HOSTNAME = "kubernetes.io/hostname"


def claim(own: str, storage_class: str = "local", **spec: Any) -> Obj:
    return {
        "metadata": {"name": own, "namespace": "n"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
            "storageClassName": storage_class,
            **spec,
        },
        "status": {"phase": "Pending"},
    }


def local_volume(own: str, on: str, size: str = "1Gi") -> Obj:
    values = [{"key": HOSTNAME, "operator": "In", "values": [on]}]
    return {
        "metadata": {"name": own},
        "spec": {
            "capacity": {"storage": size},
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "local",
            "local": {"path": f"/data/{own}"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": values}]}},
        },
        "status": {"phase": "Available"},
    }


def storage_class(own: str, provisioner: str) -> Obj:
    mode = {"volumeBindingMode": "WaitForFirstConsumer"}
    return {"metadata": {"name": own}, "provisioner": provisioner, **mode}


def using(own: str, *claims: str, **more: Any) -> Obj:
    volumes = [
        {"name": f"v{i}", "persistentVolumeClaim": {"claimName": each}}
        for i, each in enumerate(claims)
    ]
    return pod(own, "1", volumes=volumes, **more)


async def run(api: FakeApi, directory: Path, nursery: trio.Nursery) -> None:
    manager = ControllerManagerConfig(
        client=CLIENT,
        identity="m",
        local_volumes=str(directory),
        controllers=("persistentvolume-binder-controller", "local-provisioner-controller"),
    )
    scheduler = SchedulerConfig(client=CLIENT, identity="s")
    nursery.start_soon(run_controllers, api, manager, MemoryHost(1))
    nursery.start_soon(run_scheduling, api, scheduler, MemoryHost(2))
    await trio.sleep(1)


async def at_once(function: Any, *args: Any) -> None:
    function(*args)


@pytest.fixture(autouse=True)
def _no_threads() -> Any:
    with mock.patch.object(volume_provisioner, "in_thread", at_once):
        yield


def where(api: FakeApi, own: str) -> str:
    found: str = api.read(PODS, f"n/{own}")["spec"].get("nodeName", "")
    return found


async def test_a_volume_is_made_where_the_pod_goes(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    api = FakeApi()
    async with trio.open_nursery() as nursery:
        await run(api, tmp_path, nursery)
        api.add(NODES, node("a", "1"))
        api.add(NODES, node("b", "8"))
        api.add(STORAGE_CLASSES, storage_class("late", NAME))
        api.add(PERSISTENT_VOLUME_CLAIMS, claim("data", "late"))
        await trio.sleep(5)
        assert api.all(PERSISTENT_VOLUMES) == [], "it waits for a pod"
        api.add(PODS, using("p", "data", nodeSelector={HOSTNAME: "b"}))
        await trio.sleep(5)
        assert where(api, "p") == "b"
        [volume] = api.all(PERSISTENT_VOLUMES)
        assert volume["status"]["phase"] == "Bound"
        assert volume["spec"]["hostPath"]["path"].startswith(str(tmp_path))
        api.add(PODS, using("q", "data"))
        await trio.sleep(5)
        assert where(api, "q") == "b", "where its volume is"
        nursery.cancel_scope.cancel()


async def test_two_pods_do_not_get_one_free_volume(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    api = FakeApi()
    async with trio.open_nursery() as nursery:
        await run(api, tmp_path, nursery)
        api.add(STORAGE_CLASSES, storage_class("local", "kubernetes.io/no-provisioner"))
        for own in ("a", "b", "c"):
            api.add(NODES, node(own))
        api.add(PERSISTENT_VOLUMES, local_volume("on-a", "a"))
        api.add(PERSISTENT_VOLUMES, local_volume("on-b", "b"))
        for i in range(3):
            api.add(PERSISTENT_VOLUME_CLAIMS, claim(f"data-{i}"))
            api.add(PODS, using(f"p{i}", f"data-{i}"))
        await trio.sleep(10)
        assert sorted(where(api, f"p{i}") for i in range(3)) == ["", "a", "b"]
        [left] = [i for i in range(3) if not where(api, f"p{i}")]
        condition = get_condition(api.read(PODS, f"n/p{left}"), "PodScheduled")
        assert condition is not None
        assert "didn't find available persistent volumes to bind" in condition["message"]
        api.add(PERSISTENT_VOLUMES, local_volume("on-c", "c"))
        await trio.sleep(15)
        assert where(api, f"p{left}") == "c"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("claims", "told"),
    [
        ([], 'persistentvolumeclaim "data" not found'),
        ([claim("data", "")], "pod has unbound immediate PersistentVolumeClaims"),
    ],
)
async def test_why_a_pod_with_a_claim_waits(
    claims: list[Obj], told: str, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    api = FakeApi()
    async with trio.open_nursery() as nursery:
        await run(api, tmp_path, nursery)
        api.add(NODES, node("a"))
        for each in claims:
            api.add(PERSISTENT_VOLUME_CLAIMS, each)
        api.add(PODS, using("p", "data"))
        await trio.sleep(5)
        condition = get_condition(api.read(PODS, "n/p"), "PodScheduled")
        assert condition is not None
        assert condition["message"].startswith(f"0/1 nodes are available: {told}.")
        if not claims:
            api.add(PERSISTENT_VOLUME_CLAIMS, claim("data", "standard"))
            await trio.sleep(20)
            assert where(api, "p") == "a"
        nursery.cancel_scope.cancel()


def test_images_have_tags() -> None:
    assert normalized("nginx") == "nginx:latest"
    assert normalized("host:5000/nginx") == "host:5000/nginx:latest"
    assert normalized("nginx@sha256:0") == "nginx@sha256:0"
