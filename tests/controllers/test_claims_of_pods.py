"""ResourceClaims: made of templates, given back by pods that have finished."""

from __future__ import annotations

from typing import Any

import trio

from k8slite.api.kinds import KIND, PODS
from k8slite.api.meta import Obj, deleting, name
from k8slite.controllers.storage.resource_claims import FINALIZER, claim_name
from tests.client.fake_api import FakeApi
from tests.controllers.objects import meta_of, pod
from tests.controllers.storms import Scenario
from tests.controllers.world import open_cluster

CONTROLLER = "resourceclaim-controller"
CLAIMS = KIND["resourceclaims.resource.k8s.io"]
TEMPLATES = KIND["resourceclaimtemplates.resource.k8s.io"]
SLICES = KIND["resourceslices.resource.k8s.io"]
REQUEST = {"name": "r", "exactly": {"deviceClassName": "gpu"}}


def template(own: str = "t") -> Obj:
    spec = {"devices": {"requests": [REQUEST]}}
    return {"metadata": meta_of(own), "spec": {"metadata": {"labels": {"a": "b"}}, "spec": spec}}


def user(own: str = "p", **claim: str) -> Obj:
    obj = pod(own, phase="Pending", ready=False)
    obj["spec"]["resourceClaims"] = [{"name": "gpu", **claim}]
    return obj


def allocated(own: str, *users: str) -> Obj:
    reserved = [{"resource": "pods", "name": each, "uid": f"uid-of-{each}"} for each in users]
    return {
        "metadata": {**meta_of(own), "finalizers": [FINALIZER]},
        "spec": {"devices": {"requests": [REQUEST]}},
        "status": {"allocation": {"devices": {"results": []}}, "reservedFor": reserved},
    }


async def test_a_claim_is_made_of_a_template_and_named_in_the_pod(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster(CONTROLLER, pods=False) as cluster:
        api = cluster.api
        api.add(PODS, user(resourceClaimTemplateName="t"))
        await trio.sleep(5)
        assert api.all(CLAIMS) == []
        api.add(TEMPLATES, template())
        await trio.sleep(1)
        [claim] = api.all(CLAIMS)
        assert name(claim) == claim_name(api.read(PODS, "n/p"), "gpu")
        assert claim["metadata"]["labels"] == {"a": "b"}
        assert claim["metadata"]["ownerReferences"][0]["uid"] == "uid-of-p"
        assert claim["spec"] == {"devices": {"requests": [REQUEST]}}
        statuses = api.read(PODS, "n/p")["status"]["resourceClaimStatuses"]
        assert statuses == [{"name": "gpu", "resourceClaimName": name(claim)}]


async def test_a_claim_that_nobody_uses_gives_its_devices_back(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster(CONTROLLER, pods=False) as cluster:
        api = cluster.api
        for own in ("p", "q"):
            api.add(PODS, user(own, resourceClaimName="c"))
        api.add(CLAIMS, allocated("c", "p", "q"))
        await trio.sleep(1)
        api.set_status(PODS, "n/p", phase="Succeeded")
        await trio.sleep(1)
        status = api.read(CLAIMS, "n/c")["status"]
        assert [each["name"] for each in status["reservedFor"]] == ["q"]
        assert "allocation" in status
        api.remove(PODS, "n/q")
        await trio.sleep(1)
        claim = api.read(CLAIMS, "n/c")
        assert claim["status"] == {}
        assert claim["metadata"]["finalizers"] == []


async def test_a_claim_made_for_a_pod_goes_when_that_has_finished(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster(CONTROLLER, pods=False) as cluster:
        api = cluster.api
        api.add(TEMPLATES, template())
        api.add(PODS, user(resourceClaimTemplateName="t"))
        await trio.sleep(1)
        assert len(api.all(CLAIMS)) == 1
        api.set_status(PODS, "n/p", phase="Failed")
        await trio.sleep(1)
        assert api.all(CLAIMS) == []


def tainted(**taint: Any) -> Obj:
    pool = {"name": "a", "generation": 1, "resourceSliceCount": 1}
    devices = [{"name": "g0", "taints": [{"key": "sick", "effect": "NoExecute", **taint}]}]
    spec = {"driver": "d", "nodeName": "a", "pool": pool, "devices": devices}
    return {"metadata": {"name": "s", "uid": "uid-of-s"}, "spec": spec}


def holding(own: str, user: str, *tolerations: Obj) -> Obj:
    claim = allocated(own, user)
    result: Obj = {"request": "r", "driver": "d", "pool": "a", "device": "g0"}
    if tolerations:
        result["tolerations"] = [*tolerations]
    claim["status"]["allocation"]["devices"]["results"] = [result]
    return claim


async def test_a_sick_device_loses_its_pods_unless_they_tolerate_that(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_cluster("device-taint-eviction-controller", pods=False) as cluster:
        api = cluster.api
        brave = {"key": "sick", "operator": "Exists"}
        for own, tolerations in (
            ("p", ()),
            ("q", (brave,)),
            ("r", ({**brave, "tolerationSeconds": 60},)),
        ):
            api.add(PODS, user(own, resourceClaimName=f"c-{own}"))
            api.add(CLAIMS, holding(f"c-{own}", own, *tolerations))
        await trio.sleep(5)
        assert not any(map(deleting, api.all(PODS)))
        api.add(SLICES, tainted(timeAdded=api.now()))
        await trio.sleep(5)
        assert [name(p) for p in api.all(PODS) if deleting(p)] == ["p"]
        await trio.sleep(60)
        assert [name(p) for p in api.all(PODS) if deleting(p)] == ["p", "r"]


def _arrange(api: FakeApi) -> None:
    api.add(TEMPLATES, template())
    for own in ("p", "q"):
        api.add(PODS, user(own, resourceClaimTemplateName="t"))
    api.add(PODS, user("r", resourceClaimName="shared"))
    api.add(CLAIMS, allocated("shared", "r", "gone"))
    api.add(PODS, user("s", resourceClaimName="sick"))
    api.add(CLAIMS, holding("sick", "s"))
    api.add(SLICES, tainted())


def _outcome(api: FakeApi) -> Any:
    claims = [(name(c), c.get("status"), c["metadata"].get("finalizers")) for c in api.all(CLAIMS)]
    named = [(p.get("status") or {}).get("resourceClaimStatuses") for p in api.all(PODS)]
    return sorted(claims, key=str), named, [name(p) for p in api.all(PODS) if deleting(p)]


SCENARIO = Scenario(
    name="resourceclaims",
    controllers=(CONTROLLER, "device-taint-eviction-controller"),
    arrange=_arrange,
    act=lambda api: api.set_status(PODS, "n/r", phase="Succeeded"),
    outcome=_outcome,
)
