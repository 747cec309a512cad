"""Node selectors and node affinity (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from k8slite.api.meta import Obj
from k8slite.scheduler.framework import SKIP, ClusterEvent, Rejection, scale_to_max
from k8slite.scheduler.pod_info import PodInfo
from k8slite.scheduler.snapshot import NodeInfo, Snapshot

__all__ = ["NodeAffinity", "matches_required", "matches_term"]

NO_MATCH = Rejection(("node(s) didn't match Pod's node affinity/selector",))


def matches_term(term: Obj, labels: Mapping[str, str], node_name: str) -> bool:
    """All expressions of one term; a term without any matches nothing."""
    expressions = term.get("matchExpressions") or ()
    fields = term.get("matchFields") or ()
    if not expressions and not fields:
        return False
    by_field = {"metadata.name": node_name}
    return all(_matches(e, labels) for e in expressions) and all(
        _matches(e, by_field) for e in fields
    )


def _matches(expression: Obj, values: Mapping[str, str]) -> bool:
    key, operator = expression["key"], expression["operator"]
    wanted: Sequence[str] = expression.get("values") or ()
    has = key in values
    match operator:
        case "In":
            return has and values[key] in wanted
        case "NotIn":
            return not has or values[key] not in wanted
        case "Exists":
            return has
        case "DoesNotExist":
            return not has
        case "Gt" | "Lt":
            try:
                number, bound = int(values.get(key, "")), int(wanted[0])
            except (ValueError, IndexError):
                return False
            return number > bound if operator == "Gt" else number < bound
    return False


def required_terms(pod: PodInfo) -> Sequence[Obj] | None:
    affinity = pod.affinity.get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    return None if required is None else required.get("nodeSelectorTerms") or ()


def matches_required(pod: PodInfo, node: NodeInfo) -> bool:
    """The node selector and any one of the required terms."""
    if not pod.node_selector.items() <= node.labels.items():
        return False
    terms = required_terms(pod)
    return terms is None or any(matches_term(t, node.labels, node.name) for t in terms)


class NodeAffinity:
    name = "NodeAffinity"
    events = (ClusterEvent.NODE_ADDED, ClusterEvent.NODE_CHANGED)

    def prepare(
        self, pod: PodInfo, snapshot: Snapshot, nodes: Sequence[NodeInfo] | None = None
    ) -> Any:
        if nodes is None:
            return True if pod.node_selector or required_terms(pod) is not None else SKIP
        affinity = pod.affinity.get("nodeAffinity") or {}
        return affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or SKIP

    def filter(self, state: Any, pod: PodInfo, node: NodeInfo) -> Rejection | None:
        return None if matches_required(pod, node) else NO_MATCH

    def score(self, state: Sequence[Obj], pod: PodInfo, node: NodeInfo) -> int:
        """The weights of the preferred terms that match."""
        return sum(
            preferred["weight"]
            for preferred in state
            if matches_term(preferred["preference"], node.labels, node.name)
        )

    def normalize(self, scores: list[int]) -> list[int]:
        return scale_to_max(scores)
