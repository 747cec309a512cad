"""The official Python client against a running cluster: typed, dynamic, watch, exec, election."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.real import Cluster, eventually

kubernetes = pytest.importorskip("kubernetes")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

POD = {
    "metadata": {"name": "one", "labels": {"app": "one"}},
    "spec": {
        "terminationGracePeriodSeconds": 0,
        "containers": [
            {"name": "main", "image": "busybox", "command": ["sh", "-c", "echo said; sleep 1000"]}
        ],
    },
}


@pytest.fixture
def api(running: Cluster) -> Iterator[Any]:
    client = kubernetes.config.new_client_from_config(str(running.layout.kubeconfig))
    with client:
        yield client


@pytest.fixture
def namespace(api: Any) -> str:
    name = f"py-{uuid.uuid4().hex[:8]}"
    core = kubernetes.client.CoreV1Api(api)
    core.create_namespace({"metadata": {"name": name}})
    assert eventually(lambda: core.list_namespaced_service_account(name).items)
    return name


def test_objects_come_change_and_go(api: Any, namespace: str) -> None:
    core = kubernetes.client.CoreV1Api(api)
    made = core.create_namespaced_config_map(
        namespace, {"metadata": {"name": "conf"}, "data": {"a": "1"}}
    )
    made.data["b"] = "2"
    replaced = core.replace_namespaced_config_map("conf", namespace, made)
    assert replaced.data == {"a": "1", "b": "2"}
    with pytest.raises(kubernetes.client.ApiException) as refused:
        core.replace_namespaced_config_map("conf", namespace, made)  # its version is older now
    assert refused.value.status == 409
    merged = core.patch_namespaced_config_map("conf", namespace, {"data": {"a": None}})
    assert merged.data == {"b": "2"}
    replace = [{"op": "replace", "path": "/data/b", "value": "3"}]
    assert core.patch_namespaced_config_map("conf", namespace, replace).data == {"b": "3"}
    listed = core.list_namespaced_config_map(namespace, field_selector="metadata.name=conf")
    assert [each.metadata.name for each in listed.items] == ["conf"]
    pages = core.list_namespaced_config_map(namespace, limit=1)
    assert pages.metadata._continue
    rest = core.list_namespaced_config_map(namespace, _continue=pages.metadata._continue)
    assert len(pages.items) == len(rest.items) == 1
    core.delete_namespaced_config_map("conf", namespace)
    with pytest.raises(kubernetes.client.ApiException) as refused:
        core.read_namespaced_config_map("conf", namespace)
    assert refused.value.status == 404


def test_a_watch_tells_what_a_pod_goes_through(api: Any, namespace: str) -> None:
    core = kubernetes.client.CoreV1Api(api)
    core.create_namespaced_pod(namespace, POD)
    watch, seen = kubernetes.watch.Watch(), []
    for event in watch.stream(
        core.list_namespaced_pod, namespace, timeout_seconds=60, allow_watch_bookmarks=True
    ):
        phase = event["object"].status.phase
        seen.append((event["type"], phase))
        if phase == "Running" and event["type"] != "DELETED":
            core.delete_namespaced_pod("one", namespace)
        if event["type"] == "DELETED":
            watch.stop()
    assert seen[0] == ("ADDED", "Pending")
    assert ("MODIFIED", "Running") in seen
    assert seen[-1][0] == "DELETED"


def test_inside_a_pod(api: Any, namespace: str) -> None:
    core = kubernetes.client.CoreV1Api(api)
    core.create_namespaced_pod(namespace, POD)
    assert eventually(
        lambda: core.read_namespaced_pod_status("one", namespace).status.phase == "Running"
    )
    assert eventually(lambda: core.read_namespaced_pod_log("one", namespace) == "said\n")
    said = kubernetes.stream.stream(
        core.connect_get_namespaced_pod_exec, "one", namespace,
        command=["sh", "-c", "echo out; echo err >&2"], stdout=True, stderr=True,
    )  # fmt: skip
    assert sorted(said.split()) == ["err", "out"]
    shell = kubernetes.stream.stream(
        core.connect_get_namespaced_pod_exec, "one", namespace, _preload_content=False,
        command=["sh", "-c", "read x; echo got $x; exit 3"], stdin=True, stdout=True,
    )  # fmt: skip
    shell.write_stdin("typed\n")
    shell.run_forever(timeout=20)
    assert shell.read_stdout() == "got typed\n"
    assert shell.returncode == 3


def test_without_types(api: Any, namespace: str) -> None:
    dynamic = kubernetes.dynamic.DynamicClient(api)
    deployments = dynamic.resources.get(api_version="apps/v1", kind="Deployment")
    body = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "main", "image": "busybox"}]},
            },
        },
    }
    applied = deployments.server_side_apply(body=body, namespace=namespace, field_manager="tests")
    assert applied.metadata.managedFields[0].manager == "tests"
    assert deployments.get(name="web", namespace=namespace).spec.replicas == 1
    scale = {"spec": {"replicas": 0}}
    deployments.patch(
        body=scale, name="web", namespace=namespace, content_type="application/merge-patch+json"
    )
    deployments.delete(name="web", namespace=namespace)


def test_who_one_is(api: Any, namespace: str) -> None:
    core = kubernetes.client.CoreV1Api(api)
    request = {"spec": {"audiences": None, "expirationSeconds": 600}}
    token = core.create_namespaced_service_account_token("default", namespace, request)
    review = kubernetes.client.AuthenticationV1Api(api).create_token_review(
        {"spec": {"token": token.status.token}}
    )
    assert review.status.user.username == f"system:serviceaccount:{namespace}:default"
    asked = {"spec": {"user": "nobody", "resourceAttributes": {"verb": "get", "resource": "pods"}}}
    access = kubernetes.client.AuthorizationV1Api(api).create_subject_access_review(asked)
    assert not access.status.allowed
    assert kubernetes.client.VersionApi(api).get_code().major == "1"
