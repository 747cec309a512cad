"""Undo everything that a cluster made outside its directory, whatever died before.

Works from names alone: processes carry the cluster's directory in their environment, namespaces
and interfaces its name, mounts and control groups lie below its directory. Synchronous, idempotent.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from k8slite.cluster.layout import Layout
from k8slite.cluster.zygote import MARK

__all__ = ["clean", "clean_network", "clean_nodes", "delete", "leftovers", "strays"]

PATIENCE_SECONDS: Final = 5.0
NAMESPACES: Final = Path("/run/netns")


def strays(layout: Layout) -> list[int]:
    """Processes of the cluster, but for the caller's own."""
    mark = f"{MARK}={layout.root}".encode()
    found = []
    for pid in _pids():
        with contextlib.suppress(OSError):
            if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.append(pid)
    return [pid for pid in found if pid != os.getpid() and not _is_dead(pid)]


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def _is_dead(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state in (b"Z", b"X")


def end_strays(layout: Layout) -> int:
    """Kill them; how many there were. Raises OSError when one cannot be ended."""
    ends_at = time.monotonic() + PATIENCE_SECONDS
    seen: set[int] = set()
    while pids := strays(layout):
        seen.update(pids)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > ends_at:
            raise OSError(f"processes of the cluster in {layout.root} do not end: {pids}")
        time.sleep(0.01)
    return len(seen)


def clean_nodes(layout: Layout, nodes: list[str] | None = None) -> None:
    """End the pods of the nodes (None: all), their mounts and control groups. Raises OSError."""
    for node in _nodes(layout) if nodes is None else nodes:
        from k8slite.kubelet.cleanup import cleanup

        if layout.node(node).is_dir():
            cleanup(layout.node(node))


def _nodes(layout: Layout) -> list[str]:
    return sorted(os.listdir(layout.nodes)) if layout.nodes.is_dir() else []


def clean_network(network: str) -> None:
    """Remove the namespaces and the interface of that name (`Layout.network`). Raises OSError."""
    if network_leftovers(network):
        from k8slite.network.topology import delete_cluster

        delete_cluster(network)


def network_leftovers(network: str) -> list[str]:
    """What the kernel has under that name, found without netlink."""
    from k8slite.network.addresses import host_interface, namespace_name

    prefix = namespace_name(network, "")
    names = sorted(os.listdir(NAMESPACES)) if NAMESPACES.is_dir() else []
    found = [f"network namespace {name}" for name in names if name.startswith(prefix)]
    interface = host_interface(network)
    if Path("/sys/class/net", interface).exists():
        found.append(f"interface {interface}")
    return found


def clean(cluster: str, layout: Layout) -> None:
    """Everything outside the directory; no supervisor runs. Raises OSError."""
    end_strays(layout)
    clean_nodes(layout)
    clean_network(layout.network(cluster))


def leftovers(cluster: str, layout: Layout) -> list[str]:
    """What is still there outside the directory, in words; empty when all is gone."""
    from k8slite.kubelet.cleanup import leftovers as node_leftovers

    found = [f"process {pid}" for pid in strays(layout)]
    for node in _nodes(layout):
        found += node_leftovers(layout.node(node))
    return found + network_leftovers(layout.network(cluster))


def delete(layout: Layout) -> None:
    """The directory with all that is ours, once `clean` has been there. Raises OSError."""
    for mount in _mounts():
        if mount != layout.root and mount.is_relative_to(layout.root):
            raise OSError(f"{mount} is still mounted, and what is in it is not ours: umount it")
    layout.delete()


def _mounts() -> list[Path]:
    """All mount points; the kernel writes spaces and the like as octal numbers."""
    lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    points = (line.split(b" ")[4] for line in lines)
    return [
        Path(os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda m: bytes([int(m[1], 8)]), point)))
        for point in points
    ]
