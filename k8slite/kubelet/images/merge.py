"""An image's root as one directory, for volumes: its layers laid over each other by hard links.

Layers are as `layers.py` unpacks them, with overlayfs's whiteouts. The links share their content
with the store, so the directory must be shown read-only.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path

__all__ = ["merge_layers"]

OPAQUE = "trusted.overlay.opaque"


def merge_layers(layers: Iterable[Path], directory: Path) -> None:
    """Make `directory`, which must not exist, show the layers, the lowest first. Raises OSError."""
    directory.mkdir(mode=0o755)
    for layer in layers:
        _lay(layer, directory)


def _lay(source: Path, target: Path) -> None:
    for entry in os.scandir(source):
        path = target / entry.name
        info = entry.stat(follow_symlinks=False)
        if stat.S_ISCHR(info.st_mode) and info.st_rdev == 0:
            _remove(path)
        elif entry.is_dir(follow_symlinks=False):
            if _is_opaque(entry.path) or path.is_symlink() or not path.is_dir():
                _remove(path)
            path.mkdir(exist_ok=True)
            _lay(Path(entry.path), path)
            shutil.copystat(entry.path, path)
            with contextlib.suppress(PermissionError):
                os.chown(path, info.st_uid, info.st_gid)
        else:
            _remove(path)
            _link(entry.path, path)


def _link(source: str, target: Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EMLINK):
            raise
        shutil.copy2(source, target, follow_symlinks=False)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _is_opaque(path: str) -> bool:
    try:
        return os.getxattr(path, OPAQUE) == b"y"
    except OSError:
        return False
