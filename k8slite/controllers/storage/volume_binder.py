"""Binding claims and volumes to each other. `plan_claim` and `plan_volume` are pure.

First the volume says whose it is (on condition that it is as it was seen, so that of two claims
one wins), then the claim says what it has; a crash between any two writes is repaired by the next
pass, which finds the volume that is kept for the claim.
"""

from __future__ import annotations

from collections.abc import Iterable

from k8slite.api import meta
from k8slite.api.kinds import (
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    STORAGE_CLASSES,
)
from k8slite.api.meta import Obj, make_key, name, namespace, split_key, uid
from k8slite.api.status import ApiError
from k8slite.api.volume_match import (
    best_volume,
    capacity,
    claim_reference,
    class_of,
    is_for,
    why_not,
)
from k8slite.client.informer import Informer
from k8slite.client.workqueue import WorkQueue
from k8slite.controllers.actions import Action, Note, Patch, Update
from k8slite.controllers.context import Context
from k8slite.controllers.execute import carry_out

__all__ = ["BOUND_BY_US", "SELECTED_NODE", "plan_claim", "plan_volume", "run_volume_binder"]

BOUND_BY_US = "pv.kubernetes.io/bound-by-controller"
COMPLETED = "pv.kubernetes.io/bind-completed"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
SELECTED_NODE = "volume.kubernetes.io/selected-node"
PROVISIONER = "volume.kubernetes.io/storage-provisioner"
PROVISIONER_BETA = "volume.beta.kubernetes.io/storage-provisioner"
NO_PROVISIONER = "kubernetes.io/no-provisioner"
NOT_FOUND = 404


def plan_claim(claim: Obj, volumes: Iterable[Obj], storage_class: Obj | None) -> list[Action]:
    """`volumes` are all there are; `storage_class` is the one the claim names, if it exists."""
    volumes = [*volumes]
    named = claim["spec"].get("volumeName")
    if meta.annotations(claim).get(COMPLETED):
        return _bound_claim(claim, next((v for v in volumes if name(v) == named), None))
    if named:
        return _wanted_volume(claim, next((v for v in volumes if name(v) == named), None))
    waits = (storage_class or {}).get("volumeBindingMode") == "WaitForFirstConsumer"
    waits = waits and SELECTED_NODE not in meta.annotations(claim)
    volume = best_volume(claim, volumes, prebound_only=waits)
    if volume is not None:
        return _bind(claim, volume)
    if waits:
        message = "waiting for first consumer to be created before binding"
        return [*_pending(claim), Note(claim, "Normal", "WaitForFirstConsumer", message)]
    return [*_pending(claim), *_provision(claim, storage_class)]


def _wanted_volume(claim: Obj, volume: Obj | None) -> list[Action]:
    """The claim names its volume, and is not bound yet."""
    if volume is None:
        return _pending(claim)
    if volume["spec"].get("claimRef") is None:
        problem = why_not(volume, claim)
        if problem:
            message = f'Cannot bind to requested volume "{name(volume)}": {problem}'
            return [*_pending(claim), Note(claim, "Warning", "VolumeMismatch", message)]
        return _bind(claim, volume)
    if is_for(volume, claim):
        return _bind(claim, volume)
    message = f'volume "{name(volume)}" already bound to a different claim.'
    return [*_pending(claim), Note(claim, "Warning", "FailedBinding", message)]


def _bound_claim(claim: Obj, volume: Obj | None) -> list[Action]:
    """The claim was bound; its volume may have been taken away since."""
    if volume is None:
        message = "Bound claim has lost its PersistentVolume. Data on the volume is lost!"
        return _lost(claim, "ClaimLost", message)
    if volume["spec"].get("claimRef") is None or is_for(volume, claim):
        return _bind(claim, volume)
    message = (
        "Two claims are bound to the same volume, this one is bound incorrectly"
        if volume["spec"]["claimRef"].get("uid")
        else "Bound claim has lost its PersistentVolume."
    )
    return _lost(claim, "ClaimMisbound", message)


