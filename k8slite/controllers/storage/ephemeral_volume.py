"""Claims of pods' ephemeral volumes: made for the pod, owned by it, gone with it."""

from __future__ import annotations

from collections.abc import Callable

from k8slite.api.kinds import PERSISTENT_VOLUME_CLAIMS, PODS
from k8slite.api.meta import (
    Obj,
    copy,
    deleting,
    is_controlled_by,
    key,
    make_key,
    name,
    namespace,
    owner_reference,
)
from k8slite.client.workqueue import WorkQueue
from k8slite.controllers.actions import Action, Create, Note
from k8slite.controllers.context import Context
from k8slite.controllers.execute import carry_out
from k8slite.controllers.ownership import controller_key

__all__ = ["plan", "run_ephemeral_volume_controller"]


def plan(pod: Obj, claim_named: Callable[[str], Obj | None]) -> list[Action]:
    """The claims that the pod lacks (pure)."""
    actions: list[Action] = []
    for volume in pod["spec"].get("volumes") or () if not deleting(pod) else ():
        if not volume.get("ephemeral"):
            continue
        own = f"{name(pod)}-{volume['name']}"
        claim = claim_named(own)
        if claim is None:
            template = volume["ephemeral"]["volumeClaimTemplate"]
            given = template.get("metadata") or {}
            metadata = {
                "name": own,
                "namespace": namespace(pod),
                "labels": copy(given.get("labels") or {}),
                "annotations": copy(given.get("annotations") or {}),
                "ownerReferences": [owner_reference(PODS, pod)],
            }
            new = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata}
            actions.append(
                Create(PERSISTENT_VOLUME_CLAIMS, {**new, "spec": copy(template["spec"])})
            )
        elif not is_controlled_by(claim, pod):
            message = f'PVC "{key(claim)}" was not created for pod "{key(pod)}" (pod is not owner)'
            actions.append(Note(pod, "Warning", "FailedCreate", message))
    return actions


async def run_ephemeral_volume_controller(context: Context) -> None:
    """Run until cancelled."""
    queue: WorkQueue[str] = WorkQueue()
    recorder = context.recorder("ephemeral_volume")
    pods = context.informer(PODS)
    claims = context.informer(PERSISTENT_VOLUME_CLAIMS)

    def on_pod(old: Obj | None, new: Obj | None) -> None:
        if new is not None and any(v.get("ephemeral") for v in new["spec"].get("volumes") or ()):
            queue.add(key(new))

    def on_claim(old: Obj | None, new: Obj | None) -> None:
        owner = controller_key(old, PODS) if old is not None and new is None else None
        if owner is not None:
            queue.add(owner)

    async def reconcile(where: str) -> None:
        pod = pods.get(where)
        if pod is not None:
            space = namespace(pod)
            actions = plan(pod, lambda own: claims.get(make_key(space, own)))
            await carry_out(context.api, recorder, actions)

    pods.add_handler(on_pod)
    claims.add_handler(on_claim)
    await pods.wait_synced()
    await claims.wait_synced()
    await context.run_workers("ephemeral-volume", queue, reconcile)
