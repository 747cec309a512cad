"""The control groups of our containers: where they are, and how they go away.

Knows both layouts: one tree per controller (version 1, also in the hybrid layout) and one tree for
all (version 2). Creates nothing: the OCI runtime does; limits are changed here.
Everything of one cluster lies below one group, named after its directory.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
from pathlib import Path

from k8slite.kubelet.runtime.interface import Resources

BASE = Path("/sys/fs/cgroup")
HYBRID = BASE / "unified"


def parent_of(root_dir: str | Path) -> str:
    """The group of everything below a directory, such as `k8slite-1f2e3d4c`."""
    digest = hashlib.sha256(str(Path(root_dir).absolute()).encode()).hexdigest()
    return f"k8slite-{digest[:8]}"


def trees() -> list[Path]:
    """The roots of the hierarchies."""
    if (BASE / "cgroup.controllers").exists():
        return [BASE]
    with contextlib.suppress(FileNotFoundError):
        return sorted(path for path in BASE.iterdir() if path.is_dir() and not path.is_symlink())
    return []


def oom_files(group: str) -> tuple[str, ...]:
    """Where the kernel counts the group's out-of-memory kills."""
    return (
        str(BASE / "memory" / group / "memory.oom_control"),
        str(BASE / group / "memory.events"),
    )


def groups_below(parent: str) -> list[Path]:
    """All groups of that name and below, the deepest first."""
    found: list[Path] = []
    for tree in trees():
        for top, _, _ in os.walk(tree / parent, topdown=False):
            found.append(Path(top))
    return found


def remove_groups(parent: str) -> None:
    """Kill what runs in the groups and remove them. A group that stays busy stays."""
    for group in groups_below(parent):
        for pid in pids_of(group):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            group.rmdir()


def pids_of(group: Path) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(pid) for pid in (group / "cgroup.procs").read_text().split()]
    return []


def set_limits(group: str, resources: Resources, base: Path = BASE) -> None:
    """Change the limits of processors and memory of a group that runs. Raises OSError (EBUSY: it
    uses more memory than it is to have)."""
    if (base / "cgroup.controllers").exists():
        quota = resources.cpu_quota_us or "max"
        _write(base / group / "cpu.max", f"{quota} {resources.cpu_period_us}")
        if resources.cpu_shares:
            _write(base / group / "cpu.weight", str(weight_of(resources.cpu_shares)))
        _write(base / group / "memory.max", str(resources.memory_bytes or "max"))
        return
    cpu = base / "cpu" / group
    _write(cpu / "cpu.cfs_quota_us", str(resources.cpu_quota_us or -1))
    if resources.cpu_shares:
        _write(cpu / "cpu.shares", str(resources.cpu_shares))
    memory = base / "memory" / group / "memory.limit_in_bytes"
    _write(memory, str(resources.memory_bytes or -1))


def _write(path: Path, text: str) -> None:
    path.write_text(text)


def weight_of(shares: int) -> int:
    """Version 2's weight for version 1's shares, as OCI runtimes convert them."""
    return 1 + (max(2, min(shares, 262144)) - 2) * 9999 // 262142
