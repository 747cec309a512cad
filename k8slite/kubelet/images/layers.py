"""Unpack one layer's tar into a directory, in the form that overlayfs stacks.

A layer comes from outside and may be hostile: nothing is ever written outside the directory. Names
with `..` are refused, and so is writing through a symbolic link that the layer has made. Whiteouts
(`.wh.NAME`, `.wh..wh..opq`) become what overlayfs understands: a 0:0 device, an attribute.
Device nodes are left out: a container gets its devices from its runtime.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tarfile
from pathlib import Path, PurePosixPath
from typing import IO, Protocol, cast

from k8slite.kubelet.images.archive import BadArchive

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
LAYER_BYTES_MAX = 32 * 1024**3
XATTR = "SCHILY.xattr."


class Reader(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


def unpack_layer(stream: Reader, directory: Path, *, owners: bool) -> int:
    """Unpack into `directory`, which exists and is empty; the bytes of its files.

    `owners`: set user, group and capabilities as the layer says, which takes root. Raises
    BadArchive, tarfile.TarError (damaged) and OSError (disk full).
    """
    total = 0
    folders: list[tuple[Path, tarfile.TarInfo]] = []
    with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r|") as tar:
        for member in tar:
            target = _inside(directory, member.name)
            if target == directory:
                folders.append((directory, member))
                continue
            _make_parents(directory, target)
            name = target.name
            if name == OPAQUE:
                os.setxattr(target.parent, "trusted.overlay.opaque", b"y")
                continue
            if name.startswith(WHITEOUT):
                hidden = target.with_name(name.removeprefix(WHITEOUT))
                _clear(hidden)
                os.mknod(hidden, stat.S_IFCHR, os.makedev(0, 0))
                continue
            total += member.size
            if total > LAYER_BYTES_MAX:
                raise BadArchive(f"the layer unpacks to more than {LAYER_BYTES_MAX} bytes")
            _make(tar, member, directory, target)
            if member.isdir():
                folders.append((target, member))
            elif os.path.lexists(target) and not member.islnk():
                _finish(target, member, owners)
    for path, member in reversed(folders):  # last, for their times change with their content
        if path == directory or path.is_dir():
            _finish(path, member, owners)
    return total


def _inside(directory: Path, name: str) -> Path:
    parts = [part for part in PurePosixPath(name).parts if part not in ("/", ".")]
    if ".." in parts:
        raise BadArchive(f"the layer's entry {name!r} points outside the image")
    return directory.joinpath(*parts)


def _make_parents(directory: Path, target: Path) -> None:
    """The directories above, none of which may be a link: it could lead anywhere."""
    walk = directory
    for part in target.relative_to(directory).parts[:-1]:
        walk = walk / part
        if walk.is_symlink() or (walk.exists() and not walk.is_dir()):
            raise BadArchive(
                f"the layer writes {str(target.relative_to(directory))!r} through a link or file"
            )
        walk.mkdir(exist_ok=True, mode=0o755)


def _clear(target: Path) -> None:
    """A later entry replaces an earlier one, but a directory only if it is empty."""
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        target.unlink()
    elif target.is_dir():
        with contextlib.suppress(OSError):
            target.rmdir()


def _make(tar: tarfile.TarFile, member: tarfile.TarInfo, directory: Path, target: Path) -> None:
    if member.isdir():
        if target.is_symlink() or not target.is_dir():
            _clear(target)
            target.mkdir(mode=0o755)
        return
    _clear(target)
    if member.isreg():
        source = tar.extractfile(member)
        assert source is not None, "regular members have content"
        with target.open("xb") as file:
            while chunk := source.read(1 << 20):
                file.write(chunk)
    elif member.issym():
        target.symlink_to(member.linkname)
    elif member.islnk():
        origin = _inside(directory, member.linkname)
        _make_parents(directory, origin)
        if origin.is_symlink() or not origin.is_file():
            if not origin.is_symlink():
                raise BadArchive(f"{member.name!r} is a hard link to {member.linkname!r}, no file")
            target.symlink_to(os.readlink(origin))
            return
        os.link(origin, target, follow_symlinks=False)
    elif member.isfifo():
        os.mkfifo(target)


def _finish(target: Path, member: tarfile.TarInfo, owners: bool) -> None:
    if owners:
        os.chown(target, member.uid, member.gid, follow_symlinks=False)
    if not member.issym():
        os.chmod(target, member.mode & 0o7777)  # after chown, which clears the set-id bits
        if owners:
            _set_attributes(target, member)
    os.utime(target, (member.mtime, member.mtime), follow_symlinks=False)


def _set_attributes(target: Path, member: tarfile.TarInfo) -> None:
    for key, value in member.pax_headers.items():
        name = key.removeprefix(XATTR)
        if name != key and name.startswith(("security.", "user.")):
            with contextlib.suppress(OSError):  # a file system may have none
                os.setxattr(target, name, value.encode("utf-8", "surrogateescape"))
