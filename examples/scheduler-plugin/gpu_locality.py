"""A scheduler plugin: pods of one training job go to nodes whose GPUs are close to each other.

Nodes say by a label in which block (a rack, an NVLink domain) they are. Pods say by a label to
which group they belong. A pod of a group goes to the block where most of its group is; the first
one goes to the block with the most free GPUs, where there is room for the others.

    pip install ./examples/scheduler-plugin
    k8slite up --scheduler-config examples/scheduler-plugin/scheduler.yaml

Pods choose the profile by `schedulerName: gpu-scheduler`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from k8slite.scheduler.framework import (
    SKIP,
    Handle,
    InvalidArgs,
    Rejection,
    scale_to_max,
)
from k8slite.scheduler.pod_info import PodInfo
from k8slite.scheduler.snapshot import NodeInfo, Snapshot

GPU = "nvidia.com/gpu"


class GpuLocality:
    """Args: `blockLabel` of nodes, `groupLabel` of pods, and `required`: whether a group may leave
    its block when that is full (false, the default) or has to wait."""

    name = "GpuLocality"

    def __init__(self, args: Mapping[str, Any], handle: Handle) -> None:
        self._block_label = args.get("blockLabel", "example.com/gpu-block")
        self._group_label = args.get("groupLabel", "example.com/gpu-group")
        self._required = args.get("required", False)
        if not isinstance(self._required, bool):
            raise InvalidArgs(f"required: {self._required!r} is neither true nor false")

    def _members(self, pod: PodInfo, snapshot: Snapshot) -> dict[str, int]:
        """How many GPUs the pod's group has in each block."""
        group = pod.labels.get(self._group_label)
        found: dict[str, int] = {}
        for node in snapshot.nodes if group else ():
            block = node.labels.get(self._block_label)
            gpus = sum(
                other.requests.get(GPU, 0)
                for other in node.pods.values()
                if other.namespace == pod.namespace and other.labels.get(self._group_label) == group
            )
            if block and gpus:
                found[block] = found.get(block, 0) + gpus
        return found

    def pre_filter(self, pod: PodInfo, snapshot: Snapshot) -> Any:
        if not self._required or GPU not in pod.requests:
            return SKIP
        return self._members(pod, snapshot) or SKIP

    def filter(self, state: dict[str, int], pod: PodInfo, node: NodeInfo) -> Rejection | None:
        if node.labels.get(self._block_label) in state:
            return None
        return Rejection(("node(s) were not in the GPU block of the pod's group",))

    def pre_score(self, pod: PodInfo, snapshot: Snapshot, nodes: Sequence[NodeInfo]) -> Any:
        if GPU not in pod.requests or self._group_label not in pod.labels:
            return SKIP
        members = self._members(pod, snapshot)
        if members:
            return members
        free: dict[str, int] = {}
        for node in snapshot.nodes:
            block = node.labels.get(self._block_label)
            if block:
                left = node.allocatable.get(GPU, 0) - node.requested.get(GPU, 0)
                free[block] = free.get(block, 0) + left
        return free or SKIP

    def score(self, state: dict[str, int], pod: PodInfo, node: NodeInfo) -> int:
        return state.get(node.labels.get(self._block_label, ""), 0)

    def normalize(self, scores: list[int]) -> list[int]:
        return scale_to_max(scores)
