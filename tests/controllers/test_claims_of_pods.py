"""ResourceClaims: made of templates, given back by pods that have finished."""

from __future__ import annotations

from typing import Any

import trio

from k8slite.api.kinds import KIND, PODS
from k8slite.api.meta import Obj, name
from k8slite.controllers.resource_claims import FINALIZER, claim_name
from tests.client.fake_api import FakeApi
from tests.controllers.objects import meta_of, pod
from tests.controllers.storms import Scenario
from tests.controllers.world import open_cluster

CONTROLLER = "resourceclaim-controller"
CLAIMS = KIND["resourceclaims.resource.k8s.io"]
TEMPLATES = KIND["resourceclaimtemplates.resource.k8s.io"]
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


def _arrange(api: FakeApi) -> None:
    api.add(TEMPLATES, template())
    for own in ("p", "q"):
        api.add(PODS, user(own, resourceClaimTemplateName="t"))
    api.add(PODS, user("r", resourceClaimName="shared"))
    api.add(CLAIMS, allocated("shared", "r", "gone"))


def _outcome(api: FakeApi) -> Any:
    claims = [(name(c), c.get("status"), c["metadata"].get("finalizers")) for c in api.all(CLAIMS)]
    named = [(p.get("status") or {}).get("resourceClaimStatuses") for p in api.all(PODS)]
    return sorted(claims, key=str), named


SCENARIO = Scenario(
    name="resourceclaims",
    controllers=(CONTROLLER,),
    arrange=_arrange,
    act=lambda api: api.set_status(PODS, "n/r", phase="Succeeded"),
    outcome=_outcome,
)
