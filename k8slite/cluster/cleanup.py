"""Undo everything that a cluster made outside its directory, whatever died before.

Works from names alone: processes carry the cluster's directory in their environment, namespaces
and interfaces its name, mounts and control groups lie below its directory. Synchronous, idempotent.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from k8slite.cluster.layout import Layout
from k8slite.cluster.zygote import MARK

__all__ = ["clean", "clean_network", "clean_nodes", "end_strays", "leftovers", "strays"]

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
    from k8slite.kubelet.cleanup import cleanup

    directory = layout.root / "nodes"
    if nodes is None:
        nodes = sorted(os.listdir(directory)) if directory.is_dir() else []
    for node in nodes:
        if layout.node(node).is_dir():
            cleanup(layout.node(node))


def clean_network(cluster: str) -> None:
    """Remove its namespaces and its interface. Raises OSError."""
    if network_leftovers(cluster):
        from k8slite.network.topology import delete_cluster

        delete_cluster(cluster)


def network_leftovers(cluster: str) -> list[str]:
    """What the kernel has under the cluster's name, found without netlink."""
    from k8slite.network.addresses import host_interface, namespace_name

    prefix = namespace_name(cluster, "")
    names = sorted(os.listdir(NAMESPACES)) if NAMESPACES.is_dir() else []
    found = [f"network namespace {name}" for name in names if name.startswith(prefix)]
    interface = host_interface(cluster)
    if Path("/sys/class/net", interface).exists():
        found.append(f"interface {interface}")
    return found


def clean(cluster: str, layout: Layout) -> None:
    """Everything outside the directory; no supervisor runs. Raises OSError."""
    end_strays(layout)
    clean_nodes(layout)
    clean_network(cluster)


def leftovers(cluster: str, layout: Layout) -> list[str]:
    """What is still there outside the directory, in words; empty when all is gone."""
    from k8slite.kubelet.cleanup import leftovers as node_leftovers

    found = [f"process {pid}" for pid in strays(layout)]
    directory = layout.root / "nodes"
    for node in sorted(os.listdir(directory)) if directory.is_dir() else []:
        found += node_leftovers(layout.node(node))
    return found + network_leftovers(cluster)
