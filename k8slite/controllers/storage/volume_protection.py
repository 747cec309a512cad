"""Claims in use and volumes that are bound outlive their deletion: their finalizers.

The plans are pure. A claim is in use by each pod that names it and has a node; before its
finalizer goes, the apiserver is asked for the pods, not the cache.
"""

from __future__ import annotations

from collections.abc import Iterable

from k8slite.api.kinds import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS, Kind
from k8slite.api.meta import Obj, deleting, make_key, name, namespace
from k8slite.client.workqueue import WorkQueue
from k8slite.controllers.actions import Action, patch_metadata
from k8slite.controllers.context import Context, enqueue_to
from k8slite.controllers.execute import carry_out

__all__ = ["claims_of", "plan", "run_claim_protection", "run_volume_protection"]

CLAIM_FINALIZER = "kubernetes.io/pvc-protection"
VOLUME_FINALIZER = "kubernetes.io/pv-protection"


def plan(kind: Kind, obj: Obj, finalizer: str, *, in_use: bool) -> list[Action]:
    """Add the finalizer while the object lives, remove it from one that may go (pure)."""
    held = obj["metadata"].get("finalizers") or []
    if not deleting(obj):
        if finalizer in held:
            return []
        return [patch_metadata(kind, obj, {"finalizers": [*held, finalizer]})]
    if finalizer not in held or in_use:
        return []
    rest = [each for each in held if each != finalizer]
    return [patch_metadata(kind, obj, {"finalizers": rest})]


def claims_of(pod: Obj) -> list[str]:
    """The names of the claims a pod uses, those of its ephemeral volumes too (pure)."""
    names = []
    for volume in pod["spec"].get("volumes") or ():
        if volume.get("persistentVolumeClaim"):
            names.append(volume["persistentVolumeClaim"]["claimName"])
        elif volume.get("ephemeral"):
            names.append(f"{name(pod)}-{volume['name']}")
    return names


def claim_index(pod: Obj) -> list[str]:
    """Index: pods by the keys of their claims."""
    return [make_key(namespace(pod), claim) for claim in claims_of(pod)]


def in_use(claim: Obj, pods: Iterable[Obj]) -> bool:
    """Does one of the pods, and one that has a node, use the claim? (pure)"""
    return any(
        pod["spec"].get("nodeName") and name(claim) in claims_of(pod)
        for pod in pods
        if namespace(pod) == namespace(claim)
    )


async def run_claim_protection(context: Context) -> None:
    """Run until cancelled."""
    queue: WorkQueue[str] = WorkQueue()
    recorder = context.recorder("pvc-protection-controller")
    claims = context.informer(PERSISTENT_VOLUME_CLAIMS)
    pods = context.informer(PODS, claims=claim_index)

    def on_pod(old: Obj | None, new: Obj | None) -> None:
        for pod in (old,) if new is None else ():
            for where in claim_index(pod) if pod is not None else ():
                queue.add(where)

    async def reconcile(where: str) -> None:
        claim = claims.get(where)
        if claim is None:
            return
        used = deleting(claim) and in_use(claim, pods.by_index("claims", where))
        actions = plan(PERSISTENT_VOLUME_CLAIMS, claim, CLAIM_FINALIZER, in_use=used)
        if actions and deleting(claim):
            live = await context.api.list(PODS, namespace(claim))
            used = in_use(claim, live.items)
            actions = plan(PERSISTENT_VOLUME_CLAIMS, claim, CLAIM_FINALIZER, in_use=used)
        await carry_out(context.api, recorder, actions)

    claims.add_handler(enqueue_to(queue))
    pods.add_handler(on_pod)
    await claims.wait_synced()
    await pods.wait_synced()
    await context.run_workers("pvc-protection", queue, reconcile)


async def run_volume_protection(context: Context) -> None:
    """Run until cancelled."""
    queue: WorkQueue[str] = WorkQueue()
    recorder = context.recorder("pv-protection-controller")
    volumes = context.informer(PERSISTENT_VOLUMES)

    async def reconcile(where: str) -> None:
        volume = volumes.get(where)
        if volume is not None:
            bound = (volume.get("status") or {}).get("phase") == "Bound"
            actions = plan(PERSISTENT_VOLUMES, volume, VOLUME_FINALIZER, in_use=bound)
            await carry_out(context.api, recorder, actions)

    volumes.add_handler(enqueue_to(queue))
    await volumes.wait_synced()
    await context.run_workers("pv-protection", queue, reconcile)
