"""What containers use of the machine: read from control groups, from /proc, from their files.

Knows both layouts of control groups (see `cgroups`). What cannot be read is None: the container has
just ended.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import attrs

from k8slite.kubelet.runtime.cgroups import BASE
from k8slite.kubelet.runtime.interface import DiskUsage, Usage

__all__ = ["ProcessTable", "disk_usage", "of_group", "of_process"]

TICK_NS: Final = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
MICROSECOND_NS: Final = 1000
BLOCK_BYTES: Final = 512


def of_group(group: str, base: Path = BASE) -> Usage | None:
    """Of a control group and all below it, such as `k8slite-1f2e3d4c/podUID/ID`."""
    try:
        if (base / "cgroup.controllers").exists():
            return _of_unified(base / group)
        return _of_separate(base, group)
    except (OSError, ValueError, KeyError):
        return None


def _of_unified(group: Path) -> Usage:
    cpu, memory = _pairs(group / "cpu.stat"), _pairs(group / "memory.stat")
    current = _number(group / "memory.current")
    return Usage(
        cpu_ns=cpu["usage_usec"] * MICROSECOND_NS,
        memory_bytes=current,
        working_set_bytes=max(0, current - memory["inactive_file"]),
        rss_bytes=memory["anon"],
        page_faults=memory["pgfault"],
        major_page_faults=memory["pgmajfault"],
        processes=_number(group / "pids.current"),
    )


def _of_separate(base: Path, group: str) -> Usage:
    memory = _pairs(base / "memory" / group / "memory.stat")
    current = _number(base / "memory" / group / "memory.usage_in_bytes")
    return Usage(
        cpu_ns=_number(base / "cpuacct" / group / "cpuacct.usage"),
        memory_bytes=current,
        working_set_bytes=max(0, current - memory["total_inactive_file"]),
        rss_bytes=memory["total_rss"],
        page_faults=memory["total_pgfault"],
        major_page_faults=memory["total_pgmajfault"],
        processes=_number(base / "pids" / group / "pids.current"),
    )


def _number(path: Path) -> int:
    return int(path.read_text())


def _pairs(path: Path) -> dict[str, int]:
    lines = (line.split() for line in path.read_text().splitlines())
    return {name: int(value) for name, value in lines}


@attrs.frozen
class _Process:
    """`cpu_ns` of itself, `waited_ns` of children that it has waited for."""

    parent: int
    cpu_ns: int
    waited_ns: int
    rss_bytes: int
    page_faults: int
    major_page_faults: int


@attrs.define
class ProcessTable:
    """All processes at one moment."""

    _processes: dict[int, _Process]
    _children: dict[int, list[int]]

    @classmethod
    def read(cls, proc: Path = Path("/proc")) -> ProcessTable:
        processes: dict[int, _Process] = {}
        for name in os.listdir(proc):
            if name.isdigit():
                with contextlib.suppress(OSError, IndexError, ValueError):
                    processes[int(name)] = _parse((proc / name / "stat").read_bytes())
        children: dict[int, list[int]] = {}
        for pid, process in processes.items():
            children.setdefault(process.parent, []).append(pid)
        return cls(processes, children)

    def below(self, shim: int) -> Usage | None:
        """Of all descendants of a process that reaps them, itself left out."""
        top = self._processes.get(shim)
        if top is None:
            return None
        return sum(map(self._of, self._descendants(shim)), Usage(top.waited_ns, 0, 0))

    def _of(self, pid: int) -> Usage:
        process = self._processes[pid]
        memory = _proportional(pid) or process.rss_bytes
        return Usage(
            cpu_ns=process.cpu_ns + process.waited_ns,
            memory_bytes=memory,
            working_set_bytes=memory,
            rss_bytes=process.rss_bytes,
            page_faults=process.page_faults,
            major_page_faults=process.major_page_faults,
            processes=1,
        )

    def _descendants(self, pid: int) -> Iterable[int]:
        for child in self._children.get(pid, ()):
            yield child
            yield from self._descendants(child)


def of_process(pid: int | str = "self") -> Usage | None:
    """Of one process without its children."""
    try:
        process = _parse(Path(f"/proc/{pid}/stat").read_bytes())
    except (OSError, IndexError, ValueError):
        return None
    memory = _proportional(pid) or process.rss_bytes
    return Usage(process.cpu_ns, memory, memory, process.rss_bytes, processes=1)


def _parse(stat: bytes) -> _Process:
    """proc_pid_stat(5), from the third field on."""
    fields = stat.rpartition(b")")[2].split()
    user, system, waited_user, waited_system = map(int, fields[11:15])
    return _Process(
        parent=int(fields[1]),
        cpu_ns=(user + system) * TICK_NS,
        waited_ns=(waited_user + waited_system) * TICK_NS,
        rss_bytes=int(fields[21]) * PAGE_BYTES,
        page_faults=int(fields[7]),
        major_page_faults=int(fields[9]),
    )


def _proportional(pid: int | str) -> int:
    """Memory with shared pages counted in part, as each is in use by several; 0: not known."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def disk_usage(path: Path) -> DiskUsage:
    """Of a directory and all below it, on its own file system."""
    try:
        top = os.lstat(path)
    except OSError:
        return DiskUsage(0, 0)
    total, inodes = top.st_blocks * BLOCK_BYTES, 1
    todo = [str(path)]
    while todo:
        try:
            entries = list(os.scandir(todo.pop()))
        except OSError:
            continue
        for entry in entries:
            try:
                info = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if info.st_dev != top.st_dev:
                continue
            total, inodes = total + info.st_blocks * BLOCK_BYTES, inodes + 1
            if entry.is_dir(follow_symlinks=False):
                todo.append(entry.path)
    return DiskUsage(total, inodes)
