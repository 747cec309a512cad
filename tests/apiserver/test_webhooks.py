"""Webhooks, asked over real TLS: who is asked, what they may change, and when they fail."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.apiserver.hooks import CONFIGURATIONS, MAPS, RULE, Hooks, create, register
from tests.apiserver.support import ALICE, Session, open_session, open_test_apiserver
from tests.certificates import Authority


@asynccontextmanager
async def open_pair() -> AsyncIterator[Session]:
    async with open_test_apiserver() as server, open_session(server) as session:
        yield session


async def test_mutation_validation_and_denial(hooks: Hooks) -> None:
    async with open_pair() as session:
        hooks.answers["/add"] = lambda r: {
            "patch": [{"op": "add", "path": "/data", "value": {"by": "hook"}}],
            "warnings": ["was changed"],
        }
        hooks.answers["/check"] = lambda r: {
            "allowed": (r["object"] or {}).get("metadata", {}).get("name") != "bad",
            "status": {"message": "bad name", "code": 418, "reason": "Teapot"},
        }
        await register(session, hooks, "mutating", "a", "add")
        await register(session, hooks, "validating", "b", "check")
        status, made = await create(session)
        assert (status, made["data"]) == (201, {"by": "hook"})
        assert "was changed" in session.headers["warning"]
        assert hooks.paths() == ["/add", "/check"]
        status, answer = await create(session, "bad")
        assert (status, answer["reason"], answer["message"]) == (
            418,
            "Teapot",
            'admission webhook "check.example.org" denied the request: bad name',
        )
        hooks.paths()
        made["data"] = {"x": "y"}
        status, made = await session.call("PUT", f"{MAPS}/m", made)
        assert (status, made["data"]) == (200, {"by": "hook"})
        request = hooks.asked[-1][1]
        assert request["operation"] == "UPDATE"
        assert request["oldObject"]["data"] == request["object"]["data"] == {"by": "hook"}
        assert request["userInfo"]["username"] == "admin"
        assert request["resource"] == {"group": "", "version": "v1", "resource": "configmaps"}
        hooks.paths()
        hooks.answers["/check"] = lambda r: {"allowed": r["operation"] != "DELETE"}
        status, answer = await session.call("DELETE", f"{MAPS}/m")
        assert (status, answer["message"]) == (
            400,
            'admission webhook "check.example.org" denied the request without explanation',
        )
        assert hooks.asked[-1][1]["object"] is None
        assert hooks.asked[-1][1]["oldObject"]["metadata"]["name"] == "m"


@pytest.mark.parametrize(
    ("path", "changes", "message"),
    [
        ("broken", {}, 'an error on the server ("unknown") has prevented the request'),
        ("nonsense", {}, "couldn't decode"),
        ("hang", {"timeoutSeconds": 1}, "hang?timeout=1s\": context deadline exceeded"),
        ("x", {"clientConfig": {"url": "https://127.0.0.1:1/x"}}, "onnection refused"),
        ("x", {"clientConfig": {"service": {"name": "n", "namespace": "default"}}},
         'service "n" not found'),
    ],
)  # fmt: skip
async def test_failures(hooks: Hooks, path: str, changes: dict[str, Any], message: str) -> None:
    async with open_pair() as session:
        await register(session, hooks, "validating", "a", path, failurePolicy="Fail", **changes)
        status, answer = await create(session)
        assert (status, answer["reason"]) == (500, "InternalError")
        prefix = f'Internal error occurred: failed calling webhook "{path}.example.org": '
        assert answer["message"].startswith(prefix)
        assert message in answer["message"]
        await session.call(
            "PATCH",
            f"{CONFIGURATIONS}/validatingwebhookconfigurations/a",
            [{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"}],
            content_type="application/json-patch+json",
        )
        assert (await create(session))[0] == 201


async def test_a_certificate_that_is_not_trusted(hooks: Hooks, tmp_path: Path) -> None:
    async with open_pair() as session:
        other = Authority(tmp_path / "other")
        hooks.ca = base64.b64encode(other.path.read_bytes()).decode()
        await register(session, hooks, "validating", "a", "x", failurePolicy="Fail")
        status, answer = await create(session)
        assert status == 500
        assert "certificate verify failed" in answer["message"]


SELECTED: list[tuple[dict[str, Any], bool]] = [
    ({"objectSelector": {"matchLabels": {"a": "b"}}}, True),
    ({"objectSelector": {"matchLabels": {"a": "c"}}}, False),
    ({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}}}, True),
    ({"namespaceSelector": {"matchLabels": {"no": "label"}}}, False),
    ({"rules": [{**RULE, "operations": ["UPDATE"]}]}, False),
    ({"rules": [{**RULE, "apiGroups": ["apps"]}]}, False),
    ({"rules": [{**RULE, "resources": ["*"]}]}, True),
    ({"rules": [{**RULE, "resources": ["configmaps/*"]}]}, True),
    ({"rules": [{**RULE, "resources": ["*/status"]}]}, False),
    ({"rules": [{**RULE, "scope": "Cluster"}]}, False),
    ({"matchConditions": [{"name": "c", "expression": "object.metadata.name == 'm'"}]}, True),
    ({"matchConditions": [{"name": "c", "expression": "request.userInfo.username == 'x'"}]},
     False),
    ({"matchConditions": [
        {"name": "c", "expression": "authorizer.group('').resource('pods').check('get').allowed()"}
    ]}, True),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "asked"), SELECTED)
async def test_who_is_asked(hooks: Hooks, changes: dict[str, Any], asked: bool) -> None:
    async with open_pair() as session:
        hooks.answers["/x"] = lambda r: {}
        await register(session, hooks, "validating", "a", "x", **changes)
        status, answer = await create(session, metadata={"labels": {"a": "b"}})
        assert status == 201, answer
        assert bool(hooks.asked) is asked


async def test_a_match_condition_that_fails(hooks: Hooks) -> None:
    async with open_pair() as session:
        conditions = [{"name": "c", "expression": "object.data.x == 'y'"}]
        await register(session, hooks, "validating", "a", "x", matchConditions=conditions)
        status, answer = await create(session)
        assert (status, answer["message"]) == (
            403,
            'configmaps "m" is forbidden: no such key: data',
        )


async def test_those_who_want_to_are_asked_again(hooks: Hooks) -> None:
    def counted(request: dict[str, Any]) -> dict[str, Any]:
        data = request["object"].get("data") or {}
        value = {**data, "seen": data.get("seen", "") + "1"}
        return {"patch": [{"op": "add", "path": "/data", "value": value}]}

    def adds(request: dict[str, Any]) -> dict[str, Any]:
        return {"patch": [{"op": "add", "path": "/data/late", "value": "1"}]}

    async with open_pair() as session:
        hooks.answers |= {"/first": counted, "/never": lambda r: {}, "/second": adds}
        await register(session, hooks, "mutating", "a", "first", reinvocationPolicy="IfNeeded")
        await register(session, hooks, "mutating", "b", "never", "second")
        _, made = await create(session)
        assert hooks.paths() == ["/first", "/never", "/second", "/first"]
        assert made["data"] == {"seen": "11", "late": "1"}


async def test_dry_run_and_side_effects(hooks: Hooks) -> None:
    async with open_pair() as session:
        hooks.answers["/x"] = lambda r: {}
        await register(session, hooks, "validating", "a", "x", sideEffects="NoneOnDryRun")
        status, _ = await create(session, query="?dryRun=All")
        assert status == 201
        assert hooks.asked[0][1]["dryRun"] is True
        assert hooks.asked[0][1]["options"]["dryRun"] == ["All"]


async def test_a_service_is_found_by_its_endpoints(hooks: Hooks) -> None:
    async with open_pair() as session:
        port = int(hooks.url.rpartition(":")[2])
        service = {
            "metadata": {"name": "hook"},
            "spec": {"ports": [{"name": "https", "port": 443}]},
        }
        await session.call("POST", "/api/v1/namespaces/default/services", service)
        slice_ = {
            "metadata": {"name": "hook-1", "labels": {"kubernetes.io/service-name": "hook"}},
            "addressType": "IPv4",
            "endpoints": [
                {"addresses": ["127.0.0.9"], "conditions": {"ready": False}},
                {"addresses": ["127.0.0.1"]},
            ],
            "ports": [{"name": "https", "port": port}],
        }
        path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
        status, answer = await session.call("POST", path, slice_)
        assert status == 201, answer
        hooks.answers["/x/y"] = lambda r: {"allowed": False}
        config = {
            "service": {"name": "hook", "namespace": "default", "path": "/x/y"},
            "caBundle": hooks.ca,
        }
        await register(session, hooks, "validating", "a", "x", clientConfig=config)
        status, answer = await create(session)
        assert (status, hooks.paths()) == (400, ["/x/y"])


async def test_equivalent_versions(hooks: Hooks) -> None:
    """A rule for autoscaling/v1 meets requests for v2, and sees v1."""
    async with open_pair() as session:
        hooks.answers["/x"] = lambda r: {}
        rule = {
            "apiGroups": ["autoscaling"], "apiVersions": ["v1"], "operations": ["CREATE"],
            "resources": ["horizontalpodautoscalers"],
        }  # fmt: skip
        await register(session, hooks, "validating", "a", "x", rules=[rule])
        metric = {
            "type": "Resource",
            "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 5}},
        }
        target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}
        body = {
            "metadata": {"name": "h"},
            "spec": {"scaleTargetRef": target, "maxReplicas": 3, "metrics": [metric]},
        }
        path = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers"
        status, answer = await session.call("POST", path, body)
        assert status == 201, answer
        request = hooks.asked[0][1]
        assert request["object"]["spec"]["targetCPUUtilizationPercentage"] == 5
        assert request["object"]["apiVersion"] == "autoscaling/v1"
        assert request["kind"]["version"] == "v1"
        assert request["requestKind"]["version"] == "v2"


async def test_configurations_are_not_asked_about(hooks: Hooks) -> None:
    """Whatever a webhook refuses, it can be removed."""
    async with open_pair() as session:
        everything = {
            "apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*/*"],
        }  # fmt: skip
        hooks.answers["/x"] = lambda r: {"allowed": False}
        await register(session, hooks, "validating", "a", "x", rules=[everything])
        assert (await create(session))[0] == 400
        status, _ = await session.call(
            "DELETE", f"{CONFIGURATIONS}/validatingwebhookconfigurations/a"
        )
        assert status == 200
        assert (await create(session))[0] == 201
        assert ALICE
