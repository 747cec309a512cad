"""Limit ranges: what they fill in and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest

from tests.apiserver.support import Session, pod

PODS = "/api/v1/namespaces/default/pods"


def asking(name: str, **resources: dict[str, str]) -> dict[str, Any]:
    body = pod(name)
    body["spec"]["containers"][0]["resources"] = resources
    return body


async def limit(session: Session, **item: Any) -> None:
    spec = {"limits": [{"type": "Container", **item}]}
    path = "/api/v1/namespaces/default/limitranges"
    status, _ = await session.call("POST", path, {"metadata": {"name": "l"}, "spec": spec})
    assert status == 201


async def test_defaults_are_filled_in_and_noted(session: Session) -> None:
    await limit(session, default={"cpu": "2"}, defaultRequest={"cpu": "1", "memory": "1Gi"})
    status, made = await session.call("POST", PODS, asking("p", requests={"cpu": "500m"}))
    assert status == 201
    assert made["spec"]["containers"][0]["resources"] == {
        "requests": {"cpu": "500m", "memory": "1Gi"},
        "limits": {"cpu": "2"},
    }
    assert made["metadata"]["annotations"] == {
        "kubernetes.io/limit-ranger": "LimitRanger plugin set: memory request for container c; "
        "cpu limit for container c"
    }
    assert made["status"]["qosClass"] == "Burstable"


@pytest.mark.parametrize(
    ("item", "resources", "message"),
    [
        (
            {"min": {"cpu": "100m"}},
            {"requests": {"cpu": "50m"}},
            "minimum cpu usage per Container is 100m, but request is 50m",
        ),
        (
            {"max": {"cpu": "1"}},
            {"limits": {"cpu": "2"}},
            "maximum cpu usage per Container is 1, but limit is 2",
        ),
        (
            {"maxLimitRequestRatio": {"cpu": "2"}},
            {"requests": {"cpu": "1"}, "limits": {"cpu": "4"}},
            "cpu max limit to request ratio per Container is 2, but provided ratio is 4.000000",
        ),
    ],
)
async def test_what_is_out_of_bounds_is_refused(
    session: Session, item: dict[str, Any], resources: dict[str, dict[str, str]], message: str
) -> None:
    await limit(session, **item)
    status, refused = await session.call("POST", PODS, asking("p", **resources))
    assert (status, refused["message"]) == (403, f'pods "p" is forbidden: {message}')
