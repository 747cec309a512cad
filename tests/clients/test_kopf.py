"""An operator made with kopf: custom resources through create, update, a restart, and delete."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.real import Cluster, eventually

kubernetes = pytest.importorskip("kubernetes")
pytest.importorskip("kopf")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

HERE = Path(__file__).parent
DEFINITION = yaml.safe_load((HERE / "kubectl/files/crd.yaml").read_text())
DEFINITION["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"] = {
    "type": "object",
    "x-kubernetes-preserve-unknown-fields": True,
}
DEFINITION["spec"]["group"] = "operated.example.com"
DEFINITION["metadata"]["name"] = "gadgets.operated.example.com"
"""The status is kopf's to fill; of another group than the one that kubectl's stories use."""


@contextmanager
def operator(running: Cluster, namespace: str, log: Path) -> Iterator[None]:
    """The operator as a process of its own."""
    with log.open("a") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "kopf", "run", str(HERE / "operator/handlers.py"),
             "--namespace", namespace, "--standalone"],
            env={**os.environ, "KUBECONFIG": str(running.layout.kubeconfig)},
            stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            yield
        finally:
            process.terminate()
            process.wait(30)


def test_an_operator_lives_through_it_all(running: Cluster, tmp_path: Path) -> None:
    log = tmp_path / "operator.log"
    api = kubernetes.config.new_client_from_config(str(running.layout.kubeconfig))
    core = kubernetes.client.CoreV1Api(api)
    definitions = kubernetes.client.ApiextensionsV1Api(api)
    definitions.create_custom_resource_definition(DEFINITION)
    namespace = f"op-{uuid.uuid4().hex[:8]}"
    core.create_namespace({"metadata": {"name": namespace}})
    gadgets = kubernetes.client.CustomObjectsApi(api)
    where: dict[str, Any] = {
        "group": "operated.example.com", "version": "v1", "namespace": namespace,
        "plural": "gadgets",
    }  # fmt: skip

    def size_is(wanted: str) -> bool:
        found = core.list_namespaced_config_map(namespace, field_selector="metadata.name=g").items
        return [each.data["size"] for each in found] == [wanted]

    def told() -> Any:
        return gadgets.get_namespaced_custom_object(**where, name="g").get("status") or {}

    def say(size: int) -> None:
        gadgets.patch_namespaced_custom_object(**where, name="g", body={"spec": {"size": size}})

    try:
        with operator(running, namespace, log):
            gadget = {
                "apiVersion": "operated.example.com/v1",
                "kind": "Gadget",
                "metadata": {"name": "g"},
                "spec": {"size": 1},
            }
            assert eventually(
                lambda: (
                    definitions.read_custom_resource_definition(
                        DEFINITION["metadata"]["name"]
                    ).status.accepted_names.plural
                )
            )
            gadgets.create_namespaced_custom_object(**where, body=gadget)
            assert eventually(lambda: size_is("1")), log.read_text()
            assert eventually(lambda: told().get("create") == {"size": 1}), log.read_text()
            say(2)
            assert eventually(lambda: size_is("2")), log.read_text()
            assert eventually(
                lambda: [e for e in core.list_namespaced_event(namespace).items
                         if e.involved_object.kind == "Gadget" and e.reason == "Sized"]
            )  # fmt: skip
        say(3)  # while it is away
        with operator(running, namespace, log):
            assert eventually(lambda: size_is("3")), log.read_text()
            gadgets.delete_namespaced_custom_object(**where, name="g")
            assert eventually(lambda: not gadgets.list_namespaced_custom_object(**where)["items"])
            left = core.list_namespaced_config_map(namespace).items
            assert "g-was-deleted" in {each.metadata.name for each in left}
    finally:
        definitions.delete_custom_resource_definition(DEFINITION["metadata"]["name"])
    assert "Traceback" not in log.read_text()
