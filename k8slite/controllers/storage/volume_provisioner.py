"""Volumes made to order: directories of the machine, for claims of our own storage class.

`plan_provision` and `plan_reclaim` are pure. A volume is named by its claim's uid, so that none is
made twice. The kubelet mounts it as any hostPath; a volume made for a chosen node stays there.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import trio

from k8slite.api import meta
from k8slite.api.kinds import (
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    STORAGE_CLASSES,
)
from k8slite.api.meta import Obj, deleting, labels, name, namespace, uid
from k8slite.api.status import ApiError
from k8slite.api.volume_match import claim_reference, class_of, requested
from k8slite.client.workqueue import WorkQueue
from k8slite.controllers.actions import Action, Create, Note, Patch, delete, patch_metadata
from k8slite.controllers.context import Context
from k8slite.controllers.execute import carry_out
from k8slite.controllers.storage.volume_binder import PROVISIONED_BY, PROVISIONER, SELECTED_NODE

__all__ = ["NAME", "plan_expand", "plan_provision", "plan_reclaim", "run_local_provisioner"]

NAME = "k8slite.io/local"
HOSTNAME = "kubernetes.io/hostname"
CONFLICT = 409
STANDARD: Obj = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    "metadata": {
        "name": "standard",
        "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
    },
    "provisioner": NAME,
    "reclaimPolicy": "Delete",
    "volumeBindingMode": "Immediate",
    "allowVolumeExpansion": True,
}
"""Made where no class of ours is. Immediate: every node of the machine sees the same directory."""
in_thread = trio.to_thread.run_sync
"""For work on files; simulations, whose clock does not wait for threads, do it at once."""
_OUR_VOLUME = re.compile(r"pvc-[0-9a-z-]+")


def plan_provision(
    claim: Obj, storage_class: Obj | None, node: Obj | None, directory: str
) -> list[Action]:
    """The volume of a claim that waits for us; `node` is the one chosen for it, if it exists."""
    if (
        storage_class is None
        or meta.annotations(claim).get(PROVISIONER) != NAME
        or claim["spec"].get("volumeName")
        or deleting(claim)
    ):
        return []
    chosen = meta.annotations(claim).get(SELECTED_NODE)
    if storage_class.get("volumeBindingMode") == "WaitForFirstConsumer" and not chosen:
        return []
    if chosen and node is None:  # it is gone: the scheduler chooses again
        cleared = {"annotations": {SELECTED_NODE: None}}
        return [patch_metadata(PERSISTENT_VOLUME_CLAIMS, claim, cleared)]
    if claim["spec"].get("volumeMode") == "Block":
        message = f"{NAME} makes file systems, and no block devices"
        return [Note(claim, "Warning", "ProvisioningFailed", message)]
    volume = volume_for(claim, storage_class, node, directory)
    message = f"Successfully provisioned volume {name(volume)}"
    return [
        Create(PERSISTENT_VOLUMES, volume),
        Note(claim, "Normal", "ProvisioningSucceeded", message),
    ]


def volume_for(claim: Obj, storage_class: Obj, node: Obj | None, directory: str) -> Obj:
    own = f"pvc-{uid(claim)}"
    spec: Obj = {
        "capacity": {"storage": requested(claim)},
        "accessModes": claim["spec"].get("accessModes") or ["ReadWriteOnce"],
        "claimRef": claim_reference(claim),
        "persistentVolumeReclaimPolicy": storage_class.get("reclaimPolicy", "Delete"),
        "storageClassName": class_of(claim),
        "volumeMode": "Filesystem",
        "hostPath": {"path": f"{directory}/{own}", "type": "DirectoryOrCreate"},
    }
    if storage_class.get("mountOptions"):
        spec["mountOptions"] = storage_class["mountOptions"]
    if node is not None:
        values = [labels(node).get(HOSTNAME) or name(node)]
        term = {"matchExpressions": [{"key": HOSTNAME, "operator": "In", "values": values}]}
        spec["nodeAffinity"] = {"required": {"nodeSelectorTerms": [term]}}
    metadata = {"name": own, "annotations": {PROVISIONED_BY: NAME}}
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": metadata, "spec": spec}


def plan_reclaim(volume: Obj, directory: str) -> tuple[str, list[Action]]:
    """For a volume of ours that nobody claims: the directory to remove, and what to do then."""
    spec = volume["spec"]
    path = (spec.get("hostPath") or {}).get("path", "")
    ours = meta.annotations(volume).get(PROVISIONED_BY) == NAME and _OUR_VOLUME.fullmatch(
        name(volume)
    )
    released = (volume.get("status") or {}).get("phase") == "Released"
    if not ours or not released or spec.get("persistentVolumeReclaimPolicy") != "Delete":
        return "", []
    if path != f"{directory}/{name(volume)}":
        message = f"{path} is not below {directory}: remove it and the volume by hand"
        return "", [Note(volume, "Warning", "VolumeFailedDelete", message)]
    return path, [] if deleting(volume) else [delete(PERSISTENT_VOLUMES, volume)]


def plan_expand(claim: Obj, volume: Obj | None, storage_class: Obj | None) -> list[Action]:
    """A claim that asks for more than it has; a directory holds as much as the machine does."""
    status = claim.get("status") or {}
    held, wanted = (status.get("capacity") or {}).get("storage"), requested(claim)
    if status.get("phase") != "Bound" or volume is None or held in (None, wanted):
        return []
    if meta.annotations(volume).get(PROVISIONED_BY) != NAME:
        return []
    if not (storage_class or {}).get("allowVolumeExpansion"):
        return []
    size = {"storage": wanted}
    grown = {"metadata": {"uid": uid(volume)}, "spec": {"capacity": size}}
    told = {"metadata": {"uid": uid(claim)}, "status": {"capacity": size}}
    where = namespace(claim), name(claim)
    message = "MountVolume.NodeExpandVolume succeeded for volume " + f'"{name(volume)}"'
    return [
        Patch(PERSISTENT_VOLUMES, "", name(volume), grown),
        Patch(PERSISTENT_VOLUME_CLAIMS, *where, told, "status"),
        Note(claim, "Normal", "FileSystemResizeSuccessful", message),
    ]


async def run_local_provisioner(context: Context) -> None:
    """Run until cancelled; does nothing where the manager was given no directory."""
    directory = context.local_volumes
    if not directory:
        return
    queue: WorkQueue[tuple[str, str]] = WorkQueue()
    recorder = context.recorder(NAME)
    claims = context.informer(PERSISTENT_VOLUME_CLAIMS)
    volumes = context.informer(PERSISTENT_VOLUMES)
    classes = context.informer(STORAGE_CLASSES)
    nodes = context.informer(NODES)

    def on_claim(old: Obj | None, new: Obj | None) -> None:
        if new is not None:
            queue.add(("claim", meta.key(new)))

    def on_volume(old: Obj | None, new: Obj | None) -> None:
        if new is not None:
            queue.add(("volume", name(new)))

    async def reconcile(item: tuple[str, str]) -> None:
        which, where = item
        if which == "class":
            if not any(each["provisioner"] == NAME for each in classes.list()):
                await _create_once(context, Create(STORAGE_CLASSES, STANDARD))
            return
        if which == "volume":
            volume = volumes.get(where)
            if volume is not None:
                path, actions = plan_reclaim(volume, directory)
                if path:
                    await in_thread(_remove, Path(directory), Path(path))
                await carry_out(context.api, recorder, actions)
            return
        claim = claims.get(where)
        if claim is None:
            return
        storage_class = classes.get(class_of(claim))
        bound = volumes.get(claim["spec"].get("volumeName") or "")
        await carry_out(context.api, recorder, plan_expand(claim, bound, storage_class))
        if volumes.get(f"pvc-{uid(claim)}") is not None:
            return
        node = nodes.get(meta.annotations(claim).get(SELECTED_NODE, ""))
        for action in plan_provision(claim, storage_class, node, directory):
            if isinstance(action, Create):
                made = Path(action.obj["spec"]["hostPath"]["path"])
                await in_thread(_make, made)
                if not await _create_once(context, action):
                    return
            else:
                await carry_out(context.api, recorder, [action])

    for informer in (claims, volumes, classes, nodes):
        await informer.wait_synced()
    queue.add(("class", STANDARD["metadata"]["name"]))
    claims.add_handler(on_claim)
    volumes.add_handler(on_volume)
    await context.run_workers("local-provisioner", queue, reconcile)


async def _create_once(context: Context, action: Create) -> bool:
    """False: it is there already, and the cache will show it."""
    try:
        await context.api.create(action.kind, action.obj)
    except ApiError as error:
        if error.code != CONFLICT:
            raise
        return False
    return True


def _make(path: Path) -> None:
    """Everybody may write there, as what runs in pods is seldom root."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o777)


def _remove(root: Path, path: Path) -> None:
    """Only a directory of ours, and never through a link."""
    assert path.parent == root, f"{path} is not below {root}"
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
