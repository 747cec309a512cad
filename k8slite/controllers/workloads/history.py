"""ControllerRevisions (pure): numbered versions of a template, of DaemonSets and StatefulSets.

kubectl's `rollout history` and `rollout undo` read them; the data is the patch that restores the
template.
"""

from __future__ import annotations

from collections.abc import Sequence

from k8slite.api.kinds import CONTROLLER_REVISIONS, Kind
from k8slite.api.meta import Obj, copy, labels, name, namespace, owner_reference
from k8slite.controllers.actions import Action, Create, Update, delete
from k8slite.controllers.workloads.revisions import carried_annotations, template_hash

__all__ = ["HASH_LABEL", "plan_history", "revision_hash"]

HASH_LABEL = "controller-revision-hash"
HISTORY_LIMIT = 10


def revision_hash(owner: Obj) -> str:
    """The hash of the present template, with which its pods are labelled."""
    collisions = (owner.get("status") or {}).get("collisionCount") or 0
    return template_hash(owner["spec"]["template"], collisions)


def plan_history(
    kind: Kind, owner: Obj, revisions: Sequence[Obj], live: Sequence[str]
) -> list[Action]:
    """Make the present template the newest revision and forget the oldest ones beyond the limit.

    `revisions` are the owner's; `live` are hashes that pods still carry.
    """
    digest = revision_hash(owner)
    newest = max((r.get("revision", 0) for r in revisions), default=0)
    present = next((r for r in revisions if labels(r).get(HASH_LABEL) == digest), None)
    actions: list[Action] = []
    if present is None:
        actions.append(Create(CONTROLLER_REVISIONS, _revision(kind, owner, digest, newest + 1)))
    elif present.get("revision", 0) < newest:
        changed = {**present, "revision": newest + 1}
        actions.append(Update(CONTROLLER_REVISIONS, changed))
    limit = owner["spec"].get("revisionHistoryLimit", HISTORY_LIMIT)
    old = [
        r
        for r in sorted(revisions, key=lambda r: int(r.get("revision", 0)))
        if r is not present and labels(r).get(HASH_LABEL) not in live
    ]
    surplus = max(0, len(old) - limit)
    return [*actions, *(delete(CONTROLLER_REVISIONS, r) for r in old[:surplus])]


def _revision(kind: Kind, owner: Obj, digest: str, number: int) -> Obj:
    template = {**copy(owner["spec"]["template"]), "$patch": "replace"}
    of_template = (template.get("metadata") or {}).get("labels") or {}
    return {
        "apiVersion": CONTROLLER_REVISIONS.api_version,
        "kind": CONTROLLER_REVISIONS.kind,
        "metadata": {
            "name": f"{name(owner)}-{digest}",
            "namespace": namespace(owner),
            "labels": {**of_template, HASH_LABEL: digest},
            "annotations": carried_annotations(owner),
            "ownerReferences": [owner_reference(kind, owner)],
        },
        "data": {"spec": {"template": template}},
        "revision": number,
    }
