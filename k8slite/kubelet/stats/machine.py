"""Measures the machine under a node: memory, the disk of the node's directory, processes."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from k8slite.kubelet.stats.summary import FileSystem, MachineState

__all__ = ["read_machine_state"]


def read_machine_state(root_dir: str, started_at: float) -> MachineState:
    """What cannot be read is left at its default."""
    memory = _memory()
    disk: FileSystem | None = None
    with contextlib.suppress(OSError):
        stat = os.statvfs(root_dir)
        size = stat.f_frsize
        disk = FileSystem(stat.f_blocks * size, stat.f_bavail * size, stat.f_files, stat.f_favail)
    return MachineState(
        memory_bytes=memory.get("MemTotal", 0),
        memory_available_bytes=memory.get("MemAvailable", 0),
        file_system=disk,
        pids_max=_number("/proc/sys/kernel/pid_max"),
        pids=_processes(),
        started_at=started_at,
    )


def _memory() -> dict[str, int]:
    """The lines of /proc/meminfo, in bytes."""
    found = {}
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            name, _, rest = line.partition(":")
            found[name] = int(rest.split()[0]) * 1024
    return found


def _number(path: str) -> int:
    with contextlib.suppress(OSError, ValueError):
        return int(Path(path).read_text())
    return 0


def _processes() -> int:
    """As /proc/loadavg counts them: tasks, of which there may be pid_max."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/loadavg").read_text().split()[3].partition("/")[2])
    return 0
