"""Gates, the order of the queue, nodes by name, cordoned nodes, ports of the host (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from k8slite.api.taints import UNSCHEDULABLE, tolerates
from k8slite.scheduler.events import ASSIGNED_POD, NODE, UNSCHEDULED_POD, Action, Change, Wakes
from k8slite.scheduler.framework import SKIP, Handle, Rejection
from k8slite.scheduler.pod_info import HostPort, PodInfo, host_ports
from k8slite.scheduler.snapshot import NodeInfo, Snapshot

__all__ = ["NodeName", "NodePorts", "NodeUnschedulable", "PrioritySort", "SchedulingGates"]

WRONG_NAME = Rejection(("node(s) didn't match the requested node name",))
CORDONED = Rejection(("node(s) were unschedulable",))
PORTS_TAKEN = Rejection(
    ("node(s) didn't have free ports for the requested pod ports",), resolvable=True
)
ANY_ADDRESS = "0.0.0.0"


class SchedulingGates:
    """A pod with gates waits until they are gone."""

    name = "SchedulingGates"
    wakes = (Wakes(UNSCHEDULED_POD, Action.GATES),)

    def __init__(self, args: Mapping[str, Any], handle: Handle) -> None:
        pass

    def pre_enqueue(self, pod: PodInfo) -> Rejection | None:
        gates = [gate["name"] for gate in pod.pod["spec"].get("schedulingGates") or ()]
        if not gates:
            return None
        return Rejection((f"waiting for scheduling gates: [{' '.join(gates)}]",))


class PrioritySort:
    """The most important first."""

    name = "PrioritySort"

    def __init__(self, args: Mapping[str, Any], handle: Handle) -> None:
        pass

    def sort_key(self, pod: PodInfo) -> tuple[int]:
        return (-pod.priority,)


class NodeName:
    name = "NodeName"
    local = True
    wakes = (Wakes(NODE, Action.ADD),)

    def __init__(self, args: Mapping[str, Any], handle: Handle) -> None:
        pass

    def pre_filter(self, pod: PodInfo, snapshot: Snapshot) -> Any:
        return pod.pod["spec"].get("nodeName") or SKIP

    def filter(self, state: str, pod: PodInfo, node: NodeInfo) -> Rejection | None:
        return None if node.name == state else WRONG_NAME


class NodeUnschedulable:
    name = "NodeUnschedulable"
    local = True

    def __init__(self, args: Mapping[str, Any], handle: Handle) -> None:
        self.wakes = (
            Wakes(NODE, Action.ADD | Action.TAINTS, _is_open),
            Wakes(UNSCHEDULED_POD, Action.TOLERATIONS),
        )

    def pre_filter(self, pod: PodInfo, snapshot: Snapshot) -> Any:
        cordon = {"key": UNSCHEDULABLE, "effect": "NoSchedule"}
        return SKIP if any(tolerates(t, cordon) for t in pod.tolerations) else True

    def filter(self, state: bool, pod: PodInfo, node: NodeInfo) -> Rejection | None:
        return CORDONED if node.unschedulable else None


def _is_open(pod: PodInfo, change: Change) -> bool:
    return not ((change.new or {}).get("spec") or {}).get("unschedulable")


class NodePorts:
    name = "NodePorts"
    local = True
    wakes: tuple[Wakes, ...]

    def __init__(self, args: Mapping[str, Any], handle: Handle) -> None:
        self.wakes = (Wakes(ASSIGNED_POD, Action.DELETE, _frees_port), Wakes(NODE, Action.ADD))

    def pre_filter(self, pod: PodInfo, snapshot: Snapshot) -> Any:
        return pod.ports or SKIP

    def filter(self, state: Sequence[HostPort], pod: PodInfo, node: NodeInfo) -> Rejection | None:
        for port in state:
            if any(_collide(port, taken) for taken in node.ports):
                return PORTS_TAKEN
        return None


def _collide(one: HostPort, other: HostPort) -> bool:
    if one[1:] != other[1:]:
        return False
    return one[0] == other[0] or ANY_ADDRESS in (one[0], other[0])


def _frees_port(pod: PodInfo, change: Change) -> bool:
    if change.old is None:
        return False
    freed = host_ports(change.old["spec"])
    return any(_collide(one, other) for one in pod.ports for other in freed)
