"""What a client sees of create, update, patch and delete."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from k8slite.apiserver import Apiserver
from tests.apiserver.support import (
    ALICE,
    Session,
    config_map,
    open_session,
    open_watch,
    pod,
)

MAPS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
SERVICES = "/api/v1/namespaces/default/services"
MERGE = "application/merge-patch+json"


async def test_create_get_update_delete(session: Session) -> None:
    status, made = await session.call("POST", MAPS, config_map("a", k="1"))
    assert (status, made["data"]) == (201, {"k": "1"})
    status, got = await session.call("GET", f"{MAPS}/a")
    assert (status, got) == (200, made)
    got["data"]["k"] = "2"
    status, changed = await session.call("PUT", f"{MAPS}/a", got)
    assert status == 200
    assert int(changed["metadata"]["resourceVersion"]) > int(made["metadata"]["resourceVersion"])
    status, refused = await session.call("PUT", f"{MAPS}/a", got)
    assert (status, refused["reason"]) == (409, "Conflict")
    status, gone = await session.call("DELETE", f"{MAPS}/a")
    assert (status, gone["status"]) == (200, "Success")
    status, missing = await session.call("GET", f"{MAPS}/a")
    assert (status, missing["message"]) == (404, 'configmaps "a" not found')


async def test_a_change_of_nothing_writes_nothing(session: Session) -> None:
    _, made = await session.call("POST", MAPS, config_map("a", k="1"))
    status, same = await session.call(
        "PATCH", f"{MAPS}/a", {"data": {"k": "1"}}, content_type=MERGE
    )
    assert (status, same) == (200, made)


@pytest.mark.parametrize(
    ("content_type", "body", "status", "data"),
    [
        (MERGE, {"data": {"k": None, "n": "2"}}, 200, {"n": "2"}),
        ("application/strategic-merge-patch+json", {"data": {"n": "2"}}, 200, {"k": "1", "n": "2"}),
        (
            "application/json-patch+json",
            [{"op": "replace", "path": "/data/k", "value": "x"}],
            200,
            {"k": "x"},
        ),
        ("application/json-patch+json", {"op": "remove"}, 400, None),
        ("application/json-patch+json", [{"op": "remove", "path": "/data/q"}], 422, None),
        (MERGE, "{", 400, None),
        ("text/plain", {}, 415, None),
    ],
)
async def test_patches(
    session: Session, content_type: str, body: Any, status: int, data: Any
) -> None:
    await session.call("POST", MAPS, config_map("a", k="1"))
    got, answer = await session.call("PATCH", f"{MAPS}/a", body, content_type=content_type)
    assert got == status
    if data is not None:
        assert answer["data"] == data


async def test_concurrent_patches_all_arrive(server: Apiserver, session: Session) -> None:
    await session.call("POST", MAPS, config_map("a"))

    async def change(i: int) -> None:
        async with open_session(server) as mine:
            body = {"data": {f"k{i}": "v"}}
            status, _ = await mine.call("PATCH", f"{MAPS}/a", body, content_type=MERGE)
            assert status == 200

    async with trio.open_nursery() as nursery:
        for i in range(10):
            nursery.start_soon(change, i)
    _, got = await session.call("GET", f"{MAPS}/a")
    assert sorted(got["data"]) == sorted(f"k{i}" for i in range(10))


async def test_a_pod_gets_account_token_tolerations_priority(session: Session) -> None:
    status, made = await session.call("POST", PODS, pod("p"))
    assert status == 201
    spec = made["spec"]
    assert spec["serviceAccountName"] == "default"
    assert spec["priority"] == 0
    assert next(v["name"] for v in spec["volumes"]).startswith("kube-api-access-")
    assert len(spec["tolerations"]) == 2
    assert made["status"]["phase"] == "Pending"
    status, refused = await session.call("POST", PODS, pod("q", serviceAccountName="nope"))
    assert (status, refused["message"]) == (
        403,
        'pods "q" is forbidden: error looking up service account default/nope: '
        'serviceaccount "nope" not found',
    )


async def test_a_bound_pod_is_deleted_gracefully(session: Session) -> None:
    await session.call("POST", PODS, pod("p"))
    binding = {"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}}
    status, _ = await session.call("POST", f"{PODS}/p/binding", binding)
    assert status == 201
    status, refused = await session.call("POST", f"{PODS}/p/binding", binding)
    assert (status, refused["message"]) == (
        409,
        'Operation cannot be fulfilled on pods/binding "p": pod p is already assigned to node "n1"',
    )
    status, marked = await session.call("DELETE", f"{PODS}/p")
    assert status == 200
    assert marked["metadata"]["deletionGracePeriodSeconds"] == 30
    status, _ = await session.call("GET", f"{PODS}/p")
    assert status == 200
    status, _ = await session.call("DELETE", f"{PODS}/p", {"gracePeriodSeconds": 0})
    assert status == 200
    status, _ = await session.call("GET", f"{PODS}/p")
    assert status == 404


async def test_an_unbound_pod_goes_at_once(session: Session) -> None:
    await session.call("POST", PODS, pod("p"))
    await session.call("DELETE", f"{PODS}/p")
    status, _ = await session.call("GET", f"{PODS}/p")
    assert status == 404


async def test_finalizers_hold_an_object(session: Session) -> None:
    body = config_map("a")
    body["metadata"]["finalizers"] = ["x.y/z"]
    await session.call("POST", MAPS, body)
    status, marked = await session.call("DELETE", f"{MAPS}/a")
    assert (status, marked["metadata"]["deletionGracePeriodSeconds"]) == (200, 0)
    patch: dict[str, Any] = {"metadata": {"finalizers": None}}
    status, _ = await session.call("PATCH", f"{MAPS}/a", patch, content_type=MERGE)
    assert status == 200
    status, _ = await session.call("GET", f"{MAPS}/a")
    assert status == 404


async def test_a_namespace_ends_when_it_is_finalized(session: Session) -> None:
    await session.call("POST", "/api/v1/namespaces", {"metadata": {"name": "x"}})
    status, marked = await session.call("DELETE", "/api/v1/namespaces/x")
    assert (status, marked["status"]["phase"]) == (200, "Terminating")
    status, refused = await session.call("POST", "/api/v1/namespaces/x/configmaps", config_map("a"))
    assert (status, refused["reason"]) == (403, "Forbidden")
    assert refused["details"]["causes"][0]["reason"] == "NamespaceTerminating"
    marked["spec"] = {}
    status, _ = await session.call("PUT", "/api/v1/namespaces/x/finalize", marked)
    assert status == 200
    status, _ = await session.call("GET", "/api/v1/namespaces/x")
    assert status == 404
    status, refused = await session.call("DELETE", "/api/v1/namespaces/default")
    assert status == 403


async def test_status_and_spec_have_their_own_paths(session: Session) -> None:
    await session.call("POST", PODS, pod("p"))
    path = f"{PODS}/p"
    body: dict[str, Any] = {"status": {"phase": "Running"}}
    _, ignored = await session.call("PATCH", path, body, content_type=MERGE)
    assert ignored["status"]["phase"] == "Pending"
    _, taken = await session.call("PATCH", f"{path}/status", body, content_type=MERGE)
    assert taken["status"]["phase"] == "Running"
    body = {"spec": {"activeDeadlineSeconds": 5}}
    _, ignored = await session.call("PATCH", f"{path}/status", body, content_type=MERGE)
    assert "activeDeadlineSeconds" not in ignored["spec"]


async def test_scale(session: Session) -> None:
    path = "/apis/apps/v1/namespaces/default/deployments"
    template = {"metadata": {"labels": {"app": "a"}}, "spec": pod("p")["spec"]}
    spec = {"replicas": 2, "selector": {"matchLabels": {"app": "a"}}, "template": template}
    status, _ = await session.call("POST", path, {"metadata": {"name": "d"}, "spec": spec})
    assert status == 201
    status, scale = await session.call("GET", f"{path}/d/scale")
    assert (scale["spec"], scale["status"]) == (
        {"replicas": 2},
        {"replicas": 0, "selector": "app=a"},
    )
    scale["spec"]["replicas"] = 5
    status, _ = await session.call("PUT", f"{path}/d/scale", scale)
    assert status == 200
    patch = {"spec": {"replicas": 1}}
    status, _ = await session.call("PATCH", f"{path}/d/scale", patch, content_type=MERGE)
    _, got = await session.call("GET", f"{path}/d")
    assert (got["spec"]["replicas"], got["metadata"]["generation"]) == (1, 3)


async def test_services_get_addresses_and_ports_of_their_own(session: Session) -> None:
    def service(name: str, **spec: Any) -> dict[str, Any]:
        return {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], **spec}}

    seen = set()
    for i in range(20):
        status, made = await session.call("POST", SERVICES, service(f"s{i}", type="NodePort"))
        assert status == 201
        seen.add((made["spec"]["clusterIP"], made["spec"]["ports"][0]["nodePort"]))
    assert len({ip for ip, _ in seen}) == len({port for _, port in seen}) == 20
    status, refused = await session.call(
        "POST", SERVICES, service("taken", clusterIP=made["spec"]["clusterIP"])
    )
    assert status == 422
    assert "provided IP is already allocated" in refused["message"]
    await session.call("DELETE", f"{SERVICES}/s19")
    status, _ = await session.call(
        "POST", SERVICES, service("taken", clusterIP=made["spec"]["clusterIP"])
    )
    assert status == 201
    _, headless = await session.call("POST", SERVICES, service("h", clusterIP="None"))
    assert headless["spec"]["clusterIPs"] == ["None"]


async def test_two_servers_never_give_out_one_address_twice() -> None:
    """The range has 14 addresses: collisions are sure, and every Service gets its own."""
    from k8slite.apiserver.store.memory import MemoryStore
    from tests.apiserver.support import open_test_apiserver

    store = MemoryStore()
    cidr = "10.1.0.0/28"
    async with (
        open_test_apiserver(store, service_cidr=cidr, identity="one") as first,
        open_test_apiserver(store, service_cidr=cidr, identity="two") as second,
    ):
        given: list[str] = []

        async def make(server: Apiserver, i: int) -> None:
            async with open_session(server) as session:
                body = {"metadata": {"name": f"s{i}"}, "spec": {"ports": [{"port": 80}]}}
                status, made = await session.call("POST", SERVICES, body)
                if status == 201:
                    given.append(made["spec"]["clusterIP"])

        async with trio.open_nursery() as nursery:
            for i in range(12):
                nursery.start_soon(make, first if i % 2 else second, i)
        assert len(given) == len(set(given)) == 12


async def test_generated_names_and_dry_runs(session: Session) -> None:
    body: dict[str, Any] = {"metadata": {"generateName": "gen-"}}
    names = set()
    for _ in range(3):
        _, made = await session.call("POST", MAPS, body)
        names.add(made["metadata"]["name"])
    assert len(names) == 3
    status, made = await session.call("POST", f"{MAPS}?dryRun=All", config_map("dry"))
    assert status == 201
    assert "resourceVersion" not in made["metadata"]
    status, _ = await session.call("GET", f"{MAPS}/dry")
    assert status == 404


async def test_delete_collection(session: Session) -> None:
    for i in range(4):
        body = config_map(f"c{i}")
        body["metadata"]["labels"] = {"n": str(i % 2)}
        await session.call("POST", MAPS, body)
    _, gone = await session.call("DELETE", f"{MAPS}?labelSelector=n%3D1")
    assert [i["metadata"]["name"] for i in gone["items"]] == ["c1", "c3"]
    _, rest = await session.call("GET", MAPS)
    assert [i["metadata"]["name"] for i in rest["items"]] == ["c0", "c2"]


async def test_who_may_do_what(server: Apiserver, session: Session) -> None:
    async with open_session(server, ALICE) as alice:
        status, refused = await alice.call("GET", PODS)
        assert (status, refused["message"]) == (
            403,
            'pods is forbidden: User "alice" cannot list resource "pods" in API group "" '
            'in the namespace "default"',
        )
        rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default"
        rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]
        await session.call("POST", f"{rbac}/roles", {"metadata": {"name": "r"}, "rules": rules})
        binding = {
            "metadata": {"name": "b"},
            "roleRef": {"kind": "Role", "name": "r", "apiGroup": "rbac.authorization.k8s.io"},
            "subjects": [
                {"kind": "User", "name": "alice", "apiGroup": "rbac.authorization.k8s.io"}
            ],
        }
        await session.call("POST", f"{rbac}/rolebindings", binding)
        status, _ = await alice.call("GET", PODS)
        assert status == 200
        status, _ = await alice.call("GET", f"{PODS}/x")
        assert status == 403
        review = {"spec": {"resourceAttributes": {"verb": "get", "resource": "secrets"}}}
        status, answer = await alice.call(
            "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review
        )
        assert (status, answer["status"]["allowed"]) == (201, False)
    status, refused = await session.call("GET", PODS, token="wrong")
    assert (status, refused["reason"]) == (401, "Unauthorized")
    status, _ = await session.call("GET", "/healthz", token="")
    assert status == 200


async def test_service_account_tokens_are_good_until_the_account_goes(
    server: Apiserver, session: Session
) -> None:
    accounts = "/api/v1/namespaces/default/serviceaccounts"
    await session.call("POST", accounts, {"metadata": {"name": "robot"}})
    status, answer = await session.call("POST", f"{accounts}/robot/token", {"spec": {}})
    assert status == 201
    token = answer["status"]["token"]
    path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    status, me = await session.call("POST", path, {}, token=token)
    assert status == 201
    assert me["status"]["userInfo"]["username"] == "system:serviceaccount:default:robot"
    status, _ = await session.call("POST", path, {}, token=token[:-4] + "AAAA")
    assert status == 401
    await session.call("DELETE", f"{accounts}/robot")
    status, _ = await session.call("POST", path, {}, token=token)
    assert status == 401


async def test_a_log_of_a_pod_that_is_not_there(session: Session) -> None:
    status, refused = await session.call("GET", f"{PODS}/zz/log")
    assert (status, refused["message"]) == (404, 'pods "zz" not found')


async def test_a_watch_sees_what_a_disruption_budget_allows(server: Apiserver) -> None:
    async with open_session(server) as session, open_watch(server, f"{PODS}?watch=1") as watch:
        await session.call("POST", PODS, pod("p"))
        status, _ = await session.call("POST", f"{PODS}/p/eviction", {"metadata": {"name": "p"}})
        assert status == 201
        assert await watch.brief() == ("ADDED", "p")
        assert await watch.brief() == ("DELETED", "p")
