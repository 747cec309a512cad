"""MutatingAdmissionPolicy: what expressions make of objects, and how it goes with webhooks."""

from __future__ import annotations

from typing import Any

import pytest

from tests.apiserver.hooks import Hooks, register
from tests.apiserver.support import Session, open_session, open_test_apiserver

GROUP = "/apis/admissionregistration.k8s.io/v1"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
MAPS = "/api/v1/namespaces/default/configmaps"


def rules(group: str, *resources: str) -> dict[str, Any]:
    rule = {
        "apiGroups": [group], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"],
        "resources": list(resources),
    }  # fmt: skip
    return {"resourceRules": [rule]}


MATCH = rules("", "configmaps")


def applies(expression: str) -> dict[str, Any]:
    return {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}


def patches(expression: str) -> dict[str, Any]:
    return {"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}


async def post(session: Session, path: str, body: dict[str, Any]) -> Any:
    status, answer = await session.call("POST", path, body)
    assert status == 201, answer
    return answer


async def enforce(
    session: Session,
    *mutations: dict[str, Any],
    name: str = "p",
    binding: dict[str, Any] | None = None,
    **spec: Any,
) -> None:
    whole = {
        "matchConstraints": MATCH, "reinvocationPolicy": "Never", "mutations": list(mutations),
    } | spec  # fmt: skip
    policy = {"metadata": {"name": name}, "spec": whole}
    await post(session, f"{GROUP}/mutatingadmissionpolicies", policy)
    bound = {"metadata": {"name": name}, "spec": {"policyName": name, **(binding or {})}}
    await post(session, f"{GROUP}/mutatingadmissionpolicybindings", bound)


async def create(session: Session, name: str = "m", **parts: Any) -> tuple[int, Any]:
    metadata = {"name": name, **parts.pop("metadata", {})}
    return await session.call("POST", MAPS, {"metadata": metadata, **parts})


CHANGES: list[tuple[list[dict[str, Any]], dict[str, Any], dict[str, Any]]] = [
    (
        [applies('Object{metadata: Object.metadata{labels: {"by": request.userInfo.username}}}')],
        {},
        {"labels": {"by": "admin", "a": "b"}},
    ),
    (
        [applies("Object{data: {'n': string(size(object.data)), ?'z': object.data.?missing}}")],
        {},
        {"data": {"x": "y", "n": "1"}},
    ),
    (
        [
            patches(
                "[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b'), "
                "value: 'v'}]"
            )
        ],
        {},
        {"labels": {"a": "b", "a/b": "v"}},
    ),
    (
        [
            patches(
                '[JSONPatch{op: "test", path: "/data/x", value: "other"},'
                ' JSONPatch{op: "remove", path: "/data/x"}]'
            )
        ],
        {},
        {"data": {"x": "y"}},
    ),
    (
        [
            patches('[JSONPatch{op: "copy", from: "/data/x", path: "/data/z"}]'),
            applies("Object{data: {'seen': object.data.z}}"),
        ],
        {},
        {"data": {"x": "y", "z": "y", "seen": "y"}},
    ),
    (
        [applies("has(object.data.q) ? Object{data: {'no': ''}} : Object{}")],
        {},
        {"data": {"x": "y"}},
    ),
    (
        [applies("variables.made")],
        {
            "variables": [
                {"name": "made", "expression": "Object{data: {'v': namespaceObject.kind}}"}
            ]
        },
        {"data": {"x": "y", "v": "Namespace"}},
    ),
    (
        [applies("Object{data: {'v': 'w'}}")],
        {"matchConditions": [{"name": "c", "expression": "object.metadata.name == 'other'"}]},
        {"data": {"x": "y"}},
    ),
]


@pytest.mark.parametrize(("mutations", "spec", "expected"), CHANGES)
async def test_changes(
    mutations: list[dict[str, Any]], spec: dict[str, Any], expected: dict[str, Any]
) -> None:
    async with open_test_apiserver() as server, open_session(server) as session:
        await enforce(session, *mutations, **spec)
        status, made = await create(session, data={"x": "y"}, metadata={"labels": {"a": "b"}})
        assert status == 201, made["message"]
        shown = {"data": made["data"], "labels": made["metadata"]["labels"]}
        assert {key: shown[key] for key in expected} == expected


async def test_lists_of_objects_are_merged_by_their_keys() -> None:
    async with open_test_apiserver() as server, open_session(server) as session:
        expression = (
            "Object{spec: Object.spec{template: Object.spec.template{spec: "
            "Object.spec.template.spec{containers: object.spec.template.spec.containers.map(c, "
            "Object.spec.template.spec.containers{name: c.name, env: "
            '[Object.spec.template.spec.containers.env{name: "A", value: "1"}]}), '
            'initContainers: [Object.spec.template.spec.initContainers{name: "i", image: "x"}]}}}}'
        )
        await enforce(session, applies(expression), matchConstraints=rules("apps", "deployments"))
        containers = [{"name": "c", "image": "one"}, {"name": "d", "image": "two"}]
        template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": containers}}
        spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
        made = await post(session, DEPLOYMENTS, {"metadata": {"name": "d"}, "spec": spec})
        pod = made["spec"]["template"]["spec"]
        found = [(c["name"], c["image"], c["env"]) for c in pod["containers"]]
        env = [{"name": "A", "value": "1"}]
        assert found == [("c", "one", env), ("d", "two", env)]
        assert pod["initContainers"][0]["terminationMessagePolicy"] == "File"  # defaulted again


REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        applies("Object{data: {'v': object.data.missing}}"),
        "expression 'Object{data: {'v': object.data.missing}}' resulted in error: "
        "no such key: missing",
    ),
    (
        applies("Object{metadata: Object.wrong{labels: {'a': 'b'}}}"),
        'type mismatch: unexpected type name "Object.wrong", expected "Object.metadata", which '
        "matches field name path from root Object type",
    ),
    (
        applies("Object{spec: Object.spec{x: 1}}"),
        "error applying patch: failed to convert patch object to typed object: "
        ".spec: field not declared in schema",
    ),
    (
        applies("Object{metadata: Object.metadata{finalizers: ['a/b'], ownerReferences: ["
                "Object.metadata.ownerReferences{uid: 'x'}]}, binaryData: {'a': 1}}"),
        "error applying patch: failed to convert patch object to typed object: ",
    ),
    (
        patches('[JSONPatch{op: "remove", path: "/data/missing"}]'),
        "JSONPath: the server rejected our request due to an error in our request",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("mutation", "message"), REFUSED)
