"""The cluster as the scheduler sees it (pure): nodes, and what the pods on them take.

Owns the sums: they are kept up to date pod by pod, never counted again. A pod that was just
decided on is *assumed*: it counts on its node until the apiserver confirms the binding (the same
pod arrives with its node) or the binding fails (`forget`). Pods may arrive before their node
does, and stay when it goes.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, TypeVar

from k8slite.api.meta import Obj, name, uid
from k8slite.scheduler.counters import Counters, PodCount
from k8slite.scheduler.pod_info import HostPort, PodInfo, add_to, amounts
from k8slite.scheduler.storage import Storage
from k8slite.scheduler.terms import Choice, Term

__all__ = ["NodeInfo", "Snapshot"]

K = TypeVar("K", bound=Hashable)
MEMOS_MAX = 32
"""Shapes of pods for which it is remembered what was found of each node."""


class NodeInfo:
    """One node: what it offers, and what is taken. `generation` is another one after each change;
    no two nodes ever had the same."""

    __slots__ = (
        "_counters",
        "allocatable",
        "generation",
        "images",
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
    )
    _generations = 0

    def __init__(self, name: str, counters: Counters) -> None:
        self.name = name
        self._counters = counters
        self.images: dict[str, int] = {}
        self._changed()
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

    def _changed(self) -> None:
        NodeInfo._generations += 1
        self.generation = NodeInfo._generations

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
        self.unschedulable = bool(spec.get("unschedulable"))
        self.allocatable = amounts((node.get("status") or {}).get("allocatable"))
        self.pods_max = self.allocatable.pop("pods", 0)

    def unset_node(self) -> None:
        """The node is gone; pods may be on it still."""
        self.node = None
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
        if info.owner:
            self.owners[info.owner] = self.owners.get(info.owner, 0) + 1
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
        if info.owner:
            _decrease(self.owners, info.owner)
        self._changed()
        if self.node is not None:
            self._counters.changed(self, info, -1)


class Snapshot:
    """All nodes, in order of arrival, with the pods on them."""

    def __init__(self) -> None:
        self._infos: dict[str, NodeInfo] = {}
        self._pods: dict[str, PodInfo] = {}
        self._assumed: dict[str, None] = {}
        self.counters = Counters()
        self.storage = Storage()
        self._memos: dict[Hashable, dict[str, Any]] = {}
        self._nodes: list[NodeInfo] | None = None

    @property
    def nodes(self) -> list[NodeInfo]:
        """The nodes that exist (there may be pods on others)."""
        if self._nodes is None:
            self._nodes = [info for info in self._infos.values() if info.node is not None]
        return self._nodes

    def count(self, topology_key: str, choice: Choice) -> PodCount:
        """How many pods the choice finds in each place."""
        return self.counters.count(topology_key, choice, self.nodes)

    def holders(self) -> dict[Term, dict[str, int]]:
        """The affinity terms of the pods there are, and how many state them in which place."""
        return self.counters.holders(self.nodes)

    def memo(self, shape: Hashable) -> dict[str, Any]:
        """A place to keep what was found for pods of this shape, by node name."""
        found = self._memos.pop(shape, None)
        if found is None:
            found = {}
            if len(self._memos) >= MEMOS_MAX:
                del self._memos[next(iter(self._memos))]
        self._memos[shape] = found
        return found

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
        info.unset_node()
        self._nodes = None
        self.counters.clear()
        for memo in self._memos.values():
            memo.pop(node_name, None)
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
            self._drop_if_empty(info)

    def assume(self, info: PodInfo, node_name: str) -> None:
        """Count the pod on the node before the apiserver knows of it."""
        assert info.uid not in self._pods, f"{info.key} has a place already"
        info.node = node_name
        self._put(info)
        self._assumed[info.uid] = None

    def confirm(self, pod: Obj) -> bool:
        """The apiserver shows an assumed pod just as it was assumed; False if it does not."""
        pod_uid = uid(pod)
        known = self._pods.get(pod_uid)
        if known is None or pod_uid not in self._assumed:
            return False
        labels, spec = pod["metadata"].get("labels") or {}, pod["spec"]
        if spec["nodeName"] != known.node or labels != known.labels:
            return False
        if {**known.pod["spec"], "nodeName": known.node} != spec:
            return False
        known.pod = pod
        del self._assumed[pod_uid]
        return True

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

    def _info(self, node_name: str) -> NodeInfo:
        info = self._infos.get(node_name)
        if info is None:
            info = self._infos[node_name] = NodeInfo(node_name, self.counters)
        return info

    def _drop_if_empty(self, info: NodeInfo) -> None:
        if info.node is None and not info.pods:
            del self._infos[info.name]


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
