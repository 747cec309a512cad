"""One node as the scheduler sees it (pure): what it offers, and what the pods on it take.

Owns the sums: they are kept up to date pod by pod, never counted again.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TypeVar

from k8slite.api.meta import Obj
from k8slite.scheduler.counters import Counters
from k8slite.scheduler.memo import ChangeLog
from k8slite.scheduler.pod_info import HostPort, PodInfo, add_to, amounts

__all__ = ["NodeInfo"]

K = TypeVar("K", bound=Hashable)


class NodeInfo:
    """One node: what it offers, and what is taken. Its name goes into the `log` at each change."""

    __slots__ = (
        "_counters",
        "_log",
        "allocatable",
        "claims",
        "images",
        "labels",
        "name",
        "node",
        "pods",
        "pods_max",
        "ports",
        "requested",
        "score_cpu",
        "score_memory",
        "soft_taints",
        "taints",
        "unschedulable",
    )

    def __init__(self, name: str, counters: Counters, log: ChangeLog) -> None:
        self.name = name
        self._counters = counters
        self._log = log
        self.images: dict[str, int] = {}
        self._changed()
        self.node: Obj | None = None
        self.labels: dict[str, str] = {}
        self.taints: Sequence[Obj] = ()
        self.soft_taints: Sequence[Obj] = ()
        self.unschedulable = False
        self.allocatable: dict[str, int] = {}
        self.pods_max = 0
        self.pods: dict[str, PodInfo] = {}
        self.requested: dict[str, int] = {}
        self.score_cpu = 0
        self.score_memory = 0
        self.ports: dict[HostPort, int] = {}
        self.claims: dict[str, int] = {}

    def _changed(self) -> None:
        self._log.append(self.name)

    def set_node(self, node: Obj) -> None:
        spec, status = node.get("spec") or {}, node.get("status") or {}
        old = self.node
        self.node = node
        if old is not None and _view(old) == _view(node):
            return
        if old is None or (old["metadata"].get("labels") or {}) != (
            node["metadata"].get("labels") or {}
        ):
            self._counters.clear()
        self._changed()
        self._counters.count_images(self.images, -1)
        self.images = {
            image: each.get("sizeBytes", 0)
            for each in status.get("images") or ()
            for image in each.get("names") or ()
        }
        self._counters.count_images(self.images, 1)
        self.labels = node["metadata"].get("labels") or {}
        self.taints = spec.get("taints") or ()
        self._counters.soft_tainted -= bool(self.soft_taints)
        self.soft_taints = [t for t in self.taints if t.get("effect") == "PreferNoSchedule"]
        self._counters.soft_tainted += bool(self.soft_taints)
        self.unschedulable = bool(spec.get("unschedulable"))
        self.allocatable = amounts((node.get("status") or {}).get("allocatable"))
        self.pods_max = self.allocatable.pop("pods", 0)

    def unset_node(self) -> None:
        """The node is gone; pods may be on it still."""
        self.node = None
        self._counters.soft_tainted -= bool(self.soft_taints)
        self.soft_taints = ()
        self._counters.count_images(self.images, -1)
        self.images = {}
        self._changed()

    def add_pod(self, info: PodInfo) -> None:
        assert info.uid not in self.pods, f"{info.key} is on {self.name} already"
        self.pods[info.uid] = info
        add_to(self.requested, info.requests)
        self.score_cpu += info.score_cpu
        self.score_memory += info.score_memory
        for port in info.ports:
            self.ports[port] = self.ports.get(port, 0) + 1
        for claim in info.claims:
            self.claims[claim] = self.claims.get(claim, 0) + 1
        self._counters.count_claims(info.claims, 1)
        self._changed()
        if self.node is not None:
            self._counters.changed(self, info, 1)

    def remove_pod(self, info: PodInfo) -> None:
        del self.pods[info.uid]
        for resource, amount in info.requests.items():
            self.requested[resource] -= amount
            assert self.requested[resource] >= 0
        self.score_cpu -= info.score_cpu
        self.score_memory -= info.score_memory
        for port in info.ports:
            _decrease(self.ports, port)
        for claim in info.claims:
            _decrease(self.claims, claim)
        self._counters.count_claims(info.claims, -1)
        self._changed()
        if self.node is not None:
            self._counters.changed(self, info, -1)


def _view(node: Obj) -> tuple[object, ...]:
    """What counts of a node; heartbeats change nothing."""
    spec, status = node.get("spec") or {}, node.get("status") or {}
    labels = node["metadata"].get("labels")
    taken = spec.get("taints"), spec.get("unschedulable")
    return labels, *taken, status.get("allocatable"), status.get("images")


def _decrease(counts: dict[K, int], key: K) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]
