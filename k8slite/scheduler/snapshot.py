"""The cluster as the scheduler sees it (pure): nodes, what the pods on them take, what is promised.

A pod that was just decided on is *assumed*: it counts on its node until the apiserver confirms the
binding (the same pod arrives with its node) or the binding fails (`forget`). A pod that made room
for itself is *nominated*: it has no place yet, but less important pods must leave it the room. Pods
may arrive before their node does, and stay when it goes.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager

from k8slite.api.meta import Obj, deleting, name, uid
from k8slite.scheduler.counters import Counters, PodCount
from k8slite.scheduler.devices import Devices
from k8slite.scheduler.memo import ChangeLog, Look, Memo
from k8slite.scheduler.node_info import NodeInfo
from k8slite.scheduler.pod_info import PodInfo
from k8slite.scheduler.storage import Storage
from k8slite.scheduler.terms import Choice, Term

__all__ = ["NodeInfo", "Snapshot"]

MEMOS_MAX = 32
"""Shapes of pods for which it is remembered what was found of each node."""


class Snapshot:
    """All nodes, in order of arrival, with the pods on them."""

    def __init__(self) -> None:
        self._infos: dict[str, NodeInfo] = {}
        self._pods: dict[str, PodInfo] = {}
        self._assumed: dict[str, None] = {}
        self.counters = Counters()
        self.storage = Storage()
        self.devices = Devices()
        self.budgets: dict[str, Obj] = {}
        """PodDisruptionBudgets by key."""
        self._nominated: dict[str, dict[str, PodInfo]] = {}
        self._memos: dict[Hashable, Memo] = {}
        self._log = ChangeLog()
        self._index: dict[str, int] = {}
        self._nodes: list[NodeInfo] | None = None

    @property
    def nodes(self) -> list[NodeInfo]:
        """The nodes that exist (there may be pods on others)."""
        if self._nodes is None:
            self._nodes = [info for info in self._infos.values() if info.node is not None]
            self._index = {info.name: i for i, info in enumerate(self._nodes)}
        return self._nodes

    def count(self, topology_key: str, choice: Choice) -> PodCount:
        """How many pods the choice finds in each place."""
        return self.counters.count(topology_key, choice, self.nodes)

    def holders(self) -> dict[Term, dict[str, int]]:
        """The affinity terms of the pods there are, and how many state them in which place."""
        return self.counters.holders(self.nodes)

    # Room that is promised.

    def nominate(self, info: PodInfo, node_name: str) -> None:
        """Promise the node to a pod that waits ("" takes the promise back)."""
        if info.nominated:
            self.withdraw(info)
        info.nominated = node_name
        if node_name:
            self._nominated.setdefault(node_name, {})[info.uid] = info

    def withdraw(self, info: PodInfo) -> None:
        """The pod has got a place, is gone, or hopes for another node."""
        promised = self._nominated.get(info.nominated)
        if promised is not None:
            promised.pop(info.uid, None)
            if not promised:
                del self._nominated[info.nominated]
        info.nominated = ""

    @property
    def has_promises(self) -> bool:
        return bool(self._nominated)

    def nominated_on(self, node_name: str) -> Iterable[PodInfo]:
        return self._nominated.get(node_name, {}).values()

    def ahead_of(self, pod: PodInfo, node_name: str) -> list[PodInfo]:
        """Pods to which the node is promised and which the pod must not rob of it."""
        promised = self._nominated.get(node_name)
        if not promised:
            return []
        return [p for p in promised.values() if p.priority >= pod.priority and p.uid != pod.uid]

    @contextmanager
    def with_pods(self, node: NodeInfo, pods: Iterable[PodInfo]) -> Iterator[None]:
        """In thought, these pods are on the node too."""
        added = [pod for pod in pods if pod.uid not in node.pods]
        for pod in added:
            node.add_pod(pod)
        try:
            yield
        finally:
            for pod in added:
                node.remove_pod(pod)

    def memo(self, shape: Hashable, look: Look) -> Memo:
        """What was found for pods of this shape, up to date; `look` looks at one node."""
        found = self._memos.pop(shape, None)
        if found is None:
            found = Memo()
            if len(self._memos) >= MEMOS_MAX:
                del self._memos[next(iter(self._memos))]
        self._memos[shape] = found
        nodes = self.nodes
        found.refresh(nodes, self._log, self._index, look)
        return found

    def node(self, node_name: str) -> NodeInfo | None:
        info = self._infos.get(node_name)
        return info if info is not None and info.node is not None else None

    def index_of(self, node: NodeInfo) -> int:
        """Its place in `nodes`."""
        assert self.nodes
        return self._index[node.name]

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
        if spec["nodeName"] != known.node or labels != known.labels or deleting(pod):
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
            info = self._infos[node_name] = NodeInfo(node_name, self.counters, self._log)
        return info

    def _drop_if_empty(self, info: NodeInfo) -> None:
        if info.node is None and not info.pods:
            del self._infos[info.name]
