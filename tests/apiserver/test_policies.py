"""ValidatingAdmissionPolicy: what is refused, warned of and let through, run against the server."""

from __future__ import annotations

from typing import Any

import pytest

from tests.apiserver.support import ALICE, Session, open_session, open_test_apiserver

GROUP = "/apis/admissionregistration.k8s.io/v1"
MAPS = "/api/v1/namespaces/default/configmaps"
MATCH = {
    "resourceRules": [
        {
            "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE", "DELETE"],
            "resources": ["configmaps"],
        }
    ]
}  # fmt: skip


async def post(session: Session, path: str, body: dict[str, Any]) -> Any:
    status, answer = await session.call("POST", path, body)
    assert status == 201, answer
    return answer


async def enforce(session: Session, binding: dict[str, Any] | None = None, **spec: Any) -> None:
    policy = {"metadata": {"name": "p"}, "spec": {"matchConstraints": MATCH, **spec}}
    await post(session, f"{GROUP}/validatingadmissionpolicies", policy)
    bound = {"policyName": "p", "validationActions": ["Deny"], **(binding or {})}
    path = f"{GROUP}/validatingadmissionpolicybindings"
    await post(session, path, {"metadata": {"name": "b"}, "spec": bound})


async def create(session: Session, name: str = "m", **parts: Any) -> tuple[int, Any]:
    return await session.call("POST", MAPS, {"metadata": {"name": name}, **parts})


def denied(message: str) -> str:
    return (
        "configmaps \"m\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied "
        f"request: {message}"
    )


CASES: list[tuple[dict[str, Any], str]] = [
    ({"validations": [{"expression": "has(object.data) && object.data.x == 'y'"}]}, ""),
    (
        {"validations": [{"expression": "object.metadata.name != 'm'"}]},
        "failed expression: object.metadata.name != 'm'",
    ),
    (
        {"validations": [{"expression": "false", "message": "no", "reason": "Forbidden"}]},
        "no",
    ),
    (
        {"validations": [{"expression": "false", "messageExpression": "'no ' + request.name"}]},
        "no m",
    ),
    (
        {"validations": [{"expression": "object.data.missing == 'x'"}]},
        "expression 'object.data.missing == 'x'' resulted in error: no such key: missing",
    ),
    (
        {"validations": [{"expression": "object.data.missing == 'x'"}], "failurePolicy": "Ignore"},
        "",
    ),
    (
        {
            "variables": [
                {"name": "n", "expression": "size(variables.names)"},
                {"name": "names", "expression": "object.data.map(k, k)"},
                {"name": "broken", "expression": "object.nothing.at.all"},
            ],
            "validations": [
                {"expression": "has(object.spec) ? variables.broken == 1 : variables.n == 2"}
            ],
        },
        "",
    ),
    (
        {
            "matchConditions": [
                {"name": "c", "expression": "request.userInfo.username != 'admin'"}
            ],
            "validations": [{"expression": "false"}],
        },
        "",
    ),
    (
        {"validations": [{"expression": "namespaceObject.metadata.name == 'default'"},
                         {"expression": "oldObject == null && request.operation == 'CREATE'"}]},
        "",
    ),
    (
        {"validations": [{"expression": "authorizer.requestResource.check('custom').allowed()"}]},
        "",
    ),
    (
        {"validations": [{"expression":
            "authorizer.serviceAccount('a', 'b').path('/x').check('get').allowed()"}]},
        "failed expression: authorizer.serviceAccount('a', 'b').path('/x').check('get').allowed()",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "message"), CASES)
async def test_validations(spec: dict[str, Any], message: str) -> None:
    async with open_test_apiserver() as server, open_session(server) as session:
        await enforce(session, **spec)
        status, answer = await create(session, data={"x": "y", "z": ""})
        if not message:
            assert status == 201, answer
            return
        reason = spec["validations"][0].get("reason", "Invalid")
        assert (status, answer["reason"]) == (403 if reason == "Forbidden" else 422, reason)
        assert answer["message"] == denied(message)
        told = answer["details"]["causes"][0]["message"]
        assert told == answer["message"].partition(" is forbidden: ")[2]


