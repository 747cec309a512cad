"""Volumes on disk: one directory a volume below the pod's own.

Synchronous file work, for a thread. Files of ConfigMaps and the like change as one: they lie in a
directory of their own, and a link `..data` is moved from the old to the new, as in the kubelet.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from k8slite.kubelet.runtime.interface import ConfigFailure
from k8slite.kubelet.volumes.volumes import Content, EmptyDirectory, Files, HostPath

PLUGINS: dict[type[Content], str] = {
    Files: "projected",
    EmptyDirectory: "empty-dir",
}
MNT_DETACH = 2
_ESCAPED = re.compile(rb"\\([0-3][0-7]{2})")


def realise(
    directory: Path,
    name: str,
    content: Files | EmptyDirectory | HostPath,
    *,
    group: int | None = None,
) -> Path:
    """Make the volume so on disk; its path. Raises ConfigFailure, OSError."""
    if isinstance(content, HostPath):
        return _host_path(content)
    path = directory / f"kubernetes.io~{PLUGINS[type(content)]}" / name
    path.mkdir(parents=True, exist_ok=True)
    if isinstance(content, EmptyDirectory):
        path.chmod(0o777)
        if content.memory and os.geteuid() == 0 and not os.path.ismount(path):
            _mount_tmpfs(path, content.size_bytes)
        if group is not None and os.geteuid() == 0:
            os.chown(path, -1, group)
            path.chmod(0o2777)
    else:
        path.chmod(0o755)
        write_files(path, content.entries, group=group)
    return path


def _host_path(content: HostPath) -> Path:
    path = Path(content.path)
    wanted = content.type
    if wanted == "DirectoryOrCreate":
        path.mkdir(parents=True, exist_ok=True, mode=0o755)
    elif wanted == "FileOrCreate" and not path.exists():
        path.touch(mode=0o644)
    checks = {
        "Directory": (path.is_dir, "a directory"),
        "DirectoryOrCreate": (path.is_dir, "a directory"),
        "File": (path.is_file, "a file"),
        "FileOrCreate": (path.is_file, "a file"),
        "Socket": (path.is_socket, "a socket"),
        "CharDevice": (path.is_char_device, "a character device"),
        "BlockDevice": (path.is_block_device, "a block device"),
    }
    if wanted in checks and not checks[wanted][0]():
        raise ConfigFailure(f"hostPath type check failed: {path} is not {checks[wanted][1]}")
    if not path.exists():
        path.mkdir(parents=True, mode=0o755)  # as container runtimes do for a missing source
    return path


def _mount_tmpfs(path: Path, size_bytes: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"size={size_bytes}" if size_bytes else ""
    if libc.mount(b"tmpfs", os.fsencode(path), b"tmpfs", 0, options.encode()) != 0:
        raise OSError(ctypes.get_errno(), f"cannot mount a tmpfs on {path}")


def unmount(path: Path) -> None:
    ctypes.CDLL(None, use_errno=True).umount2(os.fsencode(path), MNT_DETACH)


def write_files(
    directory: Path, entries: Mapping[str, tuple[bytes, int]], *, group: int | None = None
) -> bool:
    """Make the directory show exactly these files; True if anything changed."""
    data = directory / "..data"
    if data.is_dir() and _read_files(data) == {p: c for p, (c, _) in entries.items()}:
        return False
    old = os.readlink(data) if data.is_symlink() else None
    fresh = Path(tempfile.mkdtemp(prefix="..", dir=directory))
    fresh.chmod(0o755)
    for name, (content, mode) in entries.items():
        path = fresh / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        if group is not None and os.geteuid() == 0:
            os.chown(path, -1, group)
            mode |= 0o040
        path.chmod(mode)
    link = directory / "..data_tmp"
    link.unlink(missing_ok=True)
    link.symlink_to(fresh.name)
    link.rename(data)
    tops = dict.fromkeys(name.split("/")[0] for name in entries)
    for top in tops:
        if not (directory / top).is_symlink():
            (directory / top).symlink_to(f"..data/{top}")
    for path in directory.iterdir():
        if not path.name.startswith("..") and path.name not in tops:
            path.unlink()
    if old is not None:
        shutil.rmtree(directory / old, ignore_errors=True)
    return True


def _read_files(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def remove_pod_directory(directory: Path) -> None:
    """Unmount what is mounted below, then delete it. Never follows a link out of it."""
    for path in mounts_below(directory):
        unmount(path)
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(directory)


def mounts_below(directory: Path) -> list[Path]:
    """Mount points at or below a directory, the deepest first."""
    paths = mount_points(Path("/proc/self/mountinfo").read_bytes())
    found = [path for path in paths if path.is_relative_to(directory)]
    return sorted(found, key=lambda path: len(path.parts), reverse=True)


def mount_points(mountinfo: bytes) -> list[Path]:
    """Those that a mountinfo file lists, whatever bytes they are made of.

    The kernel writes white space, backslashes and # in them as a backslash and three octal digits.
    """
    return [
        Path(os.fsdecode(_ESCAPED.sub(lambda found: bytes((int(found[1], 8),)), line.split()[4])))
        for line in mountinfo.split(b"\n")
        if line
    ]
