"""Volumes a node must reach, and claims that wait to be bound until a node is chosen (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from k8slite.scheduler.framework import SKIP, ClusterEvent, Rejection
from k8slite.scheduler.pod_info import PodInfo
from k8slite.scheduler.snapshot import NodeInfo, Snapshot
from k8slite.scheduler.storage import Needs, Unusable, reaches

__all__ = ["VolumeBinding"]

OUT_OF_REACH = Rejection(("node(s) didn't match PersistentVolume's node affinity",))
NOTHING_FREE = Rejection(("node(s) didn't find available persistent volumes to bind",))


class VolumeBinding:
    """The claims that it lets a node have are bound by `scheduler.volumes`, before the pod is."""

    name = "VolumeBinding"
    local = False
    events = (
        ClusterEvent.NODE_ADDED,
        ClusterEvent.NODE_CHANGED,
        ClusterEvent.STORAGE_CHANGED,
    )

    def prepare(
        self, pod: PodInfo, snapshot: Snapshot, nodes: Sequence[NodeInfo] | None = None
    ) -> Any:
        try:
            needs = snapshot.storage.needs(pod.pod)
        except Unusable as error:
            return Rejection((str(error),))
        return SKIP if needs is None else (snapshot, needs)

    def filter(
        self, state: tuple[Snapshot, Needs], pod: PodInfo, node: NodeInfo
    ) -> Rejection | None:
        snapshot, needs = state
        if not all(reaches(volume, node.labels, node.name) for volume in needs.volumes):
            return OUT_OF_REACH
        storage = snapshot.storage
        if needs.unbound and storage.choose(needs.unbound, node.labels, node.name) is None:
            return NOTHING_FREE
        return None
