"""The cluster as the scheduler sees it (pure): nodes, and what the pods on them take.

Owns the sums: they are kept up to date pod by pod, never counted again. A pod that was just
decided on is *assumed*: it counts on its node until the apiserver confirms the binding (the same
pod arrives with its node) or the binding fails (`forget`). Pods may arrive before their node
does, and stay when it goes.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TypeVar

from k8slite.api.meta import Obj, name
from k8slite.scheduler.pod_info import HostPort, PodInfo, add_to, amounts

__all__ = ["NodeInfo", "Snapshot"]

K = TypeVar("K", bound=Hashable)


class NodeInfo:
    """One node: what it offers, and what is taken."""

    __slots__ = (
        "allocatable",
        "labels",
        "name",
        "node",
        "owners",
        "pods",
        "pods_max",
        "ports",
        "requested",
        "score_cpu",
        "score_memory",
        "taints",
        "unschedulable",
        "with_anti_affinity",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.node: Obj | None = None
        self.labels: dict[str, str] = {}
        self.taints: Sequence[Obj] = ()
        self.unschedulable = False
        self.allocatable: dict[str, int] = {}
        self.pods_max = 0
        self.pods: dict[str, PodInfo] = {}
        self.requested: dict[str, int] = {}
        self.score_cpu = 0
        self.score_memory = 0
        self.ports: dict[HostPort, int] = {}
        self.owners: dict[str, int] = {}
        self.with_anti_affinity: dict[str, PodInfo] = {}

    def set_node(self, node: Obj) -> None:
        spec = node.get("spec") or {}
        self.node = node
        self.labels = node["metadata"].get("labels") or {}
        self.taints = spec.get("taints") or ()
        self.unschedulable = bool(spec.get("unschedulable"))
        self.allocatable = amounts((node.get("status") or {}).get("allocatable"))
        self.pods_max = self.allocatable.pop("pods", 0)

    def add_pod(self, info: PodInfo) -> None:
        assert info.uid not in self.pods, f"{info.key} is on {self.name} already"
        self.pods[info.uid] = info
        add_to(self.requested, info.requests)
        self.score_cpu += info.score_cpu
        self.score_memory += info.score_memory
        for port in info.ports:
            self.ports[port] = self.ports.get(port, 0) + 1
        if info.owner:
            self.owners[info.owner] = self.owners.get(info.owner, 0) + 1
        if info.affinity.get("podAntiAffinity"):
            self.with_anti_affinity[info.uid] = info

    def remove_pod(self, info: PodInfo) -> None:
        del self.pods[info.uid]
        for resource, amount in info.requests.items():
            self.requested[resource] -= amount
            assert self.requested[resource] >= 0
        self.score_cpu -= info.score_cpu
        self.score_memory -= info.score_memory
        for port in info.ports:
            _decrease(self.ports, port)
        if info.owner:
            _decrease(self.owners, info.owner)
        self.with_anti_affinity.pop(info.uid, None)


class Snapshot:
    """All nodes, in order of arrival, with the pods on them."""

    def __init__(self) -> None:
        self._infos: dict[str, NodeInfo] = {}
        self._pods: dict[str, PodInfo] = {}
        self._assumed: dict[str, None] = {}
        self._averse: dict[str, None] = {}
        """Names of nodes that have pods with anti-affinity: few, or none."""
        self._nodes: list[NodeInfo] | None = None

    @property
    def nodes(self) -> list[NodeInfo]:
        """The nodes that exist (there may be pods on others)."""
        if self._nodes is None:
            self._nodes = [info for info in self._infos.values() if info.node is not None]
        return self._nodes

    @property
    def averse_nodes(self) -> list[NodeInfo]:
        """The nodes on which some pod wants others away."""
        return [info for name in self._averse if (info := self.node(name)) is not None]

    def node(self, node_name: str) -> NodeInfo | None:
        info = self._infos.get(node_name)
        return info if info is not None and info.node is not None else None

    def pod(self, pod_uid: str) -> PodInfo | None:
        return self._pods.get(pod_uid)

    def put_node(self, node: Obj) -> None:
        info = self._info(name(node))
        if info.node is None:
            self._nodes = None
        info.set_node(node)

    def remove_node(self, node_name: str) -> None:
        info = self._infos.get(node_name)
        if info is None:
            return
        info.node = None
        self._nodes = None
        self._drop_if_empty(info)

    def put_pod(self, info: PodInfo) -> None:
        """A bound pod as the apiserver shows it; confirms an assumption."""
        assert info.node
        self.remove_pod(info.uid)
        self._put(info)

    def remove_pod(self, pod_uid: str) -> None:
        """The pod is gone or has finished; one that is not here is no error."""
        old = self._pods.pop(pod_uid, None)
        self._assumed.pop(pod_uid, None)
        if old is not None:
            info = self._infos[old.node]
            info.remove_pod(old)
            if not info.with_anti_affinity:
                self._averse.pop(info.name, None)
            self._drop_if_empty(info)

    def assume(self, info: PodInfo, node_name: str) -> None:
        """Count the pod on the node before the apiserver knows of it."""
        assert info.uid not in self._pods, f"{info.key} has a place already"
        info.node = node_name
        self._put(info)
        self._assumed[info.uid] = None

    def forget(self, info: PodInfo) -> None:
        """The binding failed; nothing happens if it was confirmed meanwhile."""
        if info.uid in self._assumed:
            self.remove_pod(info.uid)
            info.node = ""

    def is_assumed(self, pod_uid: str) -> bool:
        return pod_uid in self._assumed

    def _put(self, info: PodInfo) -> None:
        self._pods[info.uid] = info
        self._info(info.node).add_pod(info)
        if info.affinity.get("podAntiAffinity"):
            self._averse[info.node] = None

    def _info(self, node_name: str) -> NodeInfo:
        info = self._infos.get(node_name)
        if info is None:
            info = self._infos[node_name] = NodeInfo(node_name)
        return info

    def _drop_if_empty(self, info: NodeInfo) -> None:
        if info.node is None and not info.pods:
            del self._infos[info.name]


def _decrease(counts: dict[K, int], key: K) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]
