"""Rules in definitions: a table of objects and what is said about them, run against the server."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from k8slite.apiserver import Apiserver
from tests.apiserver.support import Session, open_session, open_test_apiserver, open_watch

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
WIDGETS = "/apis/rules.io/v1/namespaces/default/widgets"
MERGE = "application/merge-patch+json"

ITEM = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "size": {"type": "integer"}},
    "x-kubernetes-validations": [
        {"rule": "self.size >= oldSelf.size", "message": "sizes only grow", "fieldPath": ".size"}
    ],
}
SPEC: dict[str, Any] = {
    "type": "object",
    "properties": {
        "low": {"type": "integer"},
        "high": {"type": "integer"},
        "ratio": {"type": "number"},
        "until": {"type": "string", "format": "date-time"},
        "some-name": {"type": "string", "maxLength": 5, "pattern": "^[a-z]+$"},
        "namespace": {"type": "string"},
        "fixed": {
            "type": "string",
            "x-kubernetes-validations": [
                {"rule": "self == oldSelf", "message": "is fixed", "reason": "FieldValueForbidden"}
            ],
        },
        "state": {
            "type": "string",
            "x-kubernetes-validations": [
                {
                    "rule": "!oldSelf.hasValue() ? self == 'new' : true",
                    "optionalOldSelf": True,
                    "message": "begins as new",
                }
            ],
        },
        "items": {
            "type": "array",
            "items": ITEM,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
        },
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "count": {"x-kubernetes-int-or-string": True},
    },
    "x-kubernetes-validations": [
        {
            "rule": "!has(self.low) || !has(self.high) || self.low <= self.high",
            "messageExpression": "'%d is more than %d'.format([self.low, self.high])",
        },
        {"rule": "!has(self.ratio) || self.ratio < 1.5"},
        {"rule": "!has(self.until) || self.until > timestamp('2020-01-01T00:00:00Z')"},
        {"rule": "!has(self.some__dash__name) || self.some__dash__name != 'bad'"},
        {"rule": "!has(self.__namespace__) || self.__namespace__ != 'bad'"},
        {"rule": "!has(self.labels) || self.labels.all(k, k.startsWith('x'))"},
        {"rule": "!has(self.count) || type(self.count) == int || self.count == 'many'"},
    ],
}


def definition(spec: dict[str, Any]) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {"spec": spec},
        "x-kubernetes-validations": [{"rule": "self.metadata.name != 'forbidden'"}],
    }
    version = {
        "name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema},
    }  # fmt: skip
    names = {"plural": "widgets", "kind": "Widget"}
    return {
        "metadata": {"name": "widgets.rules.io"},
        "spec": {
            "group": "rules.io", "scope": "Namespaced", "names": names, "versions": [version],
        },
    }  # fmt: skip


async def establish(server: Apiserver, session: Session) -> None:
    async with open_watch(server, f"{DEFINITIONS}?watch=1") as watch:
        status, answer = await session.call("POST", DEFINITIONS, definition(SPEC))
        assert status == 201, answer
        with trio.fail_after(5):
            while True:
                obj = (await watch.next())["object"]
                conditions = (obj.get("status") or {}).get("conditions") or ()
                if any(c["type"] == "Established" and c["status"] == "True" for c in conditions):
                    return


def failed(rule: str) -> str:
    return f'spec: Invalid value: "object": failed rule: {rule}'


RULES = [rule["rule"] for rule in SPEC["x-kubernetes-validations"]]

CREATES: list[tuple[dict[str, Any], str]] = [
    ({"low": 1, "high": 2, "ratio": 1, "until": "2021-01-01T00:00:00Z", "count": 3}, ""),
    ({"low": 3, "high": 2}, 'spec: Invalid value: "object": 3 is more than 2'),
    ({"ratio": 2}, failed(RULES[1])),
    ({"until": "2019-01-01T00:00:00Z"}, failed(RULES[2])),
    ({"some-name": "bad"}, failed(RULES[3])),
    ({"namespace": "bad"}, failed(RULES[4])),
    ({"labels": {"y": ""}}, failed(RULES[5])),
    ({"count": "few"}, failed(RULES[6])),
    ({"state": "old"}, 'spec.state: Invalid value: "string": begins as new'),
    ({"fixed": "x", "items": [{"name": "a", "size": 1}]}, ""),
    (
        {"low": "x"},
        '[spec.low: Invalid value: "string": spec.low in body must be of type integer: "string", '
        '<nil>: Invalid value: "null": some validation rules were not checked because the object '
        "was invalid; correct the existing errors to complete validation]",
    ),
]  # fmt: skip

UPDATES: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"fixed": "a"}, {"fixed": "a", "low": 1}, ""),
    ({"fixed": "a"}, {"fixed": "b"}, 'spec.fixed: Forbidden: is fixed'),
    ({"state": "new"}, {"state": "old"}, ""),
    (
        {"items": [{"name": "a", "size": 2}]},
        {"items": [{"name": "b", "size": 1}, {"name": "a", "size": 1}]},
        'spec.items[1].size: Invalid value: "object": sizes only grow',
    ),
    ({"items": [{"name": "a", "size": 2}]}, {"items": [{"name": "b", "size": 1}]}, ""),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "message"), CREATES)
async def test_creates(spec: dict[str, Any], message: str) -> None:
    async with open_test_apiserver() as server, open_session(server) as session:
        await establish(server, session)
        body = {"apiVersion": "rules.io/v1", "kind": "Widget", "metadata": {"name": "w"}}
        status, answer = await session.call("POST", WIDGETS, {**body, "spec": spec})
        if not message:
            assert status == 201, answer
        else:
            assert status == 422
            assert answer["message"] == f'Widget.rules.io "w" is invalid: {message}'
        body["metadata"] = {"name": "forbidden"}
        status, answer = await session.call("POST", WIDGETS, body)
        assert '<nil>: Invalid value: "object": failed rule' in answer["message"]


async def test_updates_and_what_was_so_before() -> None:
    async with open_test_apiserver() as server, open_session(server) as session:
        await establish(server, session)
        body = {"apiVersion": "rules.io/v1", "kind": "Widget"}
        for i, (before, after, message) in enumerate(UPDATES):
            obj = {**body, "metadata": {"name": f"w{i}"}, "spec": before}
            status, made = await session.call("POST", WIDGETS, obj)
            assert status == 201, made
            status, answer = await session.call("PUT", f"{WIDGETS}/w{i}", {**made, "spec": after})
            if message:
                assert answer["message"] == f'Widget.rules.io "w{i}" is invalid: {message}'
            else:
                assert status == 200, answer
        obj = {**body, "metadata": {"name": "r"}, "spec": {"low": 5, "some-name": "abcde"}}
        await session.call("POST", WIDGETS, obj)
        stricter: dict[str, Any] = definition(SPEC)["spec"]["versions"][0]
        spec = stricter["schema"]["openAPIV3Schema"]["properties"]["spec"]
        spec = {**spec, "properties": {**spec["properties"], "some-name": {
            "type": "string", "maxLength": 3}}}  # fmt: skip
        spec["x-kubernetes-validations"] = [{"rule": "self.low < 3"}]
        stricter["schema"]["openAPIV3Schema"]["properties"]["spec"] = spec
        patch: dict[str, Any] = {"spec": {"versions": [stricter]}}
        path = f"{DEFINITIONS}/widgets.rules.io"
        status, answer = await session.call("PATCH", path, patch, content_type=MERGE)
        assert status == 200, answer
        patch = {"metadata": {"labels": {"a": "b"}}}
        status, answer = await session.call("PATCH", f"{WIDGETS}/r", patch, content_type=MERGE)
        assert status == 200, answer
        patch = {"spec": {"high": 9}}
        status, answer = await session.call("PATCH", f"{WIDGETS}/r", patch, content_type=MERGE)
        assert answer["message"] == (
            'Widget.rules.io "r" is invalid: spec: Invalid value: "object": failed rule: '
            "self.low < 3"
        )
        patch = {"spec": {"some-name": "abcdef", "low": 1}}
        status, answer = await session.call("PATCH", f"{WIDGETS}/r", patch, content_type=MERGE)
        assert "spec.some-name: Too long" in answer["message"]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"rule": ""}, "rule: Required value: rule is not specified"),
        ({"rule": "self.x +"}, "compilation failed: ERROR: <input>:1:9: Syntax error"),
        ({"rule": "1 + 1"}, "cel expression must evaluate to a bool"),
        ({"rule": "true", "messageExpression": "1"}, "messageExpression must evaluate to a string"),
    ],
)
async def test_rules_that_are_none(rule: dict[str, Any], message: str) -> None:
    async with open_test_apiserver() as server, open_session(server) as session:
        spec = {**SPEC, "x-kubernetes-validations": [rule]}
        status, answer = await session.call("POST", DEFINITIONS, definition(spec))
        assert status == 422
        assert message in answer["message"]
        assert ".properties[spec].x-kubernetes-validations[0]." in answer["message"]
