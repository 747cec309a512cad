"""Taints that a pod does not tolerate keep it away, or make a node less liked (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from k8slite.api.meta import Obj
from k8slite.api.taints import tolerates
from k8slite.scheduler.framework import SKIP, ClusterEvent, Rejection, scale_to_max
from k8slite.scheduler.pod_info import PodInfo
from k8slite.scheduler.snapshot import NodeInfo, Snapshot

__all__ = ["TaintToleration"]

KEEPS_AWAY = ("NoSchedule", "NoExecute")


def first_untolerated(pod: PodInfo, taints: Sequence[Obj], effects: Sequence[str]) -> Obj | None:
    for taint in taints:
        if taint["effect"] in effects and not any(tolerates(t, taint) for t in pod.tolerations):
            return taint
    return None


class TaintToleration:
    name = "TaintToleration"
    local = True
    absolute = False
    events = (ClusterEvent.NODE_ADDED, ClusterEvent.NODE_CHANGED)

    def prepare(
        self, pod: PodInfo, snapshot: Snapshot, nodes: Sequence[NodeInfo] | None = None
    ) -> Any:
        if nodes is None:
            return True
        soft = any(t["effect"] == "PreferNoSchedule" for node in nodes for t in node.taints)
        return True if soft else SKIP

    def filter(self, state: Any, pod: PodInfo, node: NodeInfo) -> Rejection | None:
        if not node.taints:
            return None
        taint = first_untolerated(pod, node.taints, KEEPS_AWAY)
        if taint is None:
            return None
        shown = f"{{{taint['key']}: {taint.get('value') or ''}}}"
        return Rejection((f"node(s) had untolerated taint {shown}",))

    def score(self, state: Any, pod: PodInfo, node: NodeInfo) -> int:
        """How many soft taints it does not tolerate."""
        return sum(
            taint["effect"] == "PreferNoSchedule"
            and not any(tolerates(t, taint) for t in pod.tolerations)
            for taint in node.taints
        )

    def normalize(self, scores: list[int]) -> list[int]:
        return scale_to_max(scores, reverse=True)
