"""Volumes are attached where pods use them, and detached when nobody does any more."""

from __future__ import annotations

from typing import Any

import trio

from k8slite.api.kinds import (
    EVENTS,
    KIND,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    STORAGE_CLASSES,
)
from k8slite.api.meta import Obj
from k8slite.controllers.storage.volume_attachments import ATTACHMENTS, attachment_name, unique_name
from tests.client.fake_api import FakeApi
from tests.controllers.objects import meta_of, node, pod
from tests.controllers.storms import Scenario
from tests.controllers.world import open_cluster

CONTROLLER = "persistentvolume-attach-detach-controller"
DRIVERS = KIND["csidrivers.storage.k8s.io"]
DRIVER = "disk.example.com"


def csi_volume(own: str, driver: str = DRIVER) -> Obj:
    csi = {"driver": driver, "volumeHandle": f"handle-of-{own}"}
    return {"metadata": {"name": own, "uid": f"uid-of-{own}"}, "spec": {"csi": csi}}


def bound_claim(own: str, volume: str) -> Obj:
    return {"metadata": meta_of(own), "spec": {"volumeName": volume}}


def with_claim(own: str, claim: str, on: str) -> Obj:
    obj = pod(own, node=on)
    obj["spec"]["volumes"] = [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]
    return obj


def arrange(api: FakeApi) -> None:
    for own in ("a", "b"):
        api.add(NODES, node(own))
    api.add(PERSISTENT_VOLUMES, csi_volume("v"))
    api.add(PERSISTENT_VOLUME_CLAIMS, bound_claim("c", "v"))
    api.add(PODS, with_claim("p", "c", "a"))


def attach(api: FakeApi) -> None:
    """What the driver's attacher does."""
    for each in api.all(ATTACHMENTS):
        api.change(
            ATTACHMENTS, each["metadata"]["name"], lambda o: o.update(status={"attached": True})
        )


async def test_a_volume_is_attached_and_the_node_says_so(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster(CONTROLLER, pods=False) as cluster:
        api = cluster.api
        arrange(api)
        await trio.sleep(1)
        [attachment] = api.all(ATTACHMENTS)
        assert attachment["metadata"]["name"] == attachment_name(csi_volume("v"), "a")
        assert attachment["spec"] == {
            "attacher": DRIVER,
            "nodeName": "a",
            "source": {"persistentVolumeName": "v"},
        }
        assert "volumesAttached" not in api.read(NODES, "a")["status"]
        attach(api)
        await trio.sleep(1)
        expected = [{"name": unique_name(csi_volume("v")), "devicePath": ""}]
        assert api.read(NODES, "a")["status"]["volumesAttached"] == expected


async def test_it_is_detached_once_the_kubelet_has_let_it_go(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster(CONTROLLER, pods=False) as cluster:
        api = cluster.api
        arrange(api)
        await trio.sleep(1)
        attach(api)
        used = [unique_name(csi_volume("v"))]
        api.change(NODES, "a", lambda o: o["status"].update(volumesInUse=used))
        await trio.sleep(1)
        api.remove(PODS, "n/p")
        await trio.sleep(10)
        assert len(api.all(ATTACHMENTS)) == 1
        api.change(NODES, "a", lambda o: o["status"].update(volumesInUse=[]))
        await trio.sleep(1)
        assert api.all(ATTACHMENTS) == []
        assert not api.read(NODES, "a")["status"].get("volumesAttached")


async def test_a_node_that_is_lost_is_not_waited_for_for_ever(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster(CONTROLLER, pods=False) as cluster:
        api = cluster.api
        arrange(api)
        await trio.sleep(1)
        attach(api)
        lost = {"type": "Ready", "status": "Unknown", "lastTransitionTime": api.now()}
        used = [unique_name(csi_volume("v"))]
        api.change(NODES, "a", lambda o: o["status"].update(volumesInUse=used, conditions=[lost]))
        api.remove(PODS, "n/p")
        await trio.sleep(300)
        assert len(api.all(ATTACHMENTS)) == 1
        await trio.sleep(100)
        assert api.all(ATTACHMENTS) == []


async def test_drivers_that_do_not_attach_are_left_alone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster(CONTROLLER, pods=False) as cluster:
        driver = {"metadata": {"name": DRIVER}, "spec": {"attachRequired": False}}
        cluster.api.add(DRIVERS, driver)
        arrange(cluster.api)
        await trio.sleep(5)
        assert cluster.api.all(ATTACHMENTS) == []


async def test_who_must_grow_a_volume_is_told(autojump_clock: trio.testing.MockClock) -> None:
    async with open_cluster("persistentvolume-expander-controller", pods=False) as cluster:
        api = cluster.api
        grows = {"metadata": {"name": "fast"}, "provisioner": DRIVER, "allowVolumeExpansion": True}
        api.add(STORAGE_CLASSES, grows)
        api.add(PERSISTENT_VOLUMES, csi_volume("v"))
        asked = {"resources": {"requests": {"storage": "2Gi"}}, "storageClassName": "fast"}
        status = {"phase": "Bound", "capacity": {"storage": "1Gi"}}
        claim = {**bound_claim("c", "v"), "status": status}
        claim["spec"] |= asked
        api.add(PERSISTENT_VOLUME_CLAIMS, claim)
        await trio.sleep(2)
        [event] = api.all(EVENTS)
        assert event["reason"] == "ExternalExpanding"


def _move(api: FakeApi) -> None:
    attach(api)
    api.remove(PODS, "n/p")
    api.add(PODS, with_claim("q", "c", "b"))


def _outcome(api: FakeApi) -> Any:
    return sorted(each["spec"]["nodeName"] for each in api.all(ATTACHMENTS))


SCENARIO = Scenario(
    name="attachments", controllers=(CONTROLLER,), arrange=arrange, act=_move, outcome=_outcome
)
