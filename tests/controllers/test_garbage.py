"""Garbage: background, foreground and orphan deletion, owners that never were, namespaces."""

from __future__ import annotations

import pytest
import trio

from k8slite.api.kinds import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    NAMESPACES,
    PODS,
    REPLICA_SETS,
    SECRETS,
    SERVICE_ACCOUNTS,
)
from k8slite.api.meta import Obj, owner_reference, owner_references
from tests.client.fake_api import FakeApi
from tests.controllers.objects import deployment, meta_of, namespace_obj, pod, replica_set
from tests.controllers.world import open_cluster

GC = "garbage-collector-controller"


def config_map(name: str, *owners: Obj) -> Obj:
    return {"metadata": meta_of(name, ownerReferences=[*owners]), "data": {}}


def family(api: FakeApi) -> None:
    """A Deployment with a ReplicaSet with two pods."""
    top = api.add(DEPLOYMENTS, deployment())
    rs = replica_set()
    rs["metadata"]["ownerReferences"] = [owner_reference(DEPLOYMENTS, top)]
    middle = api.add(REPLICA_SETS, rs)
    for own in ("a", "b"):
        obj = pod(own, node="")
        obj["metadata"]["ownerReferences"] = [owner_reference(REPLICA_SETS, middle)]
        api.add(PODS, obj)


def left(api: FakeApi) -> list[str]:
    return [k for kind in (DEPLOYMENTS, REPLICA_SETS, PODS) for k in api.objects.get(kind, {})]


async def test_background_deletion_takes_the_whole_family(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster(GC, pods=False) as cluster:
        family(cluster.api)
        await trio.sleep(1)
        await cluster.api.delete(DEPLOYMENTS, "web", "n", propagation="Background")
        await trio.sleep(5)
        assert left(cluster.api) == []


async def test_foreground_deletion_takes_the_pods_first(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster(GC, pods=False) as cluster:
        api = cluster.api
        family(api)
        await trio.sleep(1)
        await api.delete(DEPLOYMENTS, "web", "n", propagation="Foreground")
        await trio.sleep(5)
        assert left(api) == []
        gone = [key for _, kind, event, obj in api.journal if event == "DELETED" for key in [obj]]
        names = [o["metadata"]["name"] for o in gone]
        assert sorted(names[:2]) == ["a", "b"]
        assert names[2:] == ["rs", "web"]


async def test_orphaning_leaves_the_dependents_without_their_owner(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster(GC, pods=False) as cluster:
        api = cluster.api
        family(api)
        await trio.sleep(1)
        await api.delete(DEPLOYMENTS, "web", "n", propagation="Orphan")
        await trio.sleep(5)
        assert left(api) == ["n/rs", "n/a", "n/b"]
        assert owner_references(api.read(REPLICA_SETS, "n/rs")) == []


async def test_an_owner_that_never_was_or_is_another_by_now_does_not_count(
    autojump_clock: trio.testing.MockClock,
) -> None:
    def owned_by(uid: str, name: str = "web") -> Obj:
        return {"apiVersion": "apps/v1", "kind": "Deployment", "name": name, "uid": uid}

    async with open_cluster(GC, pods=False) as cluster:
        api = cluster.api
        api.add(DEPLOYMENTS, deployment())
        api.add(CONFIG_MAPS, config_map("none"))
        api.add(CONFIG_MAPS, config_map("real", owned_by("uid-of-web")))
        api.add(CONFIG_MAPS, config_map("recreated", owned_by("an older uid")))
        api.add(CONFIG_MAPS, config_map("never", owned_by("x", name="nobody")))
        api.add(CONFIG_MAPS, config_map("both", owned_by("uid-of-web"), owned_by("x", "nobody")))
        foreign = {"apiVersion": "example.com/v1", "kind": "Thing", "name": "t", "uid": "t"}
        api.add(CONFIG_MAPS, config_map("foreign", foreign))
        await trio.sleep(5)
        assert [*api.objects[CONFIG_MAPS]] == ["n/none", "n/real", "n/both", "n/foreign"]
        assert [r["uid"] for r in owner_references(api.read(CONFIG_MAPS, "n/both"))] == [
            "uid-of-web"
        ]


@pytest.mark.parametrize("compact", [False, True])
async def test_owners_that_went_while_nobody_watched_are_noticed(
    compact: bool, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_cluster(GC, pods=False) as cluster:
        api = cluster.api
        family(api)
        await trio.sleep(1)
        api.drop_events = lambda event, kind, obj: True
        await api.delete(DEPLOYMENTS, "web", "n")
        await trio.sleep(1)
        api.drop_events = None
        api.break_watches(compact=True)
        if compact:
            await trio.sleep(0.1)
            api.break_watches(compact=True)
        await trio.sleep(60)
        assert left(api) == []


async def test_every_namespace_gets_its_account_and_its_authority(
    autojump_clock: trio.testing.MockClock,
) -> None:
    names = ("serviceaccount-controller", "root-ca-certificate-publisher-controller")
    async with open_cluster(*names, pods=False) as cluster:
        api = cluster.api
        api.add(NAMESPACES, namespace_obj("one"))
        await trio.sleep(1)
        assert [*api.objects[SERVICE_ACCOUNTS]] == ["one/default"]
        assert api.read(CONFIG_MAPS, "one/kube-root-ca.crt")["data"] == {"ca.crt": "PEM"}
        api.remove(SERVICE_ACCOUNTS, "one/default")
        api.change(CONFIG_MAPS, "one/kube-root-ca.crt", lambda o: o.update(data={}))
        await trio.sleep(1)
        assert [*api.objects[SERVICE_ACCOUNTS]] == ["one/default"]
        assert api.read(CONFIG_MAPS, "one/kube-root-ca.crt")["data"] == {"ca.crt": "PEM"}
        api.change(NAMESPACES, "one", lambda o: o["status"].update(phase="Terminating"))
        api.remove(SERVICE_ACCOUNTS, "one/default")
        await trio.sleep(1)
        assert [*api.objects[SERVICE_ACCOUNTS]] == []


async def test_a_namespace_goes_when_all_in_it_has_gone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster("namespace-controller") as cluster:
        api = cluster.api
        cluster.stop_seconds = 20
        api.add(NAMESPACES, namespace_obj("n"))
        api.add(NAMESPACES, namespace_obj("other"))
        api.add(CONFIG_MAPS, config_map("c"))
        api.add(SECRETS, {"metadata": {"name": "s", "namespace": "other"}})
        api.add(PODS, pod("p"))
        await api.delete(NAMESPACES, "n")
        await trio.sleep(10)
        assert [*api.objects[CONFIG_MAPS]] == []
        space = api.read(NAMESPACES, "n")
        conditions = {c["type"]: c for c in space["status"]["conditions"]}
        assert conditions["NamespaceContentRemaining"]["message"] == (
            "Some resources are remaining: pods has 1 resource instances"
        )
        await trio.sleep(30)
        assert [*api.objects[NAMESPACES]] == ["other"]
        assert [*api.objects[SECRETS]] == ["other/s"]
