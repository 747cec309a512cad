"""Spreading pods over nodes and zones (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import frozen

from k8slite.api.meta import Obj
from k8slite.scheduler.framework import SCORE_MAX, SKIP, ClusterEvent, Rejection, scale_to_max
from k8slite.scheduler.plugins.node_affinity import is_choosy, matches_required
from k8slite.scheduler.plugins.taints import KEEPS_AWAY, first_untolerated
from k8slite.scheduler.pod_info import PodInfo
from k8slite.scheduler.snapshot import NodeInfo, Snapshot
from k8slite.scheduler.terms import Choice, selector_of

__all__ = ["OwnerSpread", "TopologySpread"]

SKEWED = Rejection(("node(s) didn't match pod topology spread constraints",), resolvable=True)
NO_LABEL = Rejection(
    ("node(s) didn't match pod topology spread constraints (missing required label)",)
)


@frozen
class Constraint:
    """One spread constraint, and how many matching pods each domain has."""

    topology_key: str
    max_skew: int
    counts: dict[str, int]
    least: int
    matches_itself: bool


def counted(constraint: Obj, pod: PodInfo, snapshot: Snapshot) -> Constraint:
    """Count matching pods by domain, over the nodes that the pod could go to at all."""
    key = constraint["topologyKey"]
    choice = Choice(selector_of(constraint, pod.labels), (pod.namespace,))
    count = snapshot.count(key, choice)
    counts = count.places
    honor_affinity = constraint.get("nodeAffinityPolicy", "Honor") == "Honor"
    honor_affinity = honor_affinity and is_choosy(pod)
    honor_taints = constraint.get("nodeTaintsPolicy", "Ignore") == "Honor"
    if honor_affinity or honor_taints:
        counts = {}
        for node in snapshot.nodes:
            domain = node.labels.get(key)
            if domain is None or (honor_affinity and not matches_required(pod, node)):
                continue
            if honor_taints and first_untolerated(pod, node.taints, KEEPS_AWAY):
                continue
            counts[domain] = counts.get(domain, 0) + count.nodes.get(node.name, 0)
    least = min(counts.values(), default=0)
    if len(counts) < (constraint.get("minDomains") or 1):
        least = 0
    itself = snapshot.counters.matches(choice, pod)
    return Constraint(key, constraint["maxSkew"], counts, least, itself)


class TopologySpread:
    """Filter: DoNotSchedule constraints hold. Score: ScheduleAnyway domains with fewer pods."""

    name = "PodTopologySpread"
    local = False
    absolute = False
    events = (
        ClusterEvent.NODE_ADDED,
        ClusterEvent.NODE_CHANGED,
        ClusterEvent.POD_GONE,
        ClusterEvent.POD_PLACED,
    )

    def prepare(
        self, pod: PodInfo, snapshot: Snapshot, nodes: Sequence[NodeInfo] | None = None
    ) -> Any:
        hard = nodes is None
        chosen = [c for c in pod.spread if (c["whenUnsatisfiable"] == "DoNotSchedule") is hard]
        return [counted(c, pod, snapshot) for c in chosen] or SKIP

    def filter(self, state: Sequence[Constraint], pod: PodInfo, node: NodeInfo) -> Rejection | None:
        for constraint in state:
            domain = node.labels.get(constraint.topology_key)
            if domain is None:
                return NO_LABEL
            after = constraint.counts.get(domain, 0) + constraint.matches_itself
            if after - constraint.least > constraint.max_skew:
                return SKEWED
        return None

    def score(self, state: Sequence[Constraint], pod: PodInfo, node: NodeInfo) -> int:
        """Matching pods in the node's domains; fewer is better."""
        return sum(c.counts.get(node.labels.get(c.topology_key, ""), 0) for c in state)

    def normalize(self, scores: list[int]) -> list[int]:
        low, high = min(scores, default=0), max(scores, default=0)
        if high == low:
            return [SCORE_MAX] * len(scores)
        return [(high - score) * SCORE_MAX // (high - low) for score in scores]


class OwnerSpread:
    """Score: nodes with fewer pods of the same controller, so that one dead node costs little."""

    name = "SelectorSpread"
    local = False
    absolute = False

    def prepare(self, pod: PodInfo, snapshot: Snapshot, nodes: Sequence[NodeInfo]) -> Any:
        return pod.owner if pod.owner and not pod.spread else SKIP

    def score(self, state: str, pod: PodInfo, node: NodeInfo) -> int:
        return node.owners.get(state, 0)

    def normalize(self, scores: list[int]) -> list[int]:
        return scale_to_max(scores, reverse=True)
