"""Taints that a pod does not tolerate keep it away, or make a node less liked (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from k8slite.api.meta import Obj
from k8slite.api.taints import tolerates
from k8slite.scheduler.events import NODE, UNSCHEDULED_POD, Action, Change, Wakes
from k8slite.scheduler.framework import SKIP, Handle, Rejection, scale_to_max
from k8slite.scheduler.pod_info import PodInfo
from k8slite.scheduler.snapshot import NodeInfo, Snapshot

__all__ = ["KEEPS_AWAY", "TaintToleration", "first_untolerated"]

KEEPS_AWAY = ("NoSchedule", "NoExecute")
UNTOLERATED = Rejection(("node(s) had untolerated taint(s)",))


def first_untolerated(pod: PodInfo, taints: Sequence[Obj], effects: Sequence[str]) -> Obj | None:
    for taint in taints:
        if taint["effect"] in effects and not any(tolerates(t, taint) for t in pod.tolerations):
            return taint
    return None


class TaintToleration:
    name = "TaintToleration"
    local = True

    def __init__(self, args: Mapping[str, Any], handle: Handle) -> None:
        self.wakes = (
            Wakes(NODE, Action.ADD | Action.TAINTS, _is_tolerated),
            Wakes(UNSCHEDULED_POD, Action.TOLERATIONS),
        )

    def filter(self, state: Any, pod: PodInfo, node: NodeInfo) -> Rejection | None:
        if node.taints and first_untolerated(pod, node.taints, KEEPS_AWAY) is not None:
            return UNTOLERATED
        return None

    def pre_score(self, pod: PodInfo, snapshot: Snapshot, nodes: Sequence[NodeInfo]) -> Any:
        return True if snapshot.counters.soft_tainted else SKIP

    def score(self, state: Any, pod: PodInfo, node: NodeInfo) -> int:
        """How many soft taints it does not tolerate."""
        return sum(
            not any(tolerates(t, taint) for t in pod.tolerations) for taint in node.soft_taints
        )

    def normalize(self, scores: list[int]) -> list[int]:
        return scale_to_max(scores, reverse=True)


def _is_tolerated(pod: PodInfo, change: Change) -> bool:
    taints = ((change.new or {}).get("spec") or {}).get("taints") or ()
    return first_untolerated(pod, taints, KEEPS_AWAY) is None
