"""Node selectors and node affinity (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from k8slite.api.meta import Obj
from k8slite.api.node_affinity import allows, matches_term, required_terms
from k8slite.scheduler.framework import SKIP, ClusterEvent, Rejection, scale_to_max
from k8slite.scheduler.pod_info import PodInfo
from k8slite.scheduler.snapshot import NodeInfo, Snapshot

__all__ = ["NodeAffinity", "is_choosy", "matches_required"]

NO_MATCH = Rejection(("node(s) didn't match Pod's node affinity/selector",))


def matches_required(pod: PodInfo, node: NodeInfo) -> bool:
    """The node selector and any one of the required terms."""
    return allows(pod.pod["spec"], node.labels, node.name)


def is_choosy(pod: PodInfo) -> bool:
    """Does it say anything about which nodes it may go to?"""
    return bool(pod.node_selector) or required_terms(pod.pod["spec"]) is not None


class NodeAffinity:
    name = "NodeAffinity"
    local = True
    absolute = False
    events = (ClusterEvent.NODE_ADDED, ClusterEvent.NODE_CHANGED)

    def prepare(
        self, pod: PodInfo, snapshot: Snapshot, nodes: Sequence[NodeInfo] | None = None
    ) -> Any:
        if nodes is None:
            return True if is_choosy(pod) else SKIP
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
