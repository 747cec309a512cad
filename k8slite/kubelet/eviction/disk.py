"""How much of the disk pods take: what containers wrote, their logs, their emptyDirs.

Synchronous file work, for a thread. What goes while it is looked at counts for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

from k8slite.api.meta import Obj
from k8slite.kubelet.eviction.ranking import Using
from k8slite.kubelet.paths import Paths
from k8slite.kubelet.runtime.interface import ContainerStatus, DiskUsage
from k8slite.kubelet.runtime.usage import disk_usage

__all__ = ["with_disk"]


def with_disk(
    pod: Obj,
    using: Using,
    paths: Paths,
    containers: Iterable[ContainerStatus],
    written: Mapping[str, DiskUsage],
) -> Using:
    """What the pod uses, with what it takes of the disk. `written` by container id."""
    meta = pod["metadata"]
    logs = paths.pod_logs(meta["namespace"], meta["name"], meta["uid"])
    disk: dict[str, int] = {}
    inodes = 0
    for status in containers:
        found = written.get(status.id, DiskUsage(0, 0))
        disk[status.name] = disk.get(status.name, 0) + found.used_bytes
        inodes += found.inodes
    for name in disk:
        found = disk_usage(logs / name)
        disk[name] += found.used_bytes
        inodes += found.inodes
    volumes = {}
    for volume in pod["spec"].get("volumes") or ():
        source = volume.get("emptyDir")
        if source is not None and source.get("medium") != "Memory":
            name = volume["name"]
            path = paths.volumes(meta["uid"]) / "kubernetes.io~empty-dir" / name
            found = disk_usage(path)
            volumes[name] = found.used_bytes
            inodes += found.inodes
    return attrs.evolve(using, disk=disk, volumes=volumes, inodes=inodes)