def _bind(claim: Obj, volume: Obj) -> list[Action]:
    """What is missing for the two to be bound to each other, in order."""
    actions: list[Action] = []
    reference = volume["spec"].get("claimRef")
    if reference is None or reference.get("uid") != uid(claim):
        metadata = dict(volume["metadata"])
        if reference is None:
            metadata["annotations"] = {**meta.annotations(volume), BOUND_BY_US: "yes"}
        spec = {**volume["spec"], "claimRef": claim_reference(claim)}
        actions.append(Update(PERSISTENT_VOLUMES, {**volume, "metadata": metadata, "spec": spec}))
    if (volume.get("status") or {}).get("phase") != "Bound":
        actions.append(_phase(volume, "Bound"))
    notes = dict(meta.annotations(claim))
    notes[COMPLETED] = "yes"
    if not claim["spec"].get("volumeName"):
        notes[BOUND_BY_US] = "yes"
    if notes != meta.annotations(claim) or claim["spec"].get("volumeName") != name(volume):
        metadata = {**claim["metadata"], "annotations": notes}
        spec = {**claim["spec"], "volumeName": name(volume)}
        actions.append(
            Update(PERSISTENT_VOLUME_CLAIMS, {**claim, "metadata": metadata, "spec": spec})
        )
    modes = volume["spec"].get("accessModes") or []
    old = claim.get("status") or {}
    held = (old.get("capacity") or {}).get("storage")
    if old.get("phase") != "Bound" or old.get("accessModes") != modes or held is None:
        status = {
            "phase": "Bound",
            "accessModes": modes,
            "capacity": {"storage": capacity(volume)},
        }
        actions.append(_status(claim, status))
    return actions


def _pending(claim: Obj) -> list[Action]:
    phase = (claim.get("status") or {}).get("phase")
    return [] if phase == "Pending" else [_status(claim, {"phase": "Pending"})]


def _lost(claim: Obj, reason: str, message: str) -> list[Action]:
    if (claim.get("status") or {}).get("phase") == "Lost":
        return []
    return [_status(claim, {"phase": "Lost"}), Note(claim, "Warning", reason, message)]


def _provision(claim: Obj, storage_class: Obj | None) -> list[Action]:
    """Ask the class's provisioner, if there is one."""
    if storage_class is None:
        wanted = class_of(claim)
        if wanted:
            message = f'storageclass.storage.k8s.io "{wanted}" not found'
            return [Note(claim, "Warning", "ProvisioningFailed", message)]
        message = "no persistent volumes available for this claim and no storage class is set"
        return [Note(claim, "Normal", "FailedBinding", message)]
    provisioner = storage_class["provisioner"]
    if provisioner == NO_PROVISIONER:
        message = "no volume plugin matched name: " + NO_PROVISIONER
        return [Note(claim, "Warning", "ProvisioningFailed", message)]
    actions: list[Action] = []
    if meta.annotations(claim).get(PROVISIONER) != provisioner:
        notes = {PROVISIONER: provisioner, PROVISIONER_BETA: provisioner}
        metadata = {"uid": uid(claim), "annotations": notes}
        actions.append(
            Patch(PERSISTENT_VOLUME_CLAIMS, namespace(claim), name(claim), {"metadata": metadata})
        )
    message = (
        f"Waiting for a volume to be created either by the external provisioner '{provisioner}' "
        "or manually by the system administrator. If volume creation is delayed, please verify "
        "that the provisioner is running and correctly registered."
    )
    return [*actions, Note(claim, "Normal", "ExternalProvisioning", message)]


def plan_volume(volume: Obj, claim: Obj | None) -> list[Action]:
    """`claim` is the one that the volume's claimRef names, if it exists."""
    reference = volume["spec"].get("claimRef")
    phase = (volume.get("status") or {}).get("phase")
    if not reference or not reference.get("uid"):
        return [] if phase == "Available" else [_phase(volume, "Available")]
    if claim is None or uid(claim) != reference["uid"]:
        return [] if phase in ("Released", "Failed") else [_phase(volume, "Released")]
    if claim["spec"].get("volumeName") in (None, "", name(volume)):
        done = claim["spec"].get("volumeName") and phase != "Bound"
        return [_phase(volume, "Bound")] if done else []
    # The claim has got another one meanwhile.
    notes = meta.annotations(volume)
    if PROVISIONED_BY in notes and volume["spec"].get("persistentVolumeReclaimPolicy") == "Delete":
        return [] if phase == "Released" else [_phase(volume, "Released")]
    spec = {**volume["spec"]}
    metadata = {**volume["metadata"]}
    if BOUND_BY_US in notes:
        del spec["claimRef"]
        metadata["annotations"] = {k: v for k, v in notes.items() if k != BOUND_BY_US}
    else:
        spec["claimRef"] = {
            k: v for k, v in reference.items() if k not in ("uid", "resourceVersion")
        }
    return [Update(PERSISTENT_VOLUMES, {**volume, "metadata": metadata, "spec": spec})]


