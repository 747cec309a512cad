"""Volumes that are images, and claims that are made for one pod."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from k8slite.api.kinds import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS
from k8slite.api.meta import Obj
from k8slite.kubelet.images.merge import merge_layers
from k8slite.kubelet.images.store import ImageStore
from tests.kubelet.archives import directory, docker_archive, link, member, tar
from tests.kubelet.test_kubelet_real import log_of, open_real, root
from tests.kubelet.world import KubeletApi, container, open_fake_node, pod

__all__ = ["root"]  # the fixture

LOWER = tar(
    directory("etc"),
    member("etc/name", b"lower"),
    member("etc/gone", b"x"),
    directory("old"),
    member("old/file", b"x"),
    link("etc/link", "name"),
)
UPPER = tar(
    member("etc/name", b"upper", mode=0o600),
    member("etc/.wh.gone"),
    directory("old"),
    member("old/.wh..wh..opq"),
    member("old/new", b"new"),
)


@pytest.mark.root
def test_layers_become_one_directory(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "store")
    [image] = store.load(docker_archive(tmp_path / "a.tar", [LOWER, UPPER], "data:1"))
    merged = tmp_path / "merged"
    merge_layers(image.layers, merged)
    assert {str(p.relative_to(merged)) for p in merged.rglob("*")} == {
        "etc",
        "etc/name",
        "etc/link",
        "old",
        "old/new",
    }
    assert (merged / "etc/link").read_text() == "upper"
    assert (merged / "etc/name").stat().st_mode & 0o777 == 0o600


def claim(owner: Obj | None) -> Obj:
    references = []
    if owner is not None:
        meta = owner["metadata"]
        reference = {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"]}
        references = [{**reference, "controller": True}]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "p-own", "namespace": "default", "ownerReferences": references},
        "spec": {"volumeName": "v"},
    }


def volume(path: Path) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": "v"},
        "spec": {"hostPath": {"path": str(path)}},
    }


OWN: dict[str, Any] = {"name": "own", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}


@pytest.mark.root
@pytest.mark.tool("runc")
async def test_images_and_claims_in_a_container(root: Path) -> None:
    api = KubeletApi()
    store = ImageStore(root / "images")
    store.load(docker_archive(root / "a.tar", [LOWER, UPPER], "data:1"))
    script = "cat /data/etc/name; echo; touch /data/x || echo kept; echo mine > /own/file; sleep 99"
    mounts = [{"name": name, "mountPath": f"/{name}"} for name in ("data", "own")]
    made = pod(
        containers=[container("c", "sh", "-c", script, volumeMounts=mounts)],
        volumes=[{"name": "data", "image": {"reference": "data:1"}}, OWN],
    )
    kept = root / "claimed"
    kept.mkdir()
    api.add(PERSISTENT_VOLUMES, volume(kept))
    async with open_real("oci", root, api) as node:
        api.add(PODS, made)
        await node.until(lambda: "is not bound" in " ".join(m for _, m in api.events()))
        api.add(PERSISTENT_VOLUME_CLAIMS, claim(made))
        await node.until(lambda: node.condition("Ready") == "True")
        await node.until(lambda: "kept" in log_of(root) and (kept / "file").exists())
        assert log_of(root).startswith("upper")
        assert not list((root / "images").rglob("x")), "the store is as it was"
        api.end("default/p", 0)
        await node.until(lambda: not api.all(PODS) and not node.kubelet.pods())


async def test_anothers_claim_is_not_taken(autojump_clock: MockClock) -> None:
    async with open_fake_node() as (node, _):
        node.api.add(PERSISTENT_VOLUME_CLAIMS, claim(None))
        node.api.add(PODS, pod(volumes=[OWN]))
        await trio.sleep(3)
        text = "PVC default/p-own was not created for pod default/p (pod is not owner)"
        assert ("FailedMount", text) in node.api.events()
