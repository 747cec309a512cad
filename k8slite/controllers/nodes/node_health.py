"""What a node's silence means (pure): conditions, taints, and how fast to evict.

A node is heard when its Lease is renewed or its status changes. Ages count on the monotonic
clock of the leader, from when it saw the change itself: no clocks are compared, and a new leader
gives every node a full grace period.
"""

from __future__ import annotations

from typing import NamedTuple

from attrs import define

from k8slite.api.meta import Obj, condition_is, copy, get_condition
from k8slite.api.taints import NOT_READY, UNREACHABLE, UNSCHEDULABLE
from k8slite.controllers.nodes.taints import replace_taints, taint

__all__ = [
    "Heard",
    "NodePlan",
    "is_ready",
    "plan_taints",
    "silenced_status",
    "without_eviction",
]

SILENT_TYPES = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")
PRESSURES = {
    "MemoryPressure": "node.kubernetes.io/memory-pressure",
    "DiskPressure": "node.kubernetes.io/disk-pressure",
    "PIDPressure": "node.kubernetes.io/pid-pressure",
    "NetworkUnavailable": "node.kubernetes.io/network-unavailable",
}
MANAGED_EXECUTE = ((NOT_READY, "NoExecute"), (UNREACHABLE, "NoExecute"))
MANAGED_SCHEDULE = tuple(
    (key, "NoSchedule") for key in (NOT_READY, UNREACHABLE, UNSCHEDULABLE, *PRESSURES.values())
)


@define
class Heard:
    """Signs of life of one node, and when they last changed (monotonic seconds)."""

    at: float
    lease: str = ""
    heartbeat: str = ""

    def note(self, node: Obj, lease: Obj | None, now: float) -> None:
        renewed = (lease or {}).get("spec", {}).get("renewTime") or ""
        condition = get_condition(node, "Ready") or {}
        beat = condition.get("lastHeartbeatTime") or ""
        if condition.get("reason") in ("NodeStatusUnknown", "NodeStatusNeverUpdated"):
            beat = self.heartbeat  # that was our own writing
        if (renewed, beat) != (self.lease, self.heartbeat):
            self.at, self.lease, self.heartbeat = now, renewed, beat


class NodePlan(NamedTuple):
    """The taints a node is to have, and whether it newly became a case for eviction."""

    taints: list[Obj]
    evicts: bool


def is_ready(node: Obj) -> bool:
    return condition_is(node, "Ready")


def silenced_status(node: Obj, now: str) -> Obj | None:
    """The status with its conditions Unknown, because the kubelet is silent; None if it is so."""
    status = copy(node.get("status") or {})
    conditions = status.setdefault("conditions", [])
    changed = False
    for condition_type in SILENT_TYPES:
        old = get_condition({"status": status}, condition_type)
        if old is None:
            old = {"type": condition_type, "lastHeartbeatTime": None}
            reason, message = "NodeStatusNeverUpdated", "Kubelet never posted node status."
            conditions.append(old)
        else:
            reason, message = "NodeStatusUnknown", "Kubelet stopped posting node status."
            if old.get("status") == "Unknown":
                continue
        old.update(status="Unknown", reason=reason, message=message, lastTransitionTime=now)
        changed = True
    return status if changed else None


def plan_taints(node: Obj, now: str, *, may_evict: bool) -> NodePlan:
    """The taints that follow from the conditions.

    `may_evict` False keeps the node from getting a NoExecute taint (the rate is used up); one
    that it has stays until the condition changes.
    """
    ready = get_condition(node, "Ready") or {}
    state = ready.get("status", "Unknown")
    cause = {"True": None, "False": NOT_READY}.get(state, UNREACHABLE)
    taints = (node.get("spec") or {}).get("taints") or []
    execute = []
    evicts = False
    if cause is not None:
        has = any(t["key"] == cause and t["effect"] == "NoExecute" for t in taints)
        if has or may_evict:
            execute = [taint(cause, "NoExecute", now)]
            evicts = not has
    schedule = [taint(cause, "NoSchedule", now)] if cause else []
    for condition_type, key in PRESSURES.items():
        if condition_is(node, condition_type):
            schedule.append(taint(key, "NoSchedule", now))
    if (node.get("spec") or {}).get("unschedulable"):
        schedule.append(taint(UNSCHEDULABLE, "NoSchedule", now))
    managed = [*MANAGED_EXECUTE, *MANAGED_SCHEDULE]
    return NodePlan(replace_taints(taints, managed, [*execute, *schedule]), evicts)


def without_eviction(node: Obj, now: str) -> list[Obj]:
    """The taints without those that evict: all nodes are silent, so it is we who cannot hear."""
    return replace_taints(plan_taints(node, now, may_evict=False).taints, MANAGED_EXECUTE, [])