async def test_what_cannot_be_done_is_refused_or_ignored(
    mutation: dict[str, Any], message: str
) -> None:
    async with open_test_apiserver() as server, open_session(server) as session:
        await enforce(session, mutation)
        status, answer = await create(session, data={"x": "y"})
        assert (status, answer["reason"]) == (403, "Invalid")
        head = "policy 'p' with binding 'p' denied request: "
        assert answer["message"].startswith(head + message)
        assert answer["details"]["causes"][0]["message"] == answer["message"]
        ignores = [{"op": "replace", "path": "/spec/failurePolicy", "value": "Ignore"}]
        await session.call(
            "PATCH",
            f"{GROUP}/mutatingadmissionpolicies/p",
            ignores,
            content_type="application/json-patch+json",
        )
        status, answer = await create(session, data={"x": "y"})
        assert status == 201, answer


async def test_atomic_fields_are_not_to_be_said_in_part() -> None:
    async with open_test_apiserver() as server, open_session(server) as session:
        expression = "Object{spec: Object.spec{selector: Object.spec.selector{matchLabels: {}}}}"
        await enforce(session, applies(expression), matchConstraints=rules("apps", "deployments"))
        template = {
            "metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
        }
        spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
        body = {"metadata": {"name": "d"}, "spec": spec}
        _, answer = await session.call("POST", DEPLOYMENTS, body)
        assert answer["message"] == (
            "policy 'p' with binding 'p' denied request: error applying patch: invalid "
            "ApplyConfiguration: may not mutate atomic arrays, maps or structs: .spec.selector"
        )


