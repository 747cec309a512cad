"""Admission of what is written through subresources, of connections, and what auditors are told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from k8slite.apiserver import Apiserver
from tests.apiserver.hooks import Hooks, register
from tests.apiserver.support import Session, open_session, open_test_apiserver, pod

GROUP = "/apis/admissionregistration.k8s.io/v1"
PODS = "/api/v1/namespaces/default/pods"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
ACCOUNTS = "/api/v1/namespaces/default/serviceaccounts"
MERGE = "application/merge-patch+json"


@asynccontextmanager
async def world() -> AsyncIterator[tuple[Apiserver, Session]]:
    async with open_test_apiserver() as server, open_session(server) as session:
        template = {
            "metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
        }
        spec = {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": template}
        for path, body in (
            (PODS, pod("p")),
            (DEPLOYMENTS, {"metadata": {"name": "d"}, "spec": spec}),
        ):
            status, answer = await session.call("POST", path, body)
            assert status == 201, answer
        yield server, session


def rule(group: str, resource: str, *operations: str) -> dict[str, Any]:
    return {
        "apiGroups": [group], "apiVersions": ["*"], "operations": list(operations) or ["*"],
        "resources": [resource],
    }  # fmt: skip


EXEC = "exec?command=ls&command=-l&stdout=true&container=c"
CASES: list[tuple[str, str, str, str, Any, dict[str, Any]]] = [
    (
        "apps", "deployments/scale", "PATCH", f"{DEPLOYMENTS}/d/scale", {"spec": {"replicas": 3}},
        {"kind": "Scale", "operation": "UPDATE", "spec": {"replicas": 3}},
    ),
    (
        "", "pods/binding", "POST", f"{PODS}/p/binding", {"target": {"kind": "Node", "name": "n"}},
        {"kind": "Binding", "operation": "CREATE", "target": {"kind": "Node", "name": "n"}},
    ),
    (
        "", "pods/eviction", "POST", f"{PODS}/p/eviction",
        {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}},
        {"kind": "Eviction", "operation": "CREATE"},
    ),
    (
        "", "serviceaccounts/token", "POST", f"{ACCOUNTS}/default/token",
        {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}},
        {"kind": "TokenRequest", "operation": "CREATE"},
    ),
    (
        "", "pods/status", "PATCH", f"{PODS}/p/status", {"status": {"phase": "Running"}},
        {"kind": "Pod", "operation": "UPDATE"},
    ),
    (
        "", "pods/exec", "GET", f"{PODS}/p/{EXEC}", None,
        {"kind": "PodExecOptions", "operation": "CONNECT", "command": ["ls", "-l"],
         "stdout": True, "container": "c"},
    ),
    (
        "", "pods/portforward", "GET", f"{PODS}/p/portforward?ports=80", None,
        {"kind": "PodPortForwardOptions", "operation": "CONNECT", "ports": [80]},
    ),
    (
        "", "pods/proxy", "GET", f"{PODS}/p/proxy/some/path", None,
        {"kind": "PodProxyOptions", "operation": "CONNECT", "path": "/some/path"},
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("group", "resource", "method", "path", "body", "expected"), CASES, ids=[c[1] for c in CASES]
)
async def test_webhooks_are_asked_about_parts(
    hooks: Hooks,
    group: str,
    resource: str,
    method: str,
    path: str,
    body: Any,
    expected: dict[str, Any],
) -> None:
    async with world() as (_, session):
        hooks.answers["/x"] = lambda r: {"allowed": False, "status": {"message": "no"}}
        await register(session, hooks, "validating", "a", "x", rules=[rule(group, resource)])
        media = MERGE if method == "PATCH" else "application/json"
        status, answer = await session.call(method, path, body, content_type=media)
        assert status == 400, answer
        assert answer["message"] == 'admission webhook "x.example.org" denied the request: no'
        (asked,) = [request for _, request in hooks.asked]
        plural, _, part = resource.partition("/")
        assert asked["subResource"] == part
        assert asked["resource"]["resource"] == plural
        assert asked["operation"] == expected.pop("operation")
        assert asked["kind"]["kind"] == expected["kind"] == asked["object"]["kind"]
        assert asked["name"] == path.partition(f"/{plural}/")[2].partition("/")[0]
        assert {key: asked["object"][key] for key in expected} == expected
        assert (asked["oldObject"] is not None) is (asked["operation"] == "UPDATE")
        assert (asked["options"] is None) is (asked["operation"] == "CONNECT")


async def test_a_scale_that_a_webhook_changes(hooks: Hooks) -> None:
    async with world() as (_, session):
        hooks.answers["/x"] = lambda r: {
            "patch": [{"op": "replace", "path": "/spec/replicas", "value": 5}]
        }
        rules = [rule("apps", "deployments/scale")]
        await register(session, hooks, "mutating", "a", "x", rules=rules)
        patch = {"spec": {"replicas": 3}}
        status, scale = await session.call(
            "PATCH", f"{DEPLOYMENTS}/d/scale", patch, content_type=MERGE
        )
        assert (status, scale["spec"]) == (200, {"replicas": 5})
        _, found = await session.call("GET", f"{DEPLOYMENTS}/d")
        assert found["spec"]["replicas"] == 5


async def test_an_eviction_is_not_asked_about_as_a_deletion(hooks: Hooks) -> None:
    async with world() as (_, session):
        hooks.answers["/x"] = lambda r: {}
        await register(session, hooks, "validating", "a", "x", rules=[rule("", "pods/*")])
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}}
        status, _ = await session.call("POST", f"{PODS}/p/eviction", body)
        assert status == 201
        assert [request["operation"] for _, request in hooks.asked] == ["CREATE"]


POLICIES: list[tuple[dict[str, Any], str, str, str, Any]] = [
    (rule("apps", "deployments/scale"), "object.spec.replicas < 3", "PATCH",
     f"{DEPLOYMENTS}/d/scale", {"spec": {"replicas": 3}}),
    (rule("", "pods/exec", "CONNECT"), "object.command[0] != 'ls'", "GET", f"{PODS}/p/{EXEC}",
     None),
    (rule("", "pods/eviction"), "request.kind.kind != 'Eviction'", "POST", f"{PODS}/p/eviction",
     {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}}),
]  # fmt: skip


@pytest.mark.parametrize(("matched", "expression", "method", "path", "body"), POLICIES)
async def test_policies_about_parts(
    matched: dict[str, Any], expression: str, method: str, path: str, body: Any
) -> None:
    async with world() as (_, session):
        spec = {
            "matchConstraints": {"resourceRules": [matched]},
            "validations": [{"expression": expression}, {"expression": "1 > 2"}],
        }
        policy = {"metadata": {"name": "p"}, "spec": spec}
        binding = {
            "metadata": {"name": "b"},
            "spec": {"policyName": "p", "validationActions": ["Deny"]},
        }
        for kind, obj in (("policies", policy), ("policybindings", binding)):
            status, answer = await session.call("POST", f"{GROUP}/validatingadmission{kind}", obj)
            assert status == 201, answer
        media = MERGE if method == "PATCH" else "application/json"
        status, answer = await session.call(method, path, body, content_type=media)
        assert (status, answer["reason"]) == (422, "Invalid")
        messages = [cause["message"].rpartition(": ")[2] for cause in answer["details"]["causes"]]
        assert messages == [expression, "1 > 2"]


AUDIT = """
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: Metadata, resources: [{group: "", resources: [configmaps]}]}
"""


async def test_what_auditors_are_told(hooks: Hooks, tmp_path: Path) -> None:
    log, audit_policy = tmp_path / "audit.log", tmp_path / "audit.yaml"
    audit_policy.write_text(AUDIT)
    audited = {"audit_policy": str(audit_policy), "audit_log": str(log)}
    async with open_test_apiserver(**audited) as server, open_session(server) as session:
        hooks.answers |= {"/m": lambda r: {}, "/v": lambda r: {"auditAnnotations": {"k": "seen"}}}
        rules = [rule("", "configmaps")]
        await register(session, hooks, "mutating", "a", "m", rules=rules)
        await register(session, hooks, "validating", "b", "v", rules=rules)
        spec = {
            "matchConstraints": {"resourceRules": rules},
            "validations": [{"expression": "object.metadata.name != 'm'", "message": "bad"}],
            "auditAnnotations": [
                {"key": "name", "valueExpression": "'it is ' + object.metadata.name"},
                {"key": "none", "valueExpression": "null"},
            ],
        }
        policy = {"metadata": {"name": "p"}, "spec": spec}
        bound = {"policyName": "p", "validationActions": ["Audit"]}
        binding = {"metadata": {"name": "b"}, "spec": bound}
        for kind, obj in (("policies", policy), ("policybindings", binding)):
            status, answer = await session.call("POST", f"{GROUP}/validatingadmission{kind}", obj)
            assert status == 201, answer
        body = {"metadata": {"name": "m"}}
        status, _ = await session.call("POST", "/api/v1/namespaces/default/configmaps", body)
        assert status == 201
        notes = orjson.loads(log.read_bytes().splitlines()[-1])["annotations"]
        assert notes["v.example.org/k"] == "seen"
        assert notes["p/name"] == "it is m"
        assert "p/none" not in notes
        assert orjson.loads(notes["mutation.webhook.admission.k8s.io/round_0_index_0"]) == {
            "configuration": "a", "webhook": "m.example.org", "mutated": False,
        }  # fmt: skip
        (failure,) = orjson.loads(notes["validation.policy.admission.k8s.io/validation_failure"])
        assert failure == {
            "message": "bad", "policy": "p", "binding": "b", "expressionIndex": 0,
            "validationActions": ["Audit"],
        }  # fmt: skip
