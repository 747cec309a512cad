"""Whom to evict when a node runs short of something, and in which words. Pure.

The order is the kubelet's: first those that use more than they asked for, then by priority, the
lowest first, then by how much they use beyond their request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import attrs

from k8slite.api.meta import Obj
from k8slite.api.quantity import canonical, value
from k8slite.api.quota import pod_total
from k8slite.kubelet.eviction.thresholds import RESOURCE_OF, Observation, Threshold
from k8slite.kubelet.pods import all_containers, containers, is_mirror, is_static

__all__ = ["Using", "Verdict", "is_critical", "over_limits", "rank", "verdict"]

CRITICAL_PRIORITY: Final = 2_000_000_000


@attrs.frozen
class Using:
    """What a pod uses, by container where that is known. `disk` also of its volumes."""

    memory: Mapping[str, int] = attrs.field(factory=dict)
    disk: Mapping[str, int] = attrs.field(factory=dict)
    volumes: Mapping[str, int] = attrs.field(factory=dict)
    """Bytes of emptyDirs on disk, by volume."""
    inodes: int = 0
    processes: int = 0

    def of(self, resource: str) -> int:
        match resource:
            case "memory":
                return sum(self.memory.values())
            case "ephemeral-storage":
                return sum(self.disk.values()) + sum(self.volumes.values())
            case "inodes":
                return self.inodes
        return self.processes


class Verdict(NamedTuple):
    """Reason and message of the pod's status."""

    reason: str
    message: str


def is_critical(pod: Obj) -> bool:
    """Static pods and those of system priority are never evicted."""
    if is_static(pod) or is_mirror(pod):
        return True
    return (pod["spec"].get("priority") or 0) >= CRITICAL_PRIORITY


def _request(pod: Obj, resource: str) -> int:
    return value(pod_total(pod["spec"], "requests").get(resource, "0"))


def rank(pods: Sequence[Obj], using: Mapping[str, Using], resource: str) -> list[Obj]:
    """Those that may be evicted, the first to go first. `using` by uid."""

    def order(pod: Obj) -> tuple[Any, ...]:
        used = using.get(pod["metadata"]["uid"], Using()).of(resource)
        asked = _request(pod, resource) if resource in ("memory", "ephemeral-storage") else 0
        exceeds = used > asked and resource != "pids"
        priority = pod["spec"].get("priority") or 0
        return not exceeds, priority, -(used - asked), pod["metadata"]["name"]

    return sorted((pod for pod in pods if not is_critical(pod)), key=order)


def verdict(pod: Obj, used: Using, threshold: Threshold, seen: Observation) -> Verdict:
    """Why this pod goes."""
    resource = RESOURCE_OF[threshold.signal]
    least, left = (
        _text(resource, threshold.bytes_of(seen.capacity)),
        _text(resource, seen.available),
    )
    message = (
        f"The node was low on resource: {resource}. "
        f"Threshold quantity: {least}, available: {left}. "
    )
    by_container = used.memory if resource == "memory" else used.disk
    for container in all_containers(pod) if resource in ("memory", "ephemeral-storage") else ():
        amount = by_container.get(container["name"])
        asked = ((container.get("resources") or {}).get("requests") or {}).get(resource, "0")
        if amount is not None and amount > value(str(asked)):
            message += (
                f"Container {container['name']} was using {_text(resource, amount)}, "
                f"request is {asked}, has larger consumption of {resource}. "
            )
    return Verdict("Evicted", message)


def _text(resource: str, amount: int) -> str:
    """In Ki, as sizes of memory and disks are told."""
    if resource in ("memory", "ephemeral-storage"):
        return canonical(f"{max(0, amount) // 1024}Ki")
    return str(max(0, amount))


def over_limits(pod: Obj, used: Using) -> Verdict | None:
    """Whether the pod uses more local storage than it may, whatever the node has left."""
    for volume in pod["spec"].get("volumes") or ():
        limit = (volume.get("emptyDir") or {}).get("sizeLimit")
        if limit and value(str(limit)) and used.volumes.get(volume["name"], 0) > value(str(limit)):
            name = volume["name"]
            return Verdict(
                "Evicted", f'Usage of EmptyDir volume "{name}" exceeds the limit "{limit}". '
            )
    limit = pod_total(pod["spec"], "limits").get("ephemeral-storage")
    has_all = all(
        "ephemeral-storage" in ((c.get("resources") or {}).get("limits") or {})
        for c in containers(pod)
    )
    if limit and has_all and used.of("ephemeral-storage") > value(limit):
        text = f"Pod ephemeral local storage usage exceeds the total limit of containers {limit}. "
        return Verdict("Evicted", text)
    for container in containers(pod):
        own = ((container.get("resources") or {}).get("limits") or {}).get("ephemeral-storage")
        if own and used.disk.get(container["name"], 0) > value(str(own)):
            text = (
                f"Container {container['name']} exceeded its local ephemeral storage limit "
                f'"{own}". '
            )
            return Verdict("Evicted", text)
    return None
