"""Undo all that a kubelet and its runtime have made below one directory.

For `down`, and for `up` after a crash: needs no running kubelet and no intact state. Synchronous;
it may take seconds, as processes are given a moment to die. Idempotent. Deletes nothing but what it
finds by the directory's name: processes that carry it, mounts below it, its control groups.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from pathlib import Path

from k8slite.kubelet.runtime import cgroups
from k8slite.kubelet.runtime.process import MARK, marked
from k8slite.kubelet.volumes.volume_files import mounts_below, unmount

PATIENCE_SECONDS = 5.0
SHIM = b"runtime/shim.py"


def leftovers(root_dir: str | Path) -> list[str]:
    """What still runs or is mounted because of this directory, in words; empty when all is gone.

    Files do not count: `cleanup` keeps logs and images unless told to delete them.
    """
    root = Path(root_dir).absolute()
    found = [f"process {pid}: {_command(pid)}" for pid in processes_of(root)]
    found += [f"mount {path}" for path in mounts_below(root)]
    found += [f"cgroup {path}" for path in cgroups.groups_below(cgroups.parent_of(root))]
    return found


def cleanup(root_dir: str | Path, *, delete: bool = False) -> None:
    """Kill containers and their shims, remove control groups, unmount.

    With `delete` the directory itself goes too. Raises OSError when something cannot be undone.
    """
    root = Path(root_dir).absolute()
    ends_at = time.monotonic() + PATIENCE_SECONDS
    while True:
        pids = processes_of(root)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        cgroups.remove_groups(cgroups.parent_of(root))
        if not pids and not cgroups.groups_below(cgroups.parent_of(root)):
            break
        if time.monotonic() > ends_at:
            raise OSError(f"cannot end what runs below {root}: {'; '.join(leftovers(root))}")
        time.sleep(0.01)
    for path in mounts_below(root):
        unmount(path)
    for name in ("runtime", "network", "pods"):
        shutil.rmtree(root / name, ignore_errors=True)
    if delete:
        shutil.rmtree(root, ignore_errors=True)


def processes_of(root: Path) -> list[int]:
    """Shims, sandboxes and launchers (by their arguments), containers (by mark or group)."""
    runtime = str(root / "runtime").encode()
    found = set(marked(f"{MARK}={root}/runtime/"))
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            with contextlib.suppress(OSError):
                words = (path / "cmdline").read_bytes().split(b"\0")
                if runtime in words and any(word.endswith(SHIM) for word in words):
                    found.add(int(path.name))
    for group in cgroups.groups_below(cgroups.parent_of(root)):
        found.update(cgroups.pids_of(group))
    return sorted(pid for pid in found if pid != os.getpid() and not _is_dead(pid))


def _is_dead(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state in (b"Z", b"X")


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    return "?"
