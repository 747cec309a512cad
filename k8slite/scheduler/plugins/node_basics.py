"""A pod that names its node, nodes that are cordoned, and ports of the host (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from k8slite.api.taints import UNSCHEDULABLE, tolerates
from k8slite.scheduler.framework import SKIP, ClusterEvent, Rejection
from k8slite.scheduler.pod_info import HostPort, PodInfo
from k8slite.scheduler.snapshot import NodeInfo, Snapshot

__all__ = ["NodeName", "NodePorts", "NodeUnschedulable"]

WRONG_NAME = Rejection(("node(s) didn't match the requested node name",))
CORDONED = Rejection(("node(s) were unschedulable",))
PORTS_TAKEN = Rejection(
    ("node(s) didn't have free ports for the requested pod ports",), resolvable=True
)
ANY_ADDRESS = "0.0.0.0"


class NodeName:
    name = "NodeName"
    local = True
    events = (ClusterEvent.NODE_ADDED,)

    def prepare(self, pod: PodInfo, snapshot: Snapshot) -> Any:
        return pod.pod["spec"].get("nodeName") or SKIP

    def filter(self, state: str, pod: PodInfo, node: NodeInfo) -> Rejection | None:
        return None if node.name == state else WRONG_NAME


class NodeUnschedulable:
    name = "NodeUnschedulable"
    local = True
    events = (ClusterEvent.NODE_ADDED, ClusterEvent.NODE_CHANGED)

    def prepare(self, pod: PodInfo, snapshot: Snapshot) -> Any:
        cordon = {"key": UNSCHEDULABLE, "effect": "NoSchedule"}
        return SKIP if any(tolerates(t, cordon) for t in pod.tolerations) else True

    def filter(self, state: bool, pod: PodInfo, node: NodeInfo) -> Rejection | None:
        return CORDONED if node.unschedulable else None


class NodePorts:
    name = "NodePorts"
    local = True
    events = (ClusterEvent.NODE_ADDED, ClusterEvent.POD_GONE)

    def prepare(self, pod: PodInfo, snapshot: Snapshot) -> Any:
        return pod.ports or SKIP

    def filter(self, state: Sequence[HostPort], pod: PodInfo, node: NodeInfo) -> Rejection | None:
        for address, protocol, port in state:
            for taken in node.ports:
                if taken[1:] == (protocol, port) and (
                    ANY_ADDRESS in (address, taken[0]) or address == taken[0]
                ):
                    return PORTS_TAKEN
        return None
