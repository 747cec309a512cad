"""Network namespaces by name, as `ip netns` has them, and ways into them.

A named namespace is a file in /run/netns on which the namespace is mounted; it lives as long as
that mount or a process in it. CPython before 3.12 has no setns, hence ctypes: pyroute2.netns uses
it as well, but forks a child to make a namespace, and leaves /run/netns a mount of its own.

A thread's namespace is its own. `inside` changes it for the calling thread and changes it back,
and must not be left by an await: another task would find itself abroad.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

__all__ = [
    "NAMESPACES",
    "command_inside",
    "create",
    "delete",
    "inside",
    "names",
    "path_of",
    "set_sysctls",
]

NAMESPACES: Final = Path("/run/netns")
CLONE_NEWNET: Final = 0x40000000
MS_BIND: Final = 0x1000
MNT_DETACH: Final = 2

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_void_p,
)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
OWN: Final = "/proc/thread-self/ns/net"


def _checked(result: int, what: str) -> None:
    if result:
        code = ctypes.get_errno()
        raise OSError(code, f"{os.strerror(code)}: can't {what}")


def path_of(name: str) -> str:
    """The file of a named namespace."""
    return str(NAMESPACES / name)


@contextlib.contextmanager
def inside(namespace: str | None) -> Iterator[None]:
    """The calling thread in another network namespace, given by its file; None: stay here.

    No await may stand within. Sockets made within stay there; so do processes.
    """
    if namespace is None:
        yield
        return
    home = os.open(OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        target = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _checked(_libc.setns(target, CLONE_NEWNET), f"enter {namespace}")
        finally:
            os.close(target)
        try:
            yield
        finally:
            failed = _libc.setns(home, CLONE_NEWNET)
            assert not failed, "the way back from a network namespace is lost"
    finally:
        os.close(home)


def create(name: str) -> str:
    """A new named namespace; its file. Raises OSError (EEXIST)."""
    NAMESPACES.mkdir(parents=True, exist_ok=True)
    path = path_of(name)
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
    home = os.open(OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _checked(_libc.unshare(CLONE_NEWNET), "make a network namespace")
        try:
            mounted = _libc.mount(OWN.encode(), path.encode(), b"none", MS_BIND, None)
            _checked(mounted, f"keep the network namespace {name}")
        finally:
            failed = _libc.setns(home, CLONE_NEWNET)
            assert not failed, "the way back from a network namespace is lost"
    except OSError:
        os.unlink(path)
        raise
    finally:
        os.close(home)
    return path


def delete(name: str) -> None:
    """Take the name away; the namespace goes with its last process. No such name is no error."""
    path = path_of(name)
    _libc.umount2(path.encode(), MNT_DETACH)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def names() -> list[str]:
    """All named namespaces of this machine, sorted."""
    try:
        return sorted(entry.name for entry in os.scandir(NAMESPACES))
    except FileNotFoundError:
        return []


def set_sysctls(namespace: str | None, values: dict[str, str]) -> None:
    """Write below /proc/sys/net of a namespace; what this kernel does not have is left out."""
    with inside(namespace):
        for name, value in values.items():
            with contextlib.suppress(FileNotFoundError):
                Path("/proc/sys/net", name).write_text(value)


def command_inside(namespace: str, command: Sequence[str]) -> list[str]:
    """The command line that runs `command` in the namespace, for any way to start processes.

    It replaces itself by the command: same process id, same signals.
    """
    script = (
        "import ctypes,os,sys;"
        "fd=os.open(sys.argv[1],os.O_RDONLY|os.O_CLOEXEC);"
        "ctypes.CDLL(None,use_errno=True).setns(fd,0x40000000)"
        " and sys.exit(f'{sys.argv[1]}: '+os.strerror(ctypes.get_errno()));"
        "os.execvp(sys.argv[2],sys.argv[2:])"
    )
    return [sys.executable, "-I", "-S", "-c", script, namespace, *command]
