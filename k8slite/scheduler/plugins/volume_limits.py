"""Volumes that cannot be had twice, or here, or one more of (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from k8slite.api.meta import Obj, labels
from k8slite.api.volume_match import class_of
from k8slite.scheduler.events import (
    ASSIGNED_POD,
    CLAIM,
    CLASS,
    CSI,
    NODE,
    VOLUME,
    Action,
    Change,
    Wakes,
)  # fmt: skip
from k8slite.scheduler.framework import SKIP, Handle, Rejection
from k8slite.scheduler.plugins.volumes import is_its_claim
from k8slite.scheduler.pod_info import PodInfo, pod_info
from k8slite.scheduler.snapshot import NodeInfo, Snapshot
from k8slite.scheduler.storage import Storage

__all__ = ["NodeVolumeLimits", "VolumeRestrictions", "VolumeZone"]

ONE_POD = "ReadWriteOncePod"
DISK_TAKEN = Rejection(("node(s) had no available disk",), resolvable=True)
CLAIM_TAKEN = Rejection(
    (
        "node has pod using PersistentVolumeClaim with the same name and "
        "ReadWriteOncePod access mode",
    ),
    resolvable=True,
)
OTHER_ZONE = Rejection(("node(s) had no available volume zone",))
TOO_MANY = Rejection(("node(s) exceed max volume count",), resolvable=True)
NOT_FOUND = 'persistentvolumeclaim "{}" not found'
ZONES = (
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
)
OLD_ZONES = {ZONES[2]: ZONES[0], ZONES[3]: ZONES[1]}
DISKS: Mapping[str, tuple[tuple[str, ...], bool]] = {
    "gcePersistentDisk": (("pdName",), True),
    "awsElasticBlockStore": (("volumeID",), False),
    "iscsi": (("iqn",), True),
    "rbd": (("pool", "image", "monitors"), True),
}
"""What makes two of them the same disk, and whether all may have it that only read."""


def disks(pod: PodInfo) -> Iterator[tuple[tuple[Any, ...], bool]]:
    """Disks that a pod names itself, and whether they can be shared by those who only read."""
    for volume in pod.pod["spec"].get("volumes") or ():
        for kind, (parts, shared) in DISKS.items():
            source = volume.get(kind)
            if source:
                identity = (kind, *(str(source.get(part)) for part in parts))
                yield identity, shared and bool(source.get("readOnly"))


class VolumeRestrictions:
    """One pod at a time for disks that only one may mount, and for ReadWriteOncePod claims."""

    name = "VolumeRestrictions"

    def __init__(self, args: Mapping[str, Any], handle: Handle) -> None:
        self.wakes = (
            Wakes(ASSIGNED_POD, Action.DELETE, _shares_volumes),
            Wakes(NODE, Action.ADD),
            Wakes(CLAIM, Action.ADD | Action.UPDATE, is_its_claim),
        )

    def pre_filter(self, pod: PodInfo, snapshot: Snapshot) -> Any:
        own = [*disks(pod)]
        alone = []
        for claim_key in pod.claims:
            claim = snapshot.storage.claims.get(claim_key)
            if claim is not None and ONE_POD in (claim["spec"].get("accessModes") or ()):
                alone.append(claim_key)
        if not own and not alone:
            return SKIP
        return own, any(snapshot.counters.claims.get(each) for each in alone)

    def filter(self, state: Any, pod: PodInfo, node: NodeInfo) -> Rejection | None:
        own, taken = state
        if taken:
            return CLAIM_TAKEN
        if own and any(
            identity == other and not (read and other_reads)
            for there in node.pods.values()
            if there.pod["spec"].get("volumes")
            for other, other_reads in disks(there)
            for identity, read in own
        ):
            return DISK_TAKEN
        return None


def _shares_volumes(pod: PodInfo, change: Change) -> bool:
    if change.old is None:
        return False
    gone = pod_info(change.old)
    claims = any(each in pod.claims for each in gone.claims)
    mine = [identity for identity, _ in disks(pod)]
    return claims or any(identity in mine for identity, _ in disks(gone))


class VolumeZone:
    """Volumes that say in their labels where they are are had only there."""

    name = "VolumeZone"

    def __init__(self, args: Mapping[str, Any], handle: Handle) -> None:
        self.wakes = (
            Wakes(CLASS, Action.ADD),
            Wakes(NODE, Action.ADD | Action.LABELS),
            Wakes(CLAIM, Action.ADD | Action.UPDATE, is_its_claim),
            Wakes(VOLUME, Action.ADD | Action.UPDATE),
        )

    def pre_filter(self, pod: PodInfo, snapshot: Snapshot) -> Any:
        found: list[tuple[str, frozenset[str]]] = []
        for claim_key in pod.claims:
            volume = snapshot.storage.volume_of(claim_key)
            for label, value in ({} if volume is None else labels(volume)).items():
                if label in ZONES:
                    found.append((label, frozenset(value.split("__"))))
        return found or SKIP

    def filter(self, state: Any, pod: PodInfo, node: NodeInfo) -> Rejection | None:
        if not any(zone in node.labels for zone in ZONES):
            return None  # a cluster without zones
        for label, allowed in state:
            here = node.labels.get(label, node.labels.get(OLD_ZONES.get(label, ""), ""))
            if here not in allowed:
                return OTHER_ZONE
        return None


class NodeVolumeLimits:
    """No more volumes of a CSI driver than its CSINode says that a node can have."""

    name = "NodeVolumeLimits"

    def __init__(self, args: Mapping[str, Any], handle: Handle) -> None:
        self.wakes = (
            Wakes(CSI, Action.ALL),
            Wakes(ASSIGNED_POD, Action.DELETE, _had_volumes),
            Wakes(CLAIM, Action.ADD | Action.UPDATE, is_its_claim),
            Wakes(NODE, Action.ADD),
        )

    def pre_filter(self, pod: PodInfo, snapshot: Snapshot) -> Any:
        if not pod.claims or not snapshot.storage.csi_nodes:
            return SKIP
        wanted = {*csi_volumes(snapshot.storage, pod.claims)}
        return (snapshot.storage, wanted) if wanted else SKIP

    def filter(
        self, state: tuple[Storage, set[tuple[str, str]]], pod: PodInfo, node: NodeInfo
    ) -> Rejection | None:
        storage, wanted = state
        limits = limits_of(storage.csi_nodes.get(node.name))
        if not limits:
            return None
        there = {*csi_volumes(storage, node.claims)} | storage.attached(node.name)
        count: dict[str, int] = {}
        for driver, _ in there:
            count[driver] = count.get(driver, 0) + 1
        for driver, _ in wanted - there:
            count[driver] = count.get(driver, 0) + 1
            if driver in limits and count[driver] > limits[driver]:
                return TOO_MANY
        return None


def limits_of(csi_node: Obj | None) -> dict[str, int]:
    """How many volumes of each driver the node can have."""
    found = {}
    for driver in ((csi_node or {}).get("spec") or {}).get("drivers") or ():
        count = (driver.get("allocatable") or {}).get("count")
        if count is not None:
            found[driver["name"]] = count
    return found


def csi_volumes(storage: Storage, claims: Iterable[str]) -> Iterator[tuple[str, str]]:
    """(driver, volume handle) of each claim; of one that is to be provisioned, its own key."""
    for claim_key in claims:
        volume = storage.volume_of(claim_key)
        if volume is not None:
            source = volume["spec"].get("csi")
            if source:
                yield source["driver"], source["volumeHandle"]
            continue
        claim = storage.claims.get(claim_key)
        chosen = storage.classes.get(class_of(claim)) if claim is not None else None
        if chosen is not None:
            yield chosen.get("provisioner", ""), claim_key


def _had_volumes(pod: PodInfo, change: Change) -> bool:
    return change.old is not None and bool(pod_info(change.old).claims)
