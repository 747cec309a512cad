"""Claims that ask for more than they have. Our own provisioner's grow there (`volume_provisioner`);
of all others somebody outside must take care, and is told so."""

from __future__ import annotations

from k8slite.api import meta, quantity
from k8slite.api.kinds import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, STORAGE_CLASSES
from k8slite.api.meta import Obj
from k8slite.api.volume_match import class_of, requested
from k8slite.client.workqueue import WorkQueue
from k8slite.controllers.actions import Action, Note
from k8slite.controllers.context import Context, enqueue_to
from k8slite.controllers.execute import carry_out
from k8slite.controllers.storage.volume_binder import PROVISIONED_BY
from k8slite.controllers.storage.volume_provisioner import NAME

__all__ = ["plan", "run_volume_expander"]

WAITING = "waiting for an external controller to expand this PVC"  # the words that clients look for


def plan(claim: Obj, volume: Obj | None, storage_class: Obj | None) -> list[Action]:
    """(pure)"""
    status = claim.get("status") or {}
    held = (status.get("capacity") or {}).get("storage")
    if status.get("phase") != "Bound" or volume is None or held is None:
        return []
    if quantity.parse(requested(claim)) <= quantity.parse(held):
        return []
    ours = meta.annotations(volume).get(PROVISIONED_BY) == NAME
    if ours or not (storage_class or {}).get("allowVolumeExpansion"):
        return []
    return [Note(claim, "Normal", "ExternalExpanding", WAITING)]


async def run_volume_expander(context: Context) -> None:
    """Run until cancelled."""
    queue: WorkQueue[str] = WorkQueue()
    recorder = context.recorder("volume_expand")
    claims = context.informer(PERSISTENT_VOLUME_CLAIMS)
    volumes = context.informer(PERSISTENT_VOLUMES)
    classes = context.informer(STORAGE_CLASSES)

    async def reconcile(where: str) -> None:
        claim = claims.get(where)
        if claim is None:
            return
        volume = volumes.get(claim["spec"].get("volumeName") or "")
        await carry_out(context.api, recorder, plan(claim, volume, classes.get(class_of(claim))))

    claims.add_handler(enqueue_to(queue))
    for informer in (claims, volumes, classes):
        await informer.wait_synced()
    await context.run_workers("volume_expand", queue, reconcile)
