"""pods/ephemeralcontainers and pods/resize change their part of a pod, and only soundly."""

from __future__ import annotations

from typing import Any

import pytest

from tests.apiserver.support import open_session, open_test_apiserver

POD = "/api/v1/namespaces/default/pods/p"
MERGE = "application/strategic-merge-patch+json"


def pod() -> dict[str, Any]:
    resources = {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "200m"}}
    container = {"name": "c", "image": "i", "resources": resources}
    return {"metadata": {"name": "p"}, "spec": {"containers": [container]}}


async def test_ephemeral_containers_are_checked_and_only_added() -> None:
    async with open_test_apiserver() as server, open_session(server) as session:
        await session.call("POST", "/api/v1/namespaces/default/pods", pod())
        path = f"{POD}/ephemeralcontainers"

        async def patch(*containers: dict[str, Any]) -> tuple[int, Any]:
            body = {"spec": {"ephemeralContainers": list(containers)}}
            return await session.call("PATCH", path, body, content_type=MERGE)

        status, answer = await patch({"name": "d", "image": "i", "resources": {}, "ports": []})
        assert status == 200
        assert answer["spec"]["ephemeralContainers"][0]["imagePullPolicy"] == "Always"
        assert answer["metadata"]["managedFields"][-1]["subresource"] == "ephemeralcontainers"
        status, answer = await patch({"name": "Bad_Name!"})
        assert status == 422
        fields = {cause["field"] for cause in answer["details"]["causes"]}
        assert fields == {f"spec.ephemeralContainers[0].{f}" for f in ("name", "image")}
        status, answer = await patch({"name": "d", "image": "other"})
        assert (status, answer["message"]) == (
            422,
            'Pod "p" is invalid: spec.ephemeralContainers: Forbidden: existing ephemeral '
            'containers "d" may not be changed\n',
        )


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ({"requests": {"cpu": "150m"}}, ""),
        ({"requests": {"cpu": "300m"}}, "must be less than or equal to cpu limit of 200m"),
        ({"requests": {"cpu": "x"}}, "quantities must match the regular expression"),
        ({"limits": {"memory": "64Mi"}, "requests": {"cpu": "200m"}}, "QOS Class may not change"),
        ({"limits": None}, "resource limits cannot be removed"),
        ({"limits": {"example.org/g": "1"}}, "only cpu and memory resources are mutable"),
    ],
)
async def test_resize(resources: dict[str, Any], message: str) -> None:
    async with open_test_apiserver() as server, open_session(server) as session:
        await session.call("POST", "/api/v1/namespaces/default/pods", pod())
        body = {"spec": {"containers": [{"name": "c", "resources": resources}]}}
        status, answer = await session.call("PATCH", f"{POD}/resize", body, content_type=MERGE)
        if message:
            assert (status, message in answer["message"]) in ((422, True), (400, True)), answer
        else:
            assert status == 200
            assert answer["spec"]["containers"][0]["resources"]["requests"]["cpu"] == "150m"
            assert answer["metadata"]["generation"] == 2
