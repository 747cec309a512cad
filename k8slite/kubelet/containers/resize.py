"""Resources of a running pod that were changed: which changes are made, and which must wait. Pure.

What the specification asks for is desired; what the kubelet has granted is allocated. A change is
granted whole, for all containers of the pod, when the node has room for it. Words are the
kubelet's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from k8slite.api.meta import Obj
from k8slite.kubelet.node.admission import Rejection, out_of_resource
from k8slite.kubelet.pods import containers, init_containers, is_sidecar

__all__ = [
    "IN_PROGRESS",
    "PENDING",
    "Allocated",
    "Resize",
    "differs",
    "first_allocated",
    "plan_resize",
    "with_allocated",
]

PENDING: Final = "PodResizePending"
IN_PROGRESS: Final = "PodResizeInProgress"
Allocated = Mapping[str, Obj]
"""By container name: requests and limits."""


@attrs.frozen
class Resize:
    """`refused`: reason (Deferred, Infeasible) and message, and nothing changes. `changed`: the
    containers whose resources do, and whether each must be restarted for it."""

    refused: Rejection | None = None
    changed: Mapping[str, bool] = attrs.field(factory=dict)


def _resizable(pod: Obj) -> list[Obj]:
    return [*containers(pod), *(c for c in init_containers(pod) if is_sidecar(c))]


def _resources(container: Obj) -> Obj:
    """What can be changed: requests and limits of processors and memory among them."""
    given = container.get("resources") or {}
    return {part: dict(given[part]) for part in ("requests", "limits") if given.get(part)}


def first_allocated(pod: Obj) -> dict[str, Obj]:
    """At the kubelet's first sight of a pod: what its status tells of containers that run, else
    what it asks for."""
    status = pod.get("status") or {}
    told = [*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ())]
    running = {each["name"]: each for each in told if "running" in (each.get("state") or {})}
    return {
        each["name"]: _resources(running.get(each["name"]) or each)
        if "resources" in running.get(each["name"], {})
        else _resources(each)
        for each in _resizable(pod)
    }


def with_allocated(pod: Obj, allocated: Allocated) -> Obj:
    """The pod as it was granted."""
    spec = dict(pod["spec"])
    for field in ("containers", "initContainers"):
        if field in spec:
            spec[field] = [
                {**each, "resources": {**(each.get("resources") or {}), **_parts(granted)}}
                if (granted := allocated.get(each["name"])) is not None
                and granted != _resources(each)
                else each
                for each in spec[field]
            ]
    return {**pod, "spec": spec}


def _parts(granted: Obj) -> Obj:
    return {part: granted.get(part, {}) for part in ("requests", "limits")}


def differs(pod: Obj, allocated: Allocated) -> list[Obj]:
    """The containers that ask for something else than they were granted."""
    return [
        each
        for each in _resizable(pod)
        if each["name"] in allocated and _resources(each) != allocated[each["name"]]
    ]


def plan_resize(
    pod: Obj, allocated: Allocated, others: Iterable[Obj], allocatable: Mapping[str, str]
) -> Resize:
    """`others`: the node's other pods."""
    changed = {
        each["name"]: _restarts(each, allocated[each["name"]]) for each in differs(pod, allocated)
    }
    if not changed:
        return Resize()
    never = out_of_resource(pod, (), allocatable)
    if never is not None:
        asked, _, capacity = never.amounts
        text = (
            f"Node didn't have enough capacity: {never.resource}, requested: {asked}, "
            f"capacity: {capacity}"
        )
        return Resize(Rejection("Infeasible", text))
    now = out_of_resource(pod, others, allocatable)
    if now is not None:
        return Resize(Rejection("Deferred", now.message))
    return Resize(None, changed)


def _restarts(container: Obj, allocated: Obj) -> bool:
    """Whether a change of one of its resources needs a new process."""
    policies = {
        each["resourceName"]: each["restartPolicy"] for each in container.get("resizePolicy") or ()
    }
    wanted = _resources(container)
    return any(
        policies.get(resource) == "RestartContainer"
        and any(
            (wanted.get(part) or {}).get(resource) != (allocated.get(part) or {}).get(resource)
            for part in ("requests", "limits")
        )
        for resource in ("cpu", "memory")
    )
