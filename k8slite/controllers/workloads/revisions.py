"""Revisions of a Deployment (pure): template hashes, names, and the annotations of its history.

The annotations are part of the contract with kubectl: `rollout history` and `rollout undo` read
them.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from k8slite.api import meta
from k8slite.api.meta import Obj, copy, name

__all__ = [
    "HASH_LABEL",
    "REVISION",
    "carried_annotations",
    "find_new",
    "revision_of",
    "template_hash",
    "with_replicas",
    "with_revision",
]

HASH_LABEL = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
REVISION_HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED = "deployment.kubernetes.io/desired-replicas"
MAX = "deployment.kubernetes.io/max-replicas"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
NOT_CARRIED = (LAST_APPLIED, REVISION, REVISION_HISTORY, DESIRED, MAX)
SAFE = "bcdfghjklmnpqrstvwxz2456789"
"""Letters and digits that spell no words, as all generated names of Kubernetes use."""
FNV_OFFSET, FNV_PRIME = 0x811C9DC5, 0x01000193


def template_hash(template: Obj, collision_count: int) -> str:
    """The pod-template-hash; a collision count above 0 gives another one for the same template."""
    data = orjson.dumps(template, option=orjson.OPT_SORT_KEYS)
    if collision_count:
        data += collision_count.to_bytes(4, "little")
    value = FNV_OFFSET
    for byte in data:
        value = ((value ^ byte) * FNV_PRIME) & 0xFFFFFFFF
    return "".join(SAFE[ord(c) % len(SAFE)] for c in str(value))


def without_hash(template: Obj) -> Obj:
    """The template as the Deployment wrote it."""
    labels = (template.get("metadata") or {}).get("labels") or {}
    if HASH_LABEL not in labels:
        return template
    rest = {k: v for k, v in labels.items() if k != HASH_LABEL}
    return {**template, "metadata": {**template["metadata"], "labels": rest}}


def find_new(deployment: Obj, replica_sets: Sequence[Obj]) -> Obj | None:
    """The oldest set whose template is the Deployment's present one, or None."""
    template = _bare(deployment["spec"]["template"])
    for replica_set in sorted(replica_sets, key=_age):
        if _bare(without_hash(replica_set["spec"]["template"])) == template:
            return replica_set
    return None


def revision_of(obj: Obj) -> int:
    text = meta.annotations(obj).get(REVISION, "")
    return int(text) if text.isdigit() else 0


def carried_annotations(deployment: Obj) -> dict[str, str]:
    """The Deployment's annotations that its sets get too."""
    return {k: v for k, v in meta.annotations(deployment).items() if k not in NOT_CARRIED}


def with_revision(annotations: dict[str, str], revision: int) -> dict[str, str]:
    """The annotations of a set that has become this revision; earlier ones go to its history."""
    old = annotations.get(REVISION, "")
    if old.isdigit() and int(old) >= revision:
        return annotations
    new = {**annotations, REVISION: str(revision)}
    if old:
        history = annotations.get(REVISION_HISTORY, "")
        new[REVISION_HISTORY] = f"{history},{old}" if history else old
    return new


def with_replicas(annotations: dict[str, str], desired: int, most: int) -> dict[str, str]:
    """The annotations that remember for which size of the Deployment the set was scaled."""
    return {**annotations, DESIRED: str(desired), MAX: str(most)}


def desired_replicas(replica_set: Obj) -> int | None:
    return _number(replica_set, DESIRED)


def max_replicas(replica_set: Obj) -> int | None:
    return _number(replica_set, MAX)


def new_replica_set(deployment: Obj, collision_count: int) -> Obj:
    """The set of the present template, without replicas, revision and owner."""
    spec = deployment["spec"]
    template = copy(spec["template"])
    digest = template_hash(template, collision_count)
    template.setdefault("metadata", {}).setdefault("labels", {})[HASH_LABEL] = digest
    selector = copy(spec["selector"])
    selector.setdefault("matchLabels", {})[HASH_LABEL] = digest
    new: Obj = {"selector": selector, "template": template}
    if spec.get("minReadySeconds"):
        new["minReadySeconds"] = spec["minReadySeconds"]
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{name(deployment)}-{digest}",
            "namespace": deployment["metadata"]["namespace"],
            "labels": dict(template["metadata"]["labels"]),
        },
        "spec": new,
    }


def _bare(template: Obj) -> Obj:
    """Without fields that say nothing, which one of two equal templates may lack."""
    metadata = {k: v for k, v in (template.get("metadata") or {}).items() if v}
    return {**template, "metadata": {**metadata, "creationTimestamp": None}}


def _age(obj: Obj) -> tuple[str, str]:
    return obj["metadata"].get("creationTimestamp") or "", name(obj)


def _number(obj: Obj, annotation: str) -> int | None:
    text = meta.annotations(obj).get(annotation, "")
    return int(text) if text.isdigit() else None
