"""Policies' expressions against the kinds that they match."""

from __future__ import annotations

from typing import Any

import pytest

from k8slite.api.cel.policy_checks import type_warnings


def policy(*resources: str, group: str = "apps", **validation: str) -> dict[str, Any]:
    rule = {"apiGroups": [group], "apiVersions": ["v1"], "resources": list(resources)}
    constraints = {"resourceRules": [rule]}
    return {"spec": {"matchConstraints": constraints, "validations": [validation]}}


@pytest.mark.parametrize(
    "expression",
    [
        "object.spec.replicas > 1 && object.metadata.labels['a'] == 'b'",
        "oldObject == null || oldObject.spec.paused",
        "object.spec.template.spec.containers.all(c, c.image.startsWith('x') && !has(c.env))",
        "object.spec.strategy.rollingUpdate.maxSurge == 1",
        "object.metadata.creationTimestamp < timestamp('2030-01-01T00:00:00Z')",
        "request.userInfo.username == 'x' && params.anything && variables.any == 3",
        "namespaceObject.metadata.name == 'x' && authorizer.path('/x').check('get').allowed()",
    ],
)
def test_nothing_to_warn_of(expression: str) -> None:
    assert type_warnings(policy("deployments", expression=expression)) == []


def test_a_warning_for_each_kind() -> None:
    checked = policy("deployments", "statefulsets", expression="object.spec.paused", message="x")
    checked["spec"]["validations"][0]["messageExpression"] = "'no: ' + object.nope"
    (first, second) = type_warnings(checked)
    assert first == {
        "fieldRef": "spec.validations[0].expression",
        "warning": "apps/v1, Kind=StatefulSet: ERROR: <input>:1:12: undefined field 'paused'\n"
        " | object.spec.paused\n | ...........^",
    }
    assert second["fieldRef"] == "spec.validations[0].messageExpression"
    assert [line.partition(": ")[0] for line in second["warning"].split("\n")[::3]] == [
        "apps/v1, Kind=Deployment", "apps/v1, Kind=StatefulSet",
    ]  # fmt: skip


def test_what_is_not_checked() -> None:
    assert type_warnings(policy("*", expression="object.nope")) == []
    assert type_warnings(policy("deployments/scale", expression="object.nope")) == []
    assert type_warnings(policy("nothings", expression="object.nope")) == []


def test_types_that_contain_themselves() -> None:
    checked = policy(
        "customresourcedefinitions",
        group="apiextensions.k8s.io",
        expression="object.spec.versions.all(v, v.schema.openAPIV3Schema.not.not.title == 'x')",
    )
    assert type_warnings(checked) == []
