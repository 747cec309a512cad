"""Room for what a pod requests, and how evenly it fills nodes (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from k8slite.scheduler.framework import SCORE_MAX, ClusterEvent, Rejection
from k8slite.scheduler.pod_info import PodInfo
from k8slite.scheduler.snapshot import NodeInfo, Snapshot

__all__ = ["BalancedAllocation", "ResourcesFit"]

TOO_MANY_PODS = "Too many pods"


class ResourcesFit:
    """Filter: enough of everything requested is free. Score: nodes with more left are better."""

    name = "NodeResourcesFit"
    local = True
    absolute = True
    events = (ClusterEvent.NODE_ADDED, ClusterEvent.NODE_CHANGED, ClusterEvent.POD_GONE)

    def prepare(
        self, pod: PodInfo, snapshot: Snapshot, nodes: Sequence[NodeInfo] | None = None
    ) -> Any:
        return True

    def filter(self, state: Any, pod: PodInfo, node: NodeInfo) -> Rejection | None:
        fits = len(node.pods) < node.pods_max
        if fits:
            allocatable, requested = node.allocatable, node.requested
            for resource, amount in pod.requests.items():
                if amount > allocatable.get(resource, 0) - requested.get(resource, 0):
                    fits = False
                    break
        return None if fits else _rejection(pod, node)

    def score(self, state: Any, pod: PodInfo, node: NodeInfo) -> int:
        cpu = node.allocatable.get("cpu", 0)
        memory = node.allocatable.get("memory", 0)
        free_cpu = cpu - node.score_cpu - pod.score_cpu
        free_memory = memory - node.score_memory - pod.score_memory
        total = parts = 0
        if cpu:
            total += max(0, free_cpu) * SCORE_MAX // cpu
            parts += 1
        if memory:
            total += max(0, free_memory) * SCORE_MAX // memory
            parts += 1
        return total // parts if parts else 0

    def normalize(self, scores: list[int]) -> list[int]:
        return scores


def _rejection(pod: PodInfo, node: NodeInfo) -> Rejection:
    """All that is missing; emptying the node helps only if it is large enough at all."""
    reasons = [TOO_MANY_PODS] if len(node.pods) >= node.pods_max else []
    resolvable = node.pods_max > 0
    for resource, amount in pod.requests.items():
        offered = node.allocatable.get(resource, 0)
        if amount > offered - node.requested.get(resource, 0):
            reasons.append(f"Insufficient {resource}")
            resolvable = resolvable and amount <= offered
    return Rejection(tuple(reasons), resolvable)


class BalancedAllocation:
    """Score: nodes on which the shares of CPU and memory taken are alike."""

    name = "NodeResourcesBalancedAllocation"
    local = True
    absolute = True

    def prepare(self, pod: PodInfo, snapshot: Snapshot, nodes: Sequence[NodeInfo]) -> Any:
        return True

    def score(self, state: Any, pod: PodInfo, node: NodeInfo) -> int:
        cpu = node.allocatable.get("cpu", 0)
        memory = node.allocatable.get("memory", 0)
        if not cpu or not memory:
            return 0
        cpu_share = min(1.0, (node.score_cpu + pod.score_cpu) / cpu)
        memory_share = min(1.0, (node.score_memory + pod.score_memory) / memory)
        return int((1 - abs(cpu_share - memory_share) / 2) * SCORE_MAX)

    def normalize(self, scores: list[int]) -> list[int]:
        return scores
