"""Facts about pods that controllers share (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from k8slite.api import meta
from k8slite.api.kinds import Kind
from k8slite.api.meta import (
    Obj,
    condition_is,
    copy,
    deleting,
    get_condition,
    name,
    namespace,
    owner_reference,
    parse_time,
)

__all__ = [
    "available_in",
    "deletion_order",
    "is_active",
    "is_ready",
    "is_terminal",
    "node_index",
    "pod_from_template",
]

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
PHASE_ORDER = {"Pending": 0, "Unknown": 1, "Running": 2}


def phase(pod: Obj) -> str:
    return (pod.get("status") or {}).get("phase") or "Pending"


def is_terminal(pod: Obj) -> bool:
    """It has run to its end and will not run again."""
    return phase(pod) in ("Succeeded", "Failed")


def is_active(pod: Obj) -> bool:
    """It counts as a replica: neither finished nor on its way out."""
    return not is_terminal(pod) and not deleting(pod)


def is_ready(pod: Obj) -> bool:
    return condition_is(pod, "Ready")


def available_in(pod: Obj, min_ready_seconds: int, now: float) -> float:
    """Seconds until the ready pod counts as available (0 or less: it does); inf if not ready."""
    condition = get_condition(pod, "Ready")
    if condition is None or condition.get("status") != "True":
        return float("inf")
    since = condition.get("lastTransitionTime")
    if not min_ready_seconds or not since:
        return 0.0 if not min_ready_seconds else float(min_ready_seconds)
    return parse_time(since) + min_ready_seconds - now


def node_index(pod: Obj) -> list[str]:
    """Index: pods by the node they are bound to."""
    node = pod["spec"].get("nodeName")
    return [node] if node else []


def pod_from_template(template: Obj, owner_kind: Kind, owner: Obj) -> Obj:
    """A new pod of a template, controlled by the owner; the server completes its name."""
    given = template.get("metadata") or {}
    metadata: Obj = {
        "generateName": f"{name(owner)}-",
        "namespace": namespace(owner),
        "ownerReferences": [owner_reference(owner_kind, owner)],
    }
    for field in ("labels", "annotations", "finalizers"):
        if given.get(field):
            metadata[field] = copy(given[field])
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": copy(template["spec"]),
    }


def deletion_order(pods: Sequence[Obj], related: Iterable[Obj]) -> list[Obj]:
    """The pods in the order in which scaling down deletes them, as kube-controller-manager ranks.

    Not yet bound, not running, not ready, cheap to delete, crowded together on a node, ready or
    restarted or created more recently: these go first. `related` are all pods of the same
    owner's siblings, which make a node crowded.
    """
    crowd: dict[str, int] = {}
    for pod in related:
        node = pod["spec"].get("nodeName")
        if node and is_active(pod):
            crowd[node] = crowd.get(node, 0) + 1

    def rank(pod: Obj) -> tuple[object, ...]:
        node = pod["spec"].get("nodeName", "")
        ready = is_ready(pod)
        condition = get_condition(pod, "Ready") or {}
        ready_since = condition.get("lastTransitionTime") or ""
        return (
            bool(node),
            PHASE_ORDER.get(phase(pod), 2),
            ready,
            _deletion_cost(pod),
            -crowd.get(node, 0),
            _newest_first(ready_since) if ready else 0.0,
            -_restarts(pod),
            _newest_first(pod["metadata"].get("creationTimestamp") or ""),
            name(pod),
        )

    return sorted(pods, key=rank)


def _newest_first(time: str) -> float:
    return -parse_time(time) if time else float("-inf")


def _deletion_cost(pod: Obj) -> int:
    text = meta.annotations(pod).get(DELETION_COST, "0")
    return int(text) if text.removeprefix("-").isdigit() else 0


def _restarts(pod: Obj) -> int:
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return max((s.get("restartCount", 0) for s in statuses), default=0)
