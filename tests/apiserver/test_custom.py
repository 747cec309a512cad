"""Custom resources: from a definition to objects, and what is left when it goes."""

from __future__ import annotations

from typing import Any

import trio

from k8slite.apiserver import Apiserver
from tests.apiserver.support import Session, open_session, open_watch

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
FOOS = "/apis/rec.io/v1/namespaces/default/foos"
MERGE = "application/merge-patch+json"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


def definition() -> dict[str, Any]:
    properties = {
        "n": {"type": "integer", "default": 5, "maximum": 10},
        "replicas": {"type": "integer"},
    }
    schema = {
        "type": "object",
        "properties": {
            "spec": {"type": "object", "properties": properties},
            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        },
    }
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas",
            },
        },
        "additionalPrinterColumns": [{"name": "N", "type": "integer", "jsonPath": ".spec.n"}],
    }
    return {
        "metadata": {"name": "foos.rec.io"},
        "spec": {
            "group": "rec.io",
            "scope": "Namespaced",
            "names": {"plural": "foos", "kind": "Foo"},
            "versions": [version],
        },
    }


async def establish(server: Apiserver, session: Session) -> None:
    query = "watch=1&fieldSelector=metadata.name%3Dfoos.rec.io"
    async with open_watch(server, f"{DEFINITIONS}?{query}") as watch:
        status, _ = await session.call("POST", DEFINITIONS, definition())
        assert status == 201
        with trio.fail_after(5):
            while True:
                conditions = (await watch.next())["object"]["status"].get("conditions") or ()
                if any(c["type"] == "Established" and c["status"] == "True" for c in conditions):
                    return


def foo(name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "rec.io/v1", "kind": "Foo", "metadata": {"name": name}, "spec": spec}


async def test_resources_of_a_definition(server: Apiserver, session: Session) -> None:
    status, _ = await session.call("GET", FOOS)
    assert status == 404
    await establish(server, session)
    status, made = await session.call("POST", FOOS, foo("a", unknown=1))
    assert (status, made["spec"], made["metadata"]["generation"]) == (201, {"n": 5}, 1)
    assert session.headers["warning"] == '299 - "unknown field \\"spec.unknown\\""'
    status, refused = await session.call("POST", FOOS, foo("b", n=50))
    assert (status, refused["message"]) == (
        422,
        'Foo.rec.io "b" is invalid: spec.n: Invalid value: 50: '
        "spec.n in body should be less than or equal to 10",
    )
    patch: dict[str, Any] = {"spec": {"n": 7}, "status": {"x": 1}}
    _, changed = await session.call("PATCH", f"{FOOS}/a", patch, content_type=MERGE)
    assert (changed["spec"]["n"], changed["metadata"]["generation"]) == (7, 2)
    assert "status" not in changed
    _, changed = await session.call("PATCH", f"{FOOS}/a/status", patch, content_type=MERGE)
    assert (changed["status"], changed["metadata"]["generation"]) == ({"x": 1}, 2)
    _, table = await session.call("GET", FOOS, accept=TABLE)
    assert [row["cells"] for row in table["rows"]] == [["a", 7]]
    _, found = await session.call("GET", FOOS)
    assert (found["kind"], found["items"][0]["kind"]) == ("FooList", "Foo")


async def test_discovery_and_openapi_follow(server: Apiserver, session: Session) -> None:
    await session.call("GET", "/apis")
    assert b"rec.io" not in session.text
    await establish(server, session)
    for path in ("/apis", "/apis/rec.io/v1", "/openapi/v3", "/openapi/v3/apis/rec.io/v1"):
        status, _ = await session.call("GET", path)
        assert status == 200
        assert b"rec.io" in session.text


async def test_scale_of_a_custom_resource(server: Apiserver, session: Session) -> None:
    await establish(server, session)
    await session.call("POST", FOOS, foo("a", replicas=2))
    status, scale = await session.call("GET", f"{FOOS}/a/scale")
    assert (status, scale["spec"]) == (200, {"replicas": 2})
    patch = {"spec": {"replicas": 3}}
    status, _ = await session.call("PATCH", f"{FOOS}/a/scale", patch, content_type=MERGE)
    assert status == 200
    _, found = await session.call("GET", f"{FOOS}/a")
    assert found["spec"]["replicas"] == 3


async def test_a_definition_takes_its_resources_with_it(
    server: Apiserver, session: Session
) -> None:
    await establish(server, session)
    for name in ("a", "b"):
        await session.call("POST", FOOS, foo(name))
    async with open_session(server) as other:
        status, _ = await other.call("DELETE", f"{DEFINITIONS}/foos.rec.io")
        assert status == 200
    with trio.fail_after(5):
        while (await session.call("GET", f"{DEFINITIONS}/foos.rec.io"))[0] != 404:
            await trio.sleep(0.01)
    status, _ = await session.call("GET", FOOS)
    assert status == 404
    assert not server.core.mirror.raw_cache("rec.io", "foos").entries
