"""Custom resources in several versions: stored in one, served in each, converted by a webhook."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
import trio

from k8slite.apiserver import Apiserver
from k8slite.apiserver.store.memory import MemoryStore
from tests.apiserver.hooks import Hooks
from tests.apiserver.support import Session, open_session, open_test_apiserver, open_watch

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"
ONE = "/apis/rec.io/v1/namespaces/default/disks"
TWO = "/apis/rec.io/v2/namespaces/default/disks"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


def version(name: str, field: str, *, storage: bool = False) -> dict[str, Any]:
    status = {"type": "object", "properties": {field: {"type": "string"}}}
    properties = {field: {"type": "string"}, "replicas": {"type": "integer"}}
    schema = {
        "type": "object",
        "properties": {"spec": {"type": "object", "properties": properties}, "status": status},
    }
    return {
        "name": name,
        "served": True,
        "storage": storage,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas",
            },
        },
        "selectableFields": [{"jsonPath": f".spec.{field}"}],
        "additionalPrinterColumns": [
            {"name": field, "type": "string", "jsonPath": f".spec.{field}"}
        ],
    }


def definition(hooks: Hooks | None, *, storage: str = "v1") -> dict[str, Any]:
    versions = [
        version("v1", "size", storage=storage == "v1"),
        version("v2", "size" if hooks is None else "capacity", storage=storage == "v2"),
    ]
    spec = {
        "group": "rec.io",
        "scope": "Namespaced",
        "names": {"plural": "disks", "kind": "Disk"},
        "versions": versions,
    }
    if hooks is not None:
        client = {"url": f"{hooks.url}/convert", "caBundle": hooks.ca}
        webhook = {"clientConfig": client, "conversionReviewVersions": ["v1"]}
        spec["conversion"] = {"strategy": "Webhook", "webhook": webhook}
    return {"metadata": {"name": "disks.rec.io"}, "spec": spec}


RENAMED = {"rec.io/v2": ("size", "capacity"), "rec.io/v1": ("capacity", "size")}


def converts(request: dict[str, Any]) -> dict[str, Any]:
    wanted = request["desiredAPIVersion"]
    old, new = RENAMED[wanted]
    made = []
    for obj in request["objects"]:
        assert obj["apiVersion"] != wanted
        obj["apiVersion"] = wanted
        for part in ("spec", "status"):
            if old in obj.get(part, {}):
                obj[part][new] = obj[part].pop(old)
        made.append(obj)
    return {"result": {"status": "Success"}, "convertedObjects": made}


async def establish(server: Apiserver, session: Session, body: dict[str, Any]) -> None:
    name = body["metadata"]["name"]
    async with open_watch(server, f"{DEFINITIONS}?watch=1") as watch:
        status, answer = await session.call("POST", DEFINITIONS, body)
        assert status == 201, answer
        with trio.fail_after(5):
            while True:
                obj = (await watch.next())["object"]
                conditions = (obj.get("status") or {}).get("conditions") or ()
                if obj["metadata"]["name"] == name and any(
                    c["type"] == "Established" and c["status"] == "True" for c in conditions
                ):
                    return


@asynccontextmanager
async def world(hooks: Hooks | None, **how: Any) -> AsyncIterator[tuple[Apiserver, Session]]:
    if hooks is not None:
        hooks.answers["/convert"] = converts
    async with open_test_apiserver() as server, open_session(server) as session:
        await establish(server, session, definition(hooks, **how))
        yield server, session


def disk(version: str, name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": f"rec.io/{version}", "kind": "Disk", "metadata": {"name": name},
        "spec": spec,
    }  # fmt: skip


async def good(session: Session, method: str, path: str, body: Any = None, **more: Any) -> Any:
    status, answer = await session.call(method, path, body, **more)
    assert status in (200, 201), answer
    return answer


def stored(server: Apiserver, name: str) -> tuple[str, dict[str, Any]]:
    entry = server.core.mirror.raw_cache("rec.io", "disks").get("default", name)
    assert entry is not None
    return entry.version, entry.parsed()["spec"]


@pytest.mark.parametrize("with_webhook", [False, True])
async def test_each_version_is_served(hooks: Hooks, with_webhook: bool) -> None:
    new = "capacity" if with_webhook else "size"
    async with world(hooks if with_webhook else None) as (server, session):
        made = await good(session, "POST", TWO, disk("v2", "a", **{new: "5"}))
        assert (made["apiVersion"], made["spec"]) == ("rec.io/v2", {new: "5"})
        await server.core.mirror.wait_fresh()
        assert stored(server, "a") == ("rec.io/v1", {"size": "5"})
        await good(session, "POST", ONE, disk("v1", "b", size="6"))
        found = await good(session, "GET", f"{TWO}/b")
        assert (found["apiVersion"], found["spec"]) == ("rec.io/v2", {new: "6"})
        listed = await good(session, "GET", TWO)
        assert [item["spec"] for item in listed["items"]] == [{new: "5"}, {new: "6"}]
        assert {item["apiVersion"] for item in listed["items"]} == {"rec.io/v2"}
        table = await good(session, "GET", TWO, accept=TABLE)
        assert [row["cells"] for row in table["rows"]] == [["a", "5"], ["b", "6"]]
        found["spec"][new] = "7"
        await good(session, "PUT", f"{TWO}/b", found)
        patch = {"spec": {new: "8"}}
        await good(session, "PATCH", f"{TWO}/a", patch, content_type=MERGE)
        await good(session, "PATCH", f"{TWO}/b/status", {"status": {new: "9"}}, content_type=MERGE)
        await good(
            session, "PATCH", f"{TWO}/b/scale", {"spec": {"replicas": 3}}, content_type=MERGE
        )
        one = {
            item["metadata"]["name"]: item for item in (await good(session, "GET", ONE))["items"]
        }
        assert one["a"]["spec"] == {"size": "8"}
        assert one["b"]["spec"] == {"size": "7", "replicas": 3}
        assert one["b"]["status"] == {"size": "9"}
        applied = orjson.dumps(disk("v2", "c", **{new: "1"}))
        path = f"{TWO}/c?fieldManager=me"
        await good(session, "PATCH", path, applied, content_type=APPLY)
        await good(session, "PATCH", path, applied, content_type=APPLY)
        assert (await good(session, "GET", f"{ONE}/c"))["spec"] == {"size": "1"}
        await good(session, "DELETE", f"{TWO}/c")


async def test_watches_of_each_version(hooks: Hooks) -> None:
    async with world(hooks) as (server, session):
        await good(session, "POST", ONE, disk("v1", "a", size="1"))
        query = "watch=1&resourceVersion=0"
        selected = f"{query}&fieldSelector=spec.capacity%3D2"
        async with (
            open_watch(server, f"{TWO}?{query}") as two,
            open_watch(server, f"{ONE}?{query}") as one,
            open_watch(server, f"{TWO}?{selected}") as some,
        ):
            for capacity in ("2", "3"):
                patch = {"spec": {"capacity": capacity}}
                await good(session, "PATCH", f"{TWO}/a", patch, content_type=MERGE)
            await good(session, "DELETE", f"{ONE}/a")
            with trio.fail_after(5):
                seen = [await two.next() for _ in range(4)]
                old = [await one.next() for _ in range(4)]
                few = [await some.next() for _ in range(2)]
        kinds = ["ADDED", "MODIFIED", "MODIFIED", "DELETED"]
        assert [e["type"] for e in seen] == [e["type"] for e in old] == kinds
        assert [e["object"]["spec"] for e in seen] == [{"capacity": c} for c in "1233"]
        assert [e["object"]["spec"] for e in old] == [{"size": c} for c in "1233"]
        assert [(e["type"], e["object"]["spec"]) for e in few] == [
            ("ADDED", {"capacity": "2"}), ("DELETED", {"capacity": "2"}),
        ]  # fmt: skip
        versions = [int(e["object"]["metadata"]["resourceVersion"]) for e in seen]
        assert versions == sorted(set(versions))


async def test_selectable_fields_are_those_of_the_version(hooks: Hooks) -> None:
    async with world(hooks) as (_, session):
        for name, size in (("a", "1"), ("b", "2"), ("c", "2")):
            await good(session, "POST", ONE, disk("v1", name, size=size))
        found = await good(session, "GET", f"{TWO}?fieldSelector=spec.capacity%3D2")
        assert [item["metadata"]["name"] for item in found["items"]] == ["b", "c"]
        found = await good(session, "GET", f"{ONE}?fieldSelector=spec.size!%3D2")
        assert [item["metadata"]["name"] for item in found["items"]] == ["a"]
        status, answer = await session.call("GET", f"{TWO}?fieldSelector=spec.size%3D2")
        assert (status, answer["message"].rpartition(": ")[2]) == (400, "spec.size")


FAILURES: list[tuple[dict[str, Any] | None, str]] = [
    ({"result": {"status": "Failed", "message": "no disk today"}}, "failed: no disk today"),
    ({"result": {"status": "What"}}, "failed: response.result.status was 'What', not 'Success'"),
    (
        {"result": {"status": "Success"}, "convertedObjects": []},
        "returned 0 objects, expected 1",
    ),
    (
        {"result": {"status": "Success"}, "convertedObjects": [{"apiVersion": "rec.io/v1"}]},
        "returned invalid object at index 0: invalid groupVersion (expected rec.io/v2, received "
        "rec.io/v1)",
    ),
    (
        {
            "result": {"status": "Success"},
            "convertedObjects": [
                {"apiVersion": "rec.io/v2", "kind": "Disk", "metadata": {"name": "other"}}
            ],
        },
        "returned invalid object: must have the same name: a != other",
    ),
]


@pytest.mark.parametrize(("answer", "message"), FAILURES)
async def test_failures_are_told(hooks: Hooks, answer: dict[str, Any], message: str) -> None:
    async with world(hooks) as (server, session):
        await good(session, "POST", ONE, disk("v1", "a", size="1"))
        hooks.answers["/convert"] = lambda request: answer
        for path in (f"{TWO}/a", TWO):
            status, told = await session.call("GET", path)
            assert status == 500
            head = "conversion webhook for rec.io/v1, Kind=Disk "
            assert told["message"] == head + message
        async with open_watch(server, f"{TWO}?watch=1&resourceVersion=0") as watch:
            event = await watch.next()
            assert (event["type"], event["object"]["code"]) == ("ERROR", 500)
        status, told = await session.call("GET", f"{ONE}/a")
        assert (status, told["spec"]) == (200, {"size": "1"})


async def test_an_unreachable_webhook(hooks: Hooks) -> None:
    async with world(hooks) as (_, session):
        await good(session, "POST", ONE, disk("v1", "a", size="1"))
        service = {"name": "hook", "namespace": "default", "path": "/convert"}
        patch = {"spec": {"conversion": {"webhook": {"clientConfig": {
            "url": None, "service": service}}}}}  # fmt: skip
        path = f"{DEFINITIONS}/disks.rec.io"
        await good(session, "PATCH", path, patch, content_type=MERGE)
        status, told = await session.call("GET", f"{TWO}/a")
        assert (status, told["message"]) == (
            500,
            'conversion webhook for rec.io/v1, Kind=Disk failed: service "hook" not found',
        )


async def test_objects_are_rewritten_in_the_new_storage_version(hooks: Hooks) -> None:
    """Also by a write that changes nothing, as storage migrators do."""
    async with world(hooks) as (server, session):
        await good(session, "POST", ONE, disk("v1", "a", size="1"))
        path = f"{DEFINITIONS}/disks.rec.io"
        found = await good(session, "GET", path)
        for each in found["spec"]["versions"]:
            each["storage"] = each["name"] == "v2"
        changed = await good(session, "PUT", path, found)
        assert changed["status"]["storedVersions"] == ["v1", "v2"]
        await server.core.mirror.wait_fresh()
        assert stored(server, "a") == ("rec.io/v1", {"size": "1"})
        assert (await good(session, "GET", f"{TWO}/a"))["spec"] == {"capacity": "1"}
        await good(session, "PUT", f"{ONE}/a", await good(session, "GET", f"{ONE}/a"))
        await server.core.mirror.wait_fresh()
        assert stored(server, "a") == ("rec.io/v2", {"capacity": "1"})
        assert (await good(session, "GET", f"{ONE}/a"))["spec"] == {"size": "1"}
        changed = await good(session, "GET", path)
        del changed["spec"]["versions"][0]
        status, refused = await session.call("PUT", path, changed)
        assert status == 422
        assert refused["message"].startswith(
            'CustomResourceDefinition.apiextensions.k8s.io "disks.rec.io" is invalid: '
            'status.storedVersions[0]: Invalid value: "v1": missing from spec.versions; v1 was '
        )
        body = {"status": {"storedVersions": ["v2"]}}
        await good(session, "PATCH", f"{path}/status", body, content_type=MERGE)
        changed = await good(session, "GET", path)
        del changed["spec"]["versions"][0]
        await good(session, "PUT", path, changed)
        assert (await session.call("GET", ONE))[0] == 404
        assert (await good(session, "GET", TWO))["items"][0]["spec"] == {"capacity": "1"}


async def test_webhooks_and_policies_see_the_version_they_ask_for(hooks: Hooks) -> None:
    from tests.apiserver.hooks import register

    rule = {
        "apiGroups": ["rec.io"], "apiVersions": ["v2"], "operations": ["*"],
        "resources": ["disks"],
    }  # fmt: skip
    async with world(hooks) as (_, session):
        hooks.answers["/see"] = lambda request: {
            "patch": [{"op": "replace", "path": "/spec/capacity", "value": "9"}]
        }
        await register(session, hooks, "mutating", "a", "see", rules=[rule])
        hooks.paths()
        made = await good(session, "POST", ONE, disk("v1", "a", size="1"))
        asked = [request for path, request in hooks.asked if path == "/see"]
        assert asked[0]["object"]["spec"] == {"capacity": "1"}
        assert asked[0]["kind"]["version"] == "v2"
        assert made["spec"] == {"size": "9"}


async def test_names_that_are_taken() -> None:
    async with open_test_apiserver() as server, open_session(server) as session:
        await establish(server, session, definition(None))
        other = definition(None)
        other["metadata"]["name"] = "plates.rec.io"
        other["spec"]["names"] = {
            "plural": "plates", "singular": "disk", "kind": "Disk", "shortNames": ["p", "disks"],
        }  # fmt: skip
        path = f"{DEFINITIONS}/plates.rec.io"
        await good(session, "POST", DEFINITIONS, other)
        with trio.fail_after(5):
            while not (found := (await good(session, "GET", path))["status"])["conditions"]:
                await trio.sleep(0.01)
        conditions = {c["type"]: c for c in found["conditions"]}
        assert conditions["NamesAccepted"]["reason"] == "ListKindConflict"
        assert conditions["NamesAccepted"]["message"] == '"DiskList" is already in use'
        assert conditions["Established"]["status"] == "False"
        assert conditions["Established"]["reason"] == "NotAccepted"
        assert found["acceptedNames"] == {"plural": "plates", "kind": ""}
        assert (await session.call("GET", ONE.replace("disks", "plates")))[0] == 404
        await good(session, "DELETE", f"{DEFINITIONS}/disks.rec.io")
        with trio.fail_after(5):
            while (await session.call("GET", ONE.replace("disks", "plates")))[0] == 404:
                await trio.sleep(0.01)


SELECTABLE: list[tuple[str, str]] = [
    (".spec.none", "is an invalid path: does not refer to a valid field"),
    ("spec.size", "is an invalid path: does not refer to a valid field"),
    (".metadata.name", "must not point to fields in metadata"),
    (
        ".spec",
        "must point to a field of type string, boolean or integer. Enum string fields and "
        "strings with formats are allowed.",
    ),
]


@pytest.mark.parametrize(("path", "message"), SELECTABLE)
async def test_fields_that_cannot_be_selected(path: str, message: str) -> None:
    async with open_test_apiserver() as server, open_session(server) as session:
        body = definition(None)
        body["spec"]["versions"][0]["selectableFields"] = [{"jsonPath": path}]
        status, answer = await session.call("POST", DEFINITIONS, body)
        assert (status, answer["details"]["causes"][0]["message"]) == (
            422,
            f'Invalid value: "{path}": {message}',
        )


async def test_every_server_publishes_a_definition(hooks: Hooks) -> None:
    store = MemoryStore()
    hooks.answers["/convert"] = converts
    async with (
        open_test_apiserver(store, identity="one") as first,
        open_test_apiserver(store, identity="two") as second,
        open_session(first) as one,
        open_session(second) as two,
    ):
        await good(one, "POST", DEFINITIONS, definition(hooks))
        for path in ("/apis/rec.io/v2", "/openapi/v3/apis/rec.io/v2", "/apis/rec.io"):
            for session in (one, two):
                with trio.fail_after(5):
                    while (await session.call("GET", path))[0] != 200:
                        await trio.sleep(0.01)
        await good(one, "POST", ONE, disk("v1", "a", size="5"))
        assert (await good(two, "GET", f"{TWO}/a"))["spec"] == {"capacity": "5"}
        _, groups = await two.call("GET", "/apis")
        (group,) = [g for g in groups["groups"] if g["name"] == "rec.io"]
        assert [v["version"] for v in group["versions"]] == ["v2", "v1"]
        _, index = await two.call("GET", "/openapi/v3")
        assert {"apis/rec.io/v1", "apis/rec.io/v2"} <= index["paths"].keys()


REVIEWS: list[tuple[list[str], str]] = [
    ([], "Required value"),
    (["v9"], 'Invalid value: ["v9"]: must include at least one of v1, v1beta1'),
]


@pytest.mark.parametrize(("versions", "message"), REVIEWS)
async def test_versions_of_reviews(hooks: Hooks, versions: list[str], message: str) -> None:
    async with open_test_apiserver() as server, open_session(server) as session:
        body = definition(hooks)
        body["spec"]["conversion"]["webhook"]["conversionReviewVersions"] = versions
        status, answer = await session.call("POST", DEFINITIONS, body)
        assert (status, answer["details"]["causes"][0]["message"]) == (422, message)
