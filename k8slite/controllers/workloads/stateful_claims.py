"""Claims of a StatefulSet's pods (pure): made with them, kept or deleted as the set says.

`persistentVolumeClaimRetentionPolicy`: with whenDeleted Delete the set owns its claims, so that
they go with it; with whenScaled Delete the claims of a pod beyond the size belong to that pod, and
go with it. Otherwise nobody owns them, and they wait for the next pod of their number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from k8slite.api.kinds import PERSISTENT_VOLUME_CLAIMS, PODS, STATEFUL_SETS
from k8slite.api.meta import (
    Obj,
    controller_of,
    copy,
    deleting,
    labels,
    make_key,
    name,
    namespace,
    owner_reference,
    uid,
)
from k8slite.controllers.actions import Action, Create, patch_metadata

__all__ = ["claims_of", "plan_owners"]

RETAIN, DELETE = "Retain", "Delete"


def _policy(stateful_set: Obj) -> tuple[str, str]:
    """(whenScaled, whenDeleted)"""
    policy = stateful_set["spec"].get("persistentVolumeClaimRetentionPolicy") or {}
    return policy.get("whenScaled") or RETAIN, policy.get("whenDeleted") or RETAIN


def claim_names(stateful_set: Obj, number: int) -> list[str]:
    return [
        f"{name(template)}-{name(stateful_set)}-{number}"
        for template in stateful_set["spec"].get("volumeClaimTemplates") or ()
    ]


def claims_of(stateful_set: Obj, number: int) -> list[Action]:
    """Creations of the claims of one pod; those that are there belong to the next pod of its
    number."""
    actions: list[Action] = []
    own_labels = (stateful_set["spec"].get("selector") or {}).get("matchLabels") or {}
    templates = stateful_set["spec"].get("volumeClaimTemplates") or ()
    for template, own in zip(templates, claim_names(stateful_set, number), strict=True):
        metadata: Obj = {
            "name": own,
            "namespace": namespace(stateful_set),
            "labels": {**labels(template), **own_labels},
        }
        if _policy(stateful_set)[1] == DELETE:
            metadata["ownerReferences"] = [owner_reference(STATEFUL_SETS, stateful_set)]
        claim = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": metadata,
            "spec": copy(template["spec"]),
        }
        actions.append(Create(PERSISTENT_VOLUME_CLAIMS, claim))
    return actions


def plan_owners(
    stateful_set: Obj,
    pods: Iterable[tuple[int, Obj]],
    numbers: range,
    claim_named: Callable[[str], Obj | None],
) -> list[Action]:
    """Give claims the owners that the policy wants; `pods` by number, `numbers` those there should
    be. A claim that somebody else controls is left alone."""
    actions: list[Action] = []
    for number, pod in pods:
        for own in claim_names(stateful_set, number):
            claim = claim_named(make_key(namespace(stateful_set), own))
            if claim is None or deleting(claim):
                continue
            owners = owners_of(claim, stateful_set, pod, scaled_down=number not in numbers)
            if owners is not None:
                changed = patch_metadata(
                    PERSISTENT_VOLUME_CLAIMS, claim, {"ownerReferences": owners}
                )
                actions.append(changed)
    return actions


def owners_of(claim: Obj, stateful_set: Obj, pod: Obj, *, scaled_down: bool) -> list[Obj] | None:
    """The ownerReferences that the claim shall have; None if it has them."""
    now = claim["metadata"].get("ownerReferences") or []
    ours = (uid(stateful_set), uid(pod))
    controller = controller_of(claim)
    if controller is not None and controller["uid"] not in ours and not _was_ours(controller, pod):
        return None
    others = [r for r in now if r["uid"] not in ours and not _was_ours(r, pod)]
    when_scaled, when_deleted = _policy(stateful_set)
    wanted = others
    if scaled_down and when_scaled == DELETE:
        wanted = [*others, owner_reference(PODS, pod)]
    elif when_deleted == DELETE:
        wanted = [*others, owner_reference(STATEFUL_SETS, stateful_set)]
    return None if [r["uid"] for r in wanted] == [r["uid"] for r in now] else wanted


def _was_ours(reference: Obj, pod: Obj) -> bool:
    """An earlier pod of the same number, which would take the claim with it."""
    return bool(reference["kind"] == "Pod" and reference["name"] == name(pod))
