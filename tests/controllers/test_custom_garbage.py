"""Owners and contents of custom kinds, which come and go with their definitions."""

from __future__ import annotations

from typing import Any

import trio

from k8slite.api.custom import custom_kinds
from k8slite.api.kinds import CONFIG_MAPS, CUSTOM_RESOURCE_DEFINITIONS, NAMESPACES, Kind
from k8slite.api.meta import Obj, owner_reference
from tests.client.fake_api import FakeApi
from tests.controllers.objects import meta_of, namespace_obj
from tests.controllers.world import open_cluster

GC = "garbage-collector-controller"
ESTABLISHED = {"conditions": [{"type": "Established", "status": "True"}]}


def definition(*versions: str, established: bool = True) -> Obj:
    names = {"plural": "gadgets", "kind": "Gadget", "listKind": "GadgetList"}
    served: list[dict[str, Any]] = [
        {"name": version, "served": True, "storage": version == versions[0]} for version in versions
    ]
    return {
        "metadata": meta_of("gadgets.example.com", namespace=""),
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": names,
            "versions": served,
        },
        "status": ESTABLISHED if established else {},
    }


def kind_of(crd: Obj) -> Kind:
    return next(custom.kind for custom in custom_kinds(crd))


def gadget(kind: Kind, name: str, *owners: Obj) -> Obj:
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": meta_of(name, ownerReferences=[*owners]),
    }


def config_map(name: str, *owners: Obj) -> Obj:
    return {"metadata": meta_of(name, ownerReferences=[*owners]), "data": {}}


def left(api: FakeApi, kind: Kind) -> list[str]:
    return sorted(api.objects.get(kind, {}))


async def test_what_a_custom_object_owned_goes_with_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    crd = definition("v1")
    kind = kind_of(crd)
    async with open_cluster(GC, pods=False) as cluster:
        api = cluster.api
        api.add(CUSTOM_RESOURCE_DEFINITIONS, crd)
        owner = api.add(kind, gadget(kind, "one"))
        api.add(CONFIG_MAPS, config_map("its", owner_reference(kind, owner)))
        nested = api.add(kind, gadget(kind, "part", owner_reference(kind, owner)))
        api.add(CONFIG_MAPS, config_map("deep", owner_reference(kind, nested)))
        await trio.sleep(1)
        assert left(api, CONFIG_MAPS) == ["n/deep", "n/its"]
        await api.delete(kind, "one", "n", propagation="Background")
        await trio.sleep(5)
        assert left(api, kind) == []
        assert left(api, CONFIG_MAPS) == []


async def test_an_owner_of_an_unknown_kind_keeps_what_it_owns(
    autojump_clock: trio.testing.MockClock,
) -> None:
    crd = definition("v1", established=False)
    kind = kind_of(crd)
    async with open_cluster(GC, pods=False) as cluster:
        api = cluster.api
        api.add(CUSTOM_RESOURCE_DEFINITIONS, crd)
        reference = {"apiVersion": kind.api_version, "kind": "Gadget", "name": "x", "uid": "u-x"}
        api.add(CONFIG_MAPS, config_map("its", reference))
        await trio.sleep(60)
        assert left(api, CONFIG_MAPS) == ["n/its"]
        api.set_status(CUSTOM_RESOURCE_DEFINITIONS, "gadgets.example.com", **ESTABLISHED)
        api.change(CONFIG_MAPS, "n/its", lambda obj: obj["metadata"]["ownerReferences"].append(
            {**reference, "name": "y", "uid": "u-y"}))  # fmt: skip
        await trio.sleep(5)
        assert left(api, CONFIG_MAPS) == [], "both owners can be asked for now, and are not there"


async def test_another_version_is_no_reason_to_collect(
    autojump_clock: trio.testing.MockClock,
) -> None:
    crd = definition("v1")
    kind = kind_of(crd)
    async with open_cluster(GC, pods=False) as cluster:
        api = cluster.api
        api.add(CUSTOM_RESOURCE_DEFINITIONS, crd)
        owner = api.add(kind, gadget(kind, "one"))
        api.add(CONFIG_MAPS, config_map("its", owner_reference(kind, owner)))
        await trio.sleep(1)
        newer = definition("v2")
        api.add(kind_of(newer), gadget(kind_of(newer), "one"))
        api.change(CUSTOM_RESOURCE_DEFINITIONS, "gadgets.example.com",
                   lambda obj: obj["spec"].update(newer["spec"]))  # fmt: skip
        await trio.sleep(60)
        assert left(api, CONFIG_MAPS) == ["n/its"]


async def test_with_the_definition_goes_what_its_objects_owned(
    autojump_clock: trio.testing.MockClock,
) -> None:
    crd = definition("v1")
    kind = kind_of(crd)
    async with open_cluster(GC, pods=False) as cluster:
        api = cluster.api
        api.add(CUSTOM_RESOURCE_DEFINITIONS, crd)
        owner = api.add(kind, gadget(kind, "one"))
        api.add(CONFIG_MAPS, config_map("its", owner_reference(kind, owner)))
        await trio.sleep(1)
        api.remove(CUSTOM_RESOURCE_DEFINITIONS, "gadgets.example.com")
        await trio.sleep(5)
        assert left(api, CONFIG_MAPS) == []


async def test_a_namespace_takes_custom_objects_with_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    crd = definition("v1")
    kind = kind_of(crd)
    async with open_cluster("namespace-controller", pods=False) as cluster:
        api = cluster.api
        api.add(CUSTOM_RESOURCE_DEFINITIONS, crd)
        api.add(NAMESPACES, namespace_obj("n"))
        api.add(kind, gadget(kind, "one"))
        await trio.sleep(1)
        await api.delete(NAMESPACES, "n")
        await trio.sleep(10)
        assert left(api, kind) == []
        assert left(api, NAMESPACES) == []
