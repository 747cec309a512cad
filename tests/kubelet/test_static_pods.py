"""Pods from files of the node, and the mirrors that show them in the API."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from k8slite.api.kinds import PODS
from k8slite.api.status import ApiError
from k8slite.kubelet.eviction.ranking import is_critical
from k8slite.kubelet.node.static_pods import mirror_of, read_pod
from k8slite.kubelet.pods import MIRROR, is_mirror
from tests.kubelet.world import Node, open_fake_node

MANIFEST = """
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  containers:
  - {name: c, image: "busybox:1"}
"""
KEY = "default/web-node-1"


def test_a_manifest_becomes_a_pod() -> None:
    pod = read_pod(MANIFEST.encode(), "web.yaml", "node-1", 0.0)
    meta = pod["metadata"]
    assert (meta["name"], meta["namespace"], meta["labels"]) == (
        "web-node-1",
        "default",
        {"app": "web"},
    )
    assert len(meta["uid"]) == 32
    assert pod["spec"]["restartPolicy"] == "Always", "defaults are filled in"
    assert pod["spec"]["nodeName"] == "node-1"
    assert is_critical(pod)
    assert read_pod(MANIFEST.encode(), "web.yaml", "node-1", 9.0)["metadata"]["uid"] == meta["uid"]
    assert read_pod(MANIFEST.encode(), "web.yaml", "node-2", 0.0)["metadata"]["uid"] != meta["uid"]
    mirror = mirror_of(pod, {"metadata": {"name": "node-1", "uid": "n"}})
    assert mirror["metadata"]["annotations"][MIRROR] == meta["uid"]
    assert "uid" not in mirror["metadata"]
    assert is_mirror(mirror)
    assert not is_mirror(pod)


@pytest.mark.parametrize(
    "text", ["a: [", "kind: Service\napiVersion: v1", MANIFEST.replace("name: c", "name: C!"), ""]
)
def test_what_is_no_pod_is_refused(text: str) -> None:
    with pytest.raises((ApiError, ValueError)):
        read_pod(text.encode(), "x.yaml", "node-1", 0.0)


def mirror_uid(node: Node) -> str:
    uid: str = node.api.read(PODS, KEY)["metadata"]["uid"]
    return uid


def started(runtime: Any) -> set[str]:
    return {each.status.pod_uid for each in runtime._sandboxes.values() if each.status.ready}


async def test_from_file_to_mirror_and_back(autojump_clock: MockClock, tmp_path: Path) -> None:
    file = tmp_path / "web.yaml"
    async with open_fake_node(static_pod_path=str(tmp_path)) as (node, runtime):
        file.write_text(MANIFEST)
        (tmp_path / "broken.yaml").write_text("a: [")
        (tmp_path / "notes.txt").write_text("not a manifest")
        await node.until(lambda: node.condition("Ready", KEY) == "True")
        [static] = started(runtime)
        assert static != mirror_uid(node)
        assert node.api.read(PODS, KEY)["metadata"]["ownerReferences"][0]["kind"] == "Node"

        before = mirror_uid(node)
        node.api.end(KEY, 30)
        await node.until(lambda: mirror_uid(node) != before)
        await node.until(lambda: node.condition("Ready", KEY) == "True")
        assert started(runtime) == {static}, "what runs follows the file"

        file.write_text(MANIFEST.replace("busybox:1", "busybox:2"))
        image = "busybox:2"
        await node.until(
            lambda: node.api.read(PODS, KEY)["spec"]["containers"][0]["image"] == image, 60
        )
        await node.until(lambda: node.condition("Ready", KEY) == "True")
        file.unlink()
        await node.until(lambda: not node.api.all(PODS), 60)
        await node.until(lambda: not started(runtime), 60)


async def test_a_new_kubelet_knows_them_again(autojump_clock: MockClock, tmp_path: Path) -> None:
    """And deletes the mirrors of those whose files went meanwhile."""
    (tmp_path / "web.yaml").write_text(MANIFEST)
    from k8slite.kubelet.runtime.fake import open_fake_runtime
    from tests.client.world import MemoryHost
    from tests.kubelet.world import KubeletApi, open_node

    api, host = KubeletApi(), MemoryHost()
    async with open_fake_runtime(host) as runtime:
        options: dict[str, Any] = {"api": api, "host": host, "static_pod_path": str(tmp_path)}
        async with open_node(runtime, **options) as node:
            await node.until(lambda: node.condition("Ready", KEY) == "True")
            before = started(runtime)
        async with open_node(runtime, **options) as node:
            await trio.sleep(60)
            assert started(runtime) == before
            assert node.condition("Ready", KEY) == "True"
        (tmp_path / "web.yaml").unlink()
        async with open_node(runtime, **options) as node:
            await node.until(lambda: not api.all(PODS))
            await node.until(lambda: not started(runtime), 60)