async def test_each_parameter_in_turn() -> None:
    async with open_test_apiserver() as server, open_session(server) as session:
        for name, kind in (("one", "param"), ("two", "param"), ("three", "other")):
            await create(session, name, metadata={"labels": {"kind": kind}}, data={"k": name})
        selector = {"selector": {"matchLabels": {"kind": "param"}}}
        reference = {**selector, "parameterNotFoundAction": "Deny"}
        await enforce(
            session,
            applies("Object{data: {params.data.k: 'seen'}}"),
            paramKind={"apiVersion": "v1", "kind": "ConfigMap"},
            binding={"paramRef": reference},
        )
        status, made = await create(session)
        assert (status, made["data"]) == (201, {"one": "seen", "two": "seen"})
        for name in ("one", "two"):
            await session.call("DELETE", f"{MAPS}/{name}")
        status, answer = await create(session, "n")
        assert (status, answer["reason"]) == (403, "Forbidden")
        assert answer["message"] == (
            "policy 'p' with binding 'p' denied request: failed to configure binding: no params "
            "found for policy binding with `Deny` parameterNotFoundAction"
        )


async def test_the_order_of_policies_and_webhooks(hooks: Hooks) -> None:
    """Policies go before webhooks; who wants to sees what the others have made of it."""
    count = "Object{data: {NAME: string(int(object.?data.?NAME.orValue('0')) + 1)}}"
    async with open_test_apiserver() as server, open_session(server) as session:
        for name, policy in (("a", "IfNeeded"), ("b", "Never")):
            expression = count.replace("object.?data.?NAME", f"object.?data.?{name}")
            expression = expression.replace("NAME", f"'{name}'")
            await enforce(session, applies(expression), name=name, reinvocationPolicy=policy)
        hooks.answers["/hook"] = lambda request: {
            "patch": [{"op": "add", "path": "/data/hook", "value": request["object"]["data"]["b"]}]
        }
        await register(session, hooks, "mutating", "h", "hook")
        status, made = await create(session)
        assert (status, made["data"]) == (201, {"a": "2", "b": "1", "hook": "1"})


INVALID: list[tuple[dict[str, Any], str]] = [
    ({"mutations": []}, "spec.mutations: Required value: mutations must contain at least one item"),
    ({"mutations": [{}]}, "spec.mutations[0].patchType: Required value"),
    (
        {"mutations": [{"patchType": "x"}]},
        'spec.mutations[0].patchType: Unsupported value: "x": supported values: '
        '"ApplyConfiguration", "JSONPatch"',
    ),
    (
        {"mutations": [applies("Object{}") | {"patchType": "JSONPatch"}]},
        "[spec.mutations[0].applyConfiguration: Invalid value: \"{applyConfiguration}\": must not "
        "be specified when patchType is JSONPatch, spec.mutations[0].jsonPatch: Required value: "
        "must be specified when patchType is JSONPatch]",
    ),
    ({"mutations": [applies(" ")]},
     "spec.mutations[0].applyConfiguration.expression: Required value"),
    (
        {"mutations": [applies("object")]},
        'spec.mutations[0].applyConfiguration.expression: Invalid value: "object": '
        "must evaluate to Object",
    ),
    (
        {"mutations": [patches("Object{}")]},
        'spec.mutations[0].jsonPatch.expression: Invalid value: "Object{}": '
        "must evaluate to list(JSONPatch)",
    ),
    (
        {"mutations": [patches("[JSONPatch{op: 1}]")]},
        'spec.mutations[0].jsonPatch.expression: Invalid value: "[JSONPatch{op: 1}]": compilation '
        "failed: ERROR: <input>:1:14: expected type of field 'op' is 'string' but provided type "
        "is 'int'\n | [JSONPatch{op: 1}]\n | .............^",
    ),
    ({"reinvocationPolicy": None}, "spec.reinvocationPolicy: Required value"),
    (
        {"matchConstraints": {"resourceRules": [
            {**MATCH["resourceRules"][0], "operations": ["DELETE"]}]}},
        'spec.matchConstraints.resourceRules.operations: Unsupported value: "DELETE": '
        'supported values: "*", "CONNECT", "CREATE", "UPDATE"',
    ),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "message"), INVALID)
async def test_invalid_policies(spec: dict[str, Any], message: str) -> None:
    whole = {
        "matchConstraints": MATCH, "reinvocationPolicy": "Never",
        "mutations": [applies("Object{}")], **spec,
    }  # fmt: skip
    async with open_test_apiserver() as server, open_session(server) as session:
        path = f"{GROUP}/mutatingadmissionpolicies"
        body = {"metadata": {"name": "p"}, "spec": whole}
        status, answer = await session.call("POST", path, body)
        assert status == 422
        head = 'MutatingAdmissionPolicy.admissionregistration.k8s.io "p" is invalid: '
        assert answer["message"] == head + message
