"""What kube-apiserver 1.36 answered, and what we answer: statuses of a sample of requests."""

from __future__ import annotations

import pytest

from tests.apiserver.support import Session, config_map

MAPS = "/api/v1/namespaces/default/configmaps"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        ("POST", MAPS, "{", 400, "the object provided is unrecognized (must be of type ConfigMap)"),
        (
            "POST",
            MAPS,
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}},
            400,
            'Service in version "v1" cannot be handled as a ConfigMap',
        ),
        (
            "POST",
            MAPS,
            {"metadata": {"name": "x", "resourceVersion": "5"}},
            500,
            "resourceVersion should not be set on objects to be created",
        ),
        (
            "POST",
            MAPS,
            {"metadata": {"name": "x", "namespace": "other"}},
            400,
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        (
            "PUT",
            f"{MAPS}/a",
            config_map("b"),
            400,
            "the name of the object (b) does not match the name on the URL (a)",
        ),
        ("PUT", f"{MAPS}/missing", config_map("missing"), 404, 'configmaps "missing" not found'),
        (
            "POST",
            "/api/v1/namespaces/missing/configmaps",
            config_map("a"),
            404,
            'namespaces "missing" not found',
        ),
        ("POST", f"{MAPS}?dryRun=Some", config_map("d"), 422, "CreateOptions.meta.k8s.io"),
        (
            "POST",
            f"{MAPS}?fieldValidation=Strict",
            {**config_map("f"), "bananas": 1},
            400,
            'ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: '
            'unknown field "bananas"',
        ),
        (
            "POST",
            f"{MAPS}/a",
            config_map("a"),
            405,
            "the server does not allow this method on the requested resource",
        ),
        ("DELETE", "/api/v1/namespaces", None, 405, "the server does not allow this method"),
        (
            "DELETE",
            f"{MAPS}/a",
            {"preconditions": {"uid": "other"}},
            409,
            'Operation cannot be fulfilled on ConfigMap "a": the UID in the precondition',
        ),
    ],
)
async def test_refusals(
    session: Session, method: str, path: str, body: object, status: int, message: str
) -> None:
    await session.call("POST", MAPS, config_map("a"))
    got, answer = await session.call(method, path, body)
    assert got == status
    assert answer["message"].startswith(message)
