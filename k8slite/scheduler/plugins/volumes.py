"""Volumes a node must reach, and claims that wait to be bound until a node is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from k8slite.api.meta import key
from k8slite.scheduler.events import (
    CLAIM,
    CLASS,
    CSI,
    NODE,
    VOLUME,
    Action,
    Change,
    Wakes,
)  # fmt: skip
from k8slite.scheduler.framework import SKIP, BindFailed, Handle, Rejection
from k8slite.scheduler.pod_info import PodInfo
from k8slite.scheduler.snapshot import NodeInfo, Snapshot
from k8slite.scheduler.storage import Needs, Unusable, reaches

__all__ = ["VolumeBinding", "is_its_claim"]

OUT_OF_REACH = Rejection(("node(s) didn't match PersistentVolume's node affinity",))
NOTHING_FREE = Rejection(("node(s) didn't find available persistent volumes to bind",))
NO_CAPACITY = Rejection(("node(s) did not have enough free storage",))


def is_its_claim(pod: PodInfo, change: Change) -> bool:
    """Hint: the claim is one of the pod's."""
    claim = change.new or change.old
    return claim is not None and key(claim) in pod.claims


class VolumeBinding:
    """Filter: bound volumes are within reach, unbound claims find one or can be provisioned.
    Reserve and PreBind: the claims are bound for the chosen node, before the pod is."""

    name = "VolumeBinding"

    def __init__(self, args: Mapping[str, Any], handle: Handle) -> None:
        self._snapshot = handle.snapshot
        self._binder = handle.services.volumes if handle.services is not None else None
        self._chosen: dict[str, dict[str, str]] = {}
        """By the uid of a pod that is being bound: the volume for each of its claims."""
        self.wakes = (
            Wakes(CLAIM, Action.ADD | Action.UPDATE, is_its_claim),
            Wakes(VOLUME, Action.ADD | Action.UPDATE),
            Wakes(CLASS, Action.ADD | Action.UPDATE),
            Wakes(CSI, Action.ALL),
            Wakes(NODE, Action.ADD | Action.LABELS),
        )

    def pre_filter(self, pod: PodInfo, snapshot: Snapshot) -> Any:
        if not pod.claims:
            return SKIP
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
        if not needs.unbound:
            return None
        chosen = snapshot.storage.choose(needs.unbound, node.labels, node.name)
        if chosen is None:
            return NOTHING_FREE
        provisioned = [c for c in needs.unbound if not chosen[key(c)]]
        return None if snapshot.storage.has_capacity(provisioned, node.labels) else NO_CAPACITY

    def reserve(self, pod: PodInfo, node: NodeInfo) -> Rejection | None:
        """Keep the free volumes that the claims will get."""
        if not pod.claims:
            return None
        storage = self._snapshot.storage
        try:
            needs = storage.needs(pod.pod)
        except Unusable as error:
            return Rejection((str(error),))
        if needs is None or not needs.unbound:
            return None
        chosen = storage.choose(needs.unbound, node.labels, node.name)
        if chosen is None:
            return NOTHING_FREE
        self._chosen[pod.uid] = chosen
        for claim, volume in chosen.items():
            if volume:
                storage.kept[volume] = claim
        return None

    def unreserve(self, pod: PodInfo, node_name: str) -> None:
        for volume in self._chosen.pop(pod.uid, {}).values():
            self._snapshot.storage.kept.pop(volume, None)

    def needs_pre_bind(self, pod: PodInfo) -> bool:
        return pod.uid in self._chosen

    async def pre_bind(self, pod: PodInfo, node_name: str) -> None:
        chosen = self._chosen.get(pod.uid)
        if not chosen:
            return
        if self._binder is None:
            raise BindFailed("nobody binds volumes here")
        await self._binder.bind(pod, chosen)
        self._chosen.pop(pod.uid, None)
