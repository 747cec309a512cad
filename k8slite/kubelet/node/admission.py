"""Whether a pod that was bound to this node may run on it. Pure.

The scheduler has looked already, but from further away: pods may be bound by anybody, and the node
may have run short of something since. Words are the kubelet's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from k8slite.api.meta import Obj
from k8slite.api.qos import BEST_EFFORT, qos_class
from k8slite.api.quantity import milli_value, value
from k8slite.api.quota import pod_total
from k8slite.api.taints import tolerates
from k8slite.kubelet.eviction.ranking import is_critical

__all__ = ["Rejection", "Shortage", "admit", "out_of_resource"]

MEMORY_PRESSURE: Final = "MemoryPressure"
MEMORY_TAINT: Final = {"key": "node.kubernetes.io/memory-pressure", "effect": "NoSchedule"}


class Rejection(NamedTuple):
    """Reason and message of the pod's status, which is then Failed."""

    reason: str
    message: str


def admit(
    pod: Obj,
    others: Iterable[Obj],
    *,
    allocatable: Mapping[str, str],
    conditions: Iterable[str],
) -> Rejection | None:
    """`others`: the pods that run or are about to; `conditions`: such as MemoryPressure."""
    pressed = sorted(conditions)
    if pressed and not is_critical(pod) and not _endures(pod, pressed):
        return Rejection("Evicted", f"The node had condition: [{' '.join(pressed)}]. ")
    known = list(others)
    free = int(value(str(allocatable.get("pods", "0"))))
    short: Shortage | None = Shortage("pods", (1, len(known), free))
    if len(known) + 1 <= free:
        short = out_of_resource(pod, known, allocatable)
    return None if short is None else Rejection(f"OutOf{short.resource}", short.message)


class Shortage(NamedTuple):
    """`amounts`: requested, used, capacity; of processors in thousandths."""

    resource: str
    amounts: tuple[int, int, int]

    @property
    def message(self) -> str:
        asked, taken, capacity = self.amounts
        return (
            f"Node didn't have enough resource: {self.resource}, requested: {asked}, "
            f"used: {taken}, capacity: {capacity}"
        )


def out_of_resource(
    pod: Obj, others: Iterable[Obj], allocatable: Mapping[str, str]
) -> Shortage | None:
    """What the pod asks for and the node has not left."""
    wanted, known = pod_total(pod["spec"], "requests"), list(others)
    for resource, amount in wanted.items():
        measure = milli_value if resource == "cpu" else value
        asked, capacity = measure(amount), measure(str(allocatable.get(resource, "0")))
        taken = sum(
            measure(pod_total(other["spec"], "requests").get(resource, "0")) for other in known
        )
        if asked and taken + asked > capacity:
            return Shortage(resource, (asked, taken, capacity))
    return None


def _endures(pod: Obj, pressed: list[str]) -> bool:
    """Whether the pod may start although its node is short of memory alone."""
    if pressed != [MEMORY_PRESSURE]:
        return False
    if qos_class(pod) != BEST_EFFORT:
        return True
    return any(tolerates(each, MEMORY_TAINT) for each in pod["spec"].get("tolerations") or ())