async def test_warnings_and_narrower_bindings() -> None:
    async with open_test_apiserver() as server, open_session(server) as session:
        narrower = {"objectSelector": {"matchLabels": {"strict": "yes"}}}
        binding = {"validationActions": ["Warn", "Audit"], "matchResources": narrower}
        await enforce(session, binding, validations=[{"expression": "false", "message": "hm"}])
        assert (await create(session))[0] == 201
        assert "warning" not in session.headers
        body = {"metadata": {"name": "n", "labels": {"strict": "yes"}}}
        assert (await session.call("POST", MAPS, body))[0] == 201
        assert session.headers["warning"] == (
            "299 - \"Validation failed for ValidatingAdmissionPolicy 'p' with binding 'b': hm\""
        )


async def test_parameters() -> None:
    async with open_test_apiserver() as server, open_session(server) as session:
        reference = {"name": "limits", "parameterNotFoundAction": "Deny"}
        await enforce(
            session,
            {"paramRef": reference},
            paramKind={"apiVersion": "v1", "kind": "Secret"},
            validations=[{"expression": "size(object.data) <= int(params.metadata.labels.max)"}],
        )
        status, answer = await create(session, data={"a": "1"})
        assert (status, answer["message"]) == (
            422,
            denied(
                "failed to configure binding: no params found for policy binding with `Deny` "
                "parameterNotFoundAction"
            ),
        )
        limits = {"metadata": {"name": "limits", "labels": {"max": "1"}}}
        await post(session, "/api/v1/namespaces/default/secrets", limits)
        assert (await create(session, data={"a": "1"}))[0] == 201
        assert (await create(session, "n", data={"a": "1", "b": "2"}))[0] == 422


async def test_deletions_and_updates() -> None:
    async with open_test_apiserver() as server, open_session(server) as session:
        await create(session, data={"kept": "yes"})
        await enforce(
            session,
            validations=[
                {"expression": "request.operation != 'DELETE' || !has(oldObject.data.kept)"},
                {"expression": "oldObject == null || object == null || has(object.data.kept)"},
            ],
        )
        status, answer = await session.call("DELETE", f"{MAPS}/m")
        assert (status, answer["message"]) == (
            422,
            denied("failed expression: request.operation != 'DELETE' || !has(oldObject.data.kept)"),
        )
        patch = [{"op": "remove", "path": "/data"}]
        media = "application/json-patch+json"
        status, _ = await session.call("PATCH", f"{MAPS}/m", patch, content_type=media)
        assert status == 422
        status, _ = await session.call("DELETE", f"{MAPS}/m", token=ALICE)
        assert status == 403


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"validations": [{"expression": "params.x == 1"}]},
            'spec.validations[0].expression: Invalid value: "params.x == 1": compilation failed: '
            "ERROR: <input>:1:1: undeclared reference to 'params' (in container '')",
        ),
        (
            {"validations": [{"expression": "1 + 1"}]},
            'spec.validations[0].expression: Invalid value: "1 + 1": must evaluate to bool',
        ),
        (
            {"validations": [{"expression": "true", "messageExpression": "1"}]},
            'spec.validations[0].messageExpression: Invalid value: "1": must evaluate to string',
        ),
    ],
)
async def test_policies_that_are_none(changes: dict[str, Any], message: str) -> None:
    async with open_test_apiserver() as server, open_session(server) as session:
        body = {"metadata": {"name": "p"}, "spec": {"matchConstraints": MATCH, **changes}}
        status, answer = await session.call("POST", f"{GROUP}/validatingadmissionpolicies", body)
        assert status == 422
        assert message in answer["message"]