def _phase(volume: Obj, phase: str) -> Patch:
    patch = {"metadata": {"uid": uid(volume)}, "status": {"phase": phase}}
    return Patch(PERSISTENT_VOLUMES, "", name(volume), patch, "status")


def _status(claim: Obj, status: Obj) -> Patch:
    patch = {"metadata": {"uid": uid(claim)}, "status": status}
    return Patch(PERSISTENT_VOLUME_CLAIMS, namespace(claim), name(claim), patch, "status")


def free_index(volume: Obj) -> list[str]:
    """Index: volumes by whom they are for, "ns/name"; free ones under their class, "class/"."""
    reference = volume["spec"].get("claimRef")
    if reference:
        return [make_key(reference.get("namespace"), reference.get("name", ""))]
    return [f"class/{class_of(volume)}"]


async def run_volume_binder(context: Context) -> None:
    """Run until cancelled. Keys are (kind's plural, key)."""
    queue: WorkQueue[tuple[str, str]] = WorkQueue()
    recorder = context.recorder("persistentvolume-controller")
    claims = context.informer(PERSISTENT_VOLUME_CLAIMS)
    volumes = context.informer(PERSISTENT_VOLUMES, binding=free_index)
    classes = context.informer(STORAGE_CLASSES)

    def on_claim(old: Obj | None, new: Obj | None) -> None:
        claim = new or old
        assert claim is not None
        queue.add(("claim", meta.key(claim)))
        if claim["spec"].get("volumeName"):
            queue.add(("volume", claim["spec"]["volumeName"]))
        for volume in volumes.by_index("binding", meta.key(claim)):
            queue.add(("volume", name(volume)))

    def on_volume(old: Obj | None, new: Obj | None) -> None:
        volume = new or old
        assert volume is not None
        queue.add(("volume", name(volume)))
        reference = volume["spec"].get("claimRef")
        if reference:
            queue.add(("claim", make_key(reference.get("namespace"), reference["name"])))
        elif new is not None:
            wake_pending(class_of(volume))
        for claim in claims.list() if new is None else ():
            if claim["spec"].get("volumeName") == name(volume):
                queue.add(("claim", meta.key(claim)))

    def wake_pending(wanted: str) -> None:
        for claim in claims.list():
            pending = (claim.get("status") or {}).get("phase") in (None, "Pending")
            if pending and class_of(claim) == wanted:
                queue.add(("claim", meta.key(claim)))

    def on_class(old: Obj | None, new: Obj | None) -> None:
        if new is not None:
            wake_pending(name(new))

    async def reconcile(item: tuple[str, str]) -> None:
        which, where = item
        if which == "claim":
            claim = claims.get(where)
            if claim is None:
                return
            near = [*volumes.by_index("binding", where)]
            near += volumes.by_index("binding", f"class/{class_of(claim)}")
            named = claim["spec"].get("volumeName")
            chosen = volumes.get(named) if named else None
            if chosen is not None and chosen not in near:
                near.append(chosen)
            actions = plan_claim(claim, near, classes.get(class_of(claim)))
        else:
            volume = volumes.get(where)
            if volume is None:
                return
            actions = plan_volume(volume, await _claim_of(context, volume, claims))
        await carry_out(context.api, recorder, actions)

    for informer in (claims, volumes, classes):
        await informer.wait_synced()
    claims.add_handler(on_claim)
    volumes.add_handler(on_volume)
    classes.add_handler(on_class)
    await context.run_workers("persistentvolume-binder", queue, reconcile)


async def _claim_of(context: Context, volume: Obj, claims: Informer) -> Obj | None:
    """The volume's claim; before it counts as gone, the apiserver is asked, not the cache."""
    reference = volume["spec"].get("claimRef")
    if not reference:
        return None
    where = make_key(reference.get("namespace"), reference["name"])
    claim = claims.get(where)
    if claim is not None and uid(claim) == reference.get("uid"):
        return claim
    space, own = split_key(where)
    try:
        return await context.api.get(PERSISTENT_VOLUME_CLAIMS, own, space)
    except ApiError as error:
        if error.code != NOT_FOUND:
            raise
        return None
