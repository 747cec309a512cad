"""Two more Python clients: kr8s, which asks for Tables too, and lightkube, typed and light."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.cluster.real import Cluster, eventually

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Kubernetes version .* is not supported:UserWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
"""kr8s knows versions that it was tested with; both leave their connections open at the end."""


def pod(namespace: str, name: str) -> dict[str, Any]:
    container = {"name": "main", "image": "busybox", "command": ["sleep", "1000"]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
    }


@pytest.fixture
def namespace(running: Cluster) -> str:
    name = f"k-{uuid.uuid4().hex[:8]}"
    running.get("/api/v1/namespaces", {"metadata": {"name": name}})
    accounts = f"/api/v1/namespaces/{name}/serviceaccounts"
    assert eventually(lambda: running.get(accounts)["items"])
    return name


def test_kr8s(running: Cluster, namespace: str) -> None:
    kr8s = pytest.importorskip("kr8s")
    api = kr8s.api(kubeconfig=str(running.layout.kubeconfig), namespace=namespace)
    one = kr8s.objects.Pod(pod(namespace, "one"), api=api)
    one.create()
    one.wait("condition=Ready", timeout=30)
    assert one.exec(["echo", "inside"]).stdout == b"inside\n"
    one.label({"seen": "yes"})
    one.annotate({"note": "a b"})
    found = list(api.get("pods", namespace=namespace, label_selector={"seen": "yes"}))
    assert [each.name for each in found] == ["one"]
    assert found[0].annotations["note"] == "a b"
    one.patch({"metadata": {"labels": {"seen": None}}})
    assert "seen" not in one.labels
    assert {"pods", "deployments"} <= {each["name"] for each in api.api_resources()}
    assert api.version()["major"] == "1"
    one.delete()
    one.wait("delete", timeout=30)
    assert not one.exists()


def test_lightkube(running: Cluster, namespace: str) -> None:
    lightkube = pytest.importorskip("lightkube")
    from lightkube.models.apps_v1 import DeploymentSpec
    from lightkube.models.core_v1 import Container, PodSpec, PodTemplateSpec
    from lightkube.models.meta_v1 import LabelSelector, ObjectMeta
    from lightkube.resources.apps_v1 import Deployment
    from lightkube.resources.core_v1 import ConfigMap, Pod

    config = lightkube.KubeConfig.from_file(str(running.layout.kubeconfig))
    client = lightkube.Client(config=config, namespace=namespace, field_manager="tests")
    labels = {"app": "web"}
    template = PodTemplateSpec(
        metadata=ObjectMeta(labels=labels),
        spec=PodSpec(
            terminationGracePeriodSeconds=0,
            containers=[Container(name="main", image="busybox", command=["sleep", "1000"])],
        ),
    )
    web = Deployment(
        metadata=ObjectMeta(name="web"),
        spec=DeploymentSpec(
            selector=LabelSelector(matchLabels=labels), template=template, replicas=1
        ),
    )
    assert client.apply(web).metadata.managedFields[0].operation == "Apply"
    client.wait(Deployment, "web", for_conditions=["Available"])
    scale = client.get(Deployment.Scale, "web")
    assert (scale.spec.replicas, scale.status.replicas) == (1, 1)
    scale.spec.replicas = 2
    client.replace(scale, "web")
    assert eventually(lambda: len(list(client.list(Pod, labels=labels))) == 2)

    client.create(ConfigMap(metadata=ObjectMeta(name="conf"), data={"a": "1"}))
    patched = client.patch(ConfigMap, "conf", {"data": {"a": None, "b": "2"}})
    assert patched.data == {"b": "2"}
    with pytest.raises(lightkube.ApiError) as refused:
        client.create(ConfigMap(metadata=ObjectMeta(name="conf")))
    assert refused.value.status.reason == "AlreadyExists"
    for event, seen in client.watch(ConfigMap, fields={"metadata.name": "conf"}):
        if event == "ADDED":
            client.delete(ConfigMap, "conf")
        if event == "DELETED":
            assert seen.metadata.name == "conf"
            break
    client.delete(Deployment, "web")
    assert eventually(lambda: not list(client.list(Pod, labels=labels)))
