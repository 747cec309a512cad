"""Controllers of one page: aggregated roles, mirrored slices, bootstrap tokens, claims for pods."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from k8slite.api.kinds import CLUSTER_ROLES, ENDPOINT_SLICES, PODS
from k8slite.api.meta import Obj, name, owner_reference
from k8slite.controllers.access import clusterrole_aggregation
from k8slite.controllers.access.bootstrap_tokens import expires_in
from k8slite.controllers.actions import Create, Delete, Note, Update
from k8slite.controllers.services import endpointslice_mirroring
from k8slite.controllers.storage import ephemeral_volume
from tests.controllers.objects import meta_of, pod, service

NOW = 1_700_000_000.0


def role(own: str, label: str = "", rules: list[Obj] | None = None, **more: Any) -> Obj:
    labels = {"aggregate": label} if label else {}
    return {"metadata": {"name": own, "labels": labels}, "rules": rules or [], **more}


READ = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}
WRITE = {"apiGroups": [""], "resources": ["pods"], "verbs": ["create"]}


def test_a_role_has_the_rules_of_all_it_selects() -> None:
    selectors = [{"matchLabels": {"aggregate": "view"}}, {"matchLabels": {"aggregate": "edit"}}]
    total = role("total", aggregationRule={"clusterRoleSelectors": selectors})
    parts = [
        role("b", "edit", [WRITE, READ]),
        role("a", "view", [READ]),
        role("c", "other", [WRITE]),
        total,
    ]
    [action] = clusterrole_aggregation.plan(total, parts)
    assert isinstance(action, Update)
    assert action.kind is CLUSTER_ROLES
    assert action.obj["rules"] == [READ, WRITE]
    assert clusterrole_aggregation.plan(action.obj, parts) == []


def endpoints(*subsets: Obj) -> Obj:
    return {"metadata": meta_of("web", labels={"team": "a"}), "subsets": [*subsets]}


SUBSET = {
    "addresses": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}],
    "notReadyAddresses": [{"ip": "10.0.0.2", "nodeName": "node-1"}],
    "ports": [{"port": 80}],
}
BARE = service(selector=None)


def mirrored(*subsets: Obj) -> list[Obj]:
    actions = endpointslice_mirroring.plan(endpoints(*subsets), BARE, [], 1000)
    assert all(isinstance(a, Create) for a in actions)
    made = [a.obj for a in actions if isinstance(a, Create)]
    for i, one in enumerate(made):
        one["metadata"] |= {"name": f"web-{i}", "uid": f"u{i}"}
    return made


def test_what_people_write_is_mirrored_by_family() -> None:
    four, six = mirrored(SUBSET)
    assert (four["addressType"], six["addressType"]) == ("IPv4", "IPv6")
    assert [e["addresses"] for e in four["endpoints"]] == [["10.0.0.1"], ["10.0.0.2"]]
    assert [e["conditions"]["ready"] for e in four["endpoints"]] == [True, False]
    assert four["ports"] == [{"name": "", "protocol": "TCP", "port": 80}]
    assert four["metadata"]["labels"]["kubernetes.io/service-name"] == "web"


@pytest.mark.parametrize(
    ("changed", "of", "expected"),
    [
        (endpoints(SUBSET), BARE, []),
        (endpoints({**SUBSET, "notReadyAddresses": []}), BARE, [Update]),
        (endpoints({"addresses": [{"ip": "10.0.0.1"}]}), BARE, [Update, Delete]),
        (endpoints(), BARE, [Delete, Delete]),
        (endpoints(SUBSET), service(), [Delete, Delete]),
        (endpoints(SUBSET), None, [Delete, Delete]),
        (None, BARE, [Delete, Delete]),
    ],
)
def test_mirrors_follow(changed: Obj | None, of: Obj | None, expected: list[type]) -> None:
    actions = endpointslice_mirroring.plan(changed, of, mirrored(SUBSET), 1000)
    assert [type(a) for a in actions] == expected
    assert all(getattr(a, "kind", None) is ENDPOINT_SLICES for a in actions)


def test_at_most_so_many_addresses() -> None:
    many = {"addresses": [{"ip": f"10.0.0.{i}"} for i in range(9)]}
    [action] = endpointslice_mirroring.plan(endpoints(many), BARE, [], 5)
    assert isinstance(action, Create)
    assert len(action.obj["endpoints"]) == 5


def token(expiration: str, **more: Any) -> Obj:
    encoded = base64.b64encode(expiration.encode()).decode()
    metadata = {**meta_of("bootstrap-token-abc"), "namespace": "kube-system"}
    return {
        "metadata": metadata,
        "type": "bootstrap.kubernetes.io/token",
        "data": {"expiration": encoded} if expiration else {},
        **more,
    }


@pytest.mark.parametrize(
    ("secret", "expected"),
    [
        (token("2023-11-14T22:14:20Z"), 60.0),
        (token("2023-11-14T22:12:20Z"), 0.0),
        (token("soon"), 0.0),
        (token(""), None),
        (token("2023-11-14T22:12:20Z", type="Opaque"), None),
    ],
)
def test_bootstrap_tokens_expire(secret: Obj, expected: float | None) -> None:
    assert expires_in(secret, NOW) == expected


def test_ephemeral_volumes_get_claims_of_their_own() -> None:
    obj = pod("p")
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"accessModes": ["ReadWriteOnce"]}}
    obj["spec"]["volumes"] = [{"name": "tmp", "ephemeral": {"volumeClaimTemplate": template}}]
    [action] = ephemeral_volume.plan(obj, lambda _: None)
    assert isinstance(action, Create)
    assert name(action.obj) == "p-tmp"
    assert action.obj["metadata"]["ownerReferences"] == [owner_reference(PODS, obj)]
    assert ephemeral_volume.plan(obj, lambda _: action.obj) == []
    [note] = ephemeral_volume.plan(obj, lambda _: {"metadata": meta_of("p-tmp")})
    assert isinstance(note, Note)
