"""What happens in the cluster that may make room for a pod that had none (pure).

A `Change` is one thing that happened: what kind of object, which aspects of it, the object before
and after. A plugin that rejected a pod names the changes that may change its mind (`Wakes`), with
a hint that looks at the very change; a pod is tried again only when one of them says so.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Flag, auto
from typing import TYPE_CHECKING, Final, NamedTuple

from k8slite.api.meta import Obj

if TYPE_CHECKING:
    from k8slite.scheduler.pod_info import PodInfo

__all__ = [
    "ASSIGNED_POD", "CLAIM", "CLASS", "CSI", "DEVICE_CLASS", "NODE", "RESOURCE_CLAIM", "SLICE",
    "UNSCHEDULED_POD", "VOLUME",
    "Action", "Change", "Wakes", "assigned_change", "node_change", "object_change", "pod_change",
]  # fmt: skip

NODE: Final = "Node"
ASSIGNED_POD: Final = "AssignedPod"
UNSCHEDULED_POD: Final = "UnscheduledPod"
VOLUME: Final = "PersistentVolume"
CLAIM: Final = "PersistentVolumeClaim"
CLASS: Final = "StorageClass"
CSI: Final = "CSI"
"""CSINodes, CSIDrivers, CSIStorageCapacities and VolumeAttachments."""
RESOURCE_CLAIM: Final = "ResourceClaim"
SLICE: Final = "ResourceSlice"
DEVICE_CLASS: Final = "DeviceClass"


class Action(Flag):
    """Aspects of a change; one change may have several."""

    NONE = 0
    ADD = auto()
    DELETE = auto()
    UPDATE = auto()
    """Any other change of an object of which no aspects are told apart."""
    ALLOCATABLE = auto()
    LABELS = auto()
    TAINTS = auto()
    SCALE_DOWN = auto()
    TOLERATIONS = auto()
    GATES = auto()
    CLAIMS = auto()
    """The names of the claims that were made for a pod came into its status."""
    ALL = 2**10 - 1


class Change(NamedTuple):
    """One thing that happened. `old` is None for what came, `new` for what went."""

    resource: str
    action: Action
    old: Obj | None = None
    new: Obj | None = None


Hint = Callable[["PodInfo", Change], bool]
"""Could this change make room for this pod?"""


class Wakes(NamedTuple):
    """Changes that may change a plugin's mind; without a hint each of them does."""

    resource: str
    action: Action
    hint: Hint | None = None

    def matches(self, pod: PodInfo, change: Change) -> bool:
        if self.resource != change.resource or not self.action & change.action:
            return False
        return self.hint is None or self.hint(pod, change)


def node_change(old: Obj | None, new: Obj | None) -> Change | None:
    """None for what no plugin looks at, as heartbeats."""
    if old is None or new is None:
        return Change(NODE, Action.ADD if old is None else Action.DELETE, old, new)
    action = Action.NONE
    if (old.get("status") or {}).get("allocatable") != (new.get("status") or {}).get("allocatable"):
        action |= Action.ALLOCATABLE
    if old["metadata"].get("labels") != new["metadata"].get("labels"):
        action |= Action.LABELS
    before, after = old.get("spec") or {}, new.get("spec") or {}
    same_taints = (before.get("taints") or []) == (after.get("taints") or [])
    if not same_taints or before.get("unschedulable") != after.get("unschedulable"):
        action |= Action.TAINTS
    return Change(NODE, action, old, new) if action else None


def assigned_change(old: Obj | None, new: Obj | None) -> Change | None:
    """Of a pod that has a node. None for what no plugin looks at, as its status."""
    if old is None or new is None:
        return Change(ASSIGNED_POD, Action.ADD if old is None else Action.DELETE, old, new)
    action = _pod_action(old, new)
    return Change(ASSIGNED_POD, action, old, new) if action else None


def pod_change(old: Obj, new: Obj) -> Change | None:
    """Of a pod that waits for a node."""
    action = _pod_action(old, new)
    return Change(UNSCHEDULED_POD, action, old, new) if action else None


def object_change(resource: str, old: Obj | None, new: Obj | None) -> Change:
    if old is None or new is None:
        return Change(resource, Action.ADD if old is None else Action.DELETE, old, new)
    return Change(resource, Action.UPDATE, old, new)


def _pod_action(old: Obj, new: Obj) -> Action:
    action = Action.NONE
    if old["metadata"].get("labels") != new["metadata"].get("labels"):
        action |= Action.LABELS
    before, after = old["spec"], new["spec"]
    if before.get("schedulingGates") != after.get("schedulingGates"):
        action |= Action.GATES
    if before.get("tolerations") != after.get("tolerations"):
        action |= Action.TOLERATIONS
    if any(before.get(part) != after.get(part) for part in ("containers", "initContainers")):
        action |= Action.SCALE_DOWN
    if before.get("resources") != after.get("resources"):
        action |= Action.SCALE_DOWN
    statuses = "resourceClaimStatuses"
    if (old.get("status") or {}).get(statuses) != (new.get("status") or {}).get(statuses):
        action |= Action.CLAIMS
    if not action and before != after:
        action = Action.UPDATE
    return action
