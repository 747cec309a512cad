"""The lock of a cluster's directory: whoever has it may start, stop or delete the cluster.

`up` takes it, hands it to the supervisor that it starts, and so there is no moment in between. The
kernel gives it back when its last holder has died, however that came. Looking at it never takes it.
"""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path
from types import TracebackType
from typing import Final, Self

__all__ = ["Held", "Lock", "is_held", "take"]

FLOCK: Final = "hhqqi4x"
"""struct flock of 64-bit Linux: type, whence, start, length, pid."""


class Held(Exception):
    """Somebody else has it; `pid` is 0 where it cannot be told."""

    def __init__(self, pid: int) -> None:
        super().__init__("it is running or being started" + (f" (process {pid})" if pid else ""))
        self.pid = pid


class Lock:
    """Held as long as the descriptor is open, here or in a process that has inherited it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        os.set_inheritable(fd, False)

    def name_holder(self, pid: int) -> None:
        """Who is to be asked, or ended, by those who find the lock held."""
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, f"{pid}\n".encode(), 0)

    def close(self) -> None:
        """Give up this process's share of it."""
        os.close(self.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def take(path: Path) -> Lock:
    """The lock at once. Raises Held, and OSError where its directory is missing or full."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack(FLOCK, fcntl.F_WRLCK, 0, 0, 0, 0))
            lock = Lock(fd)
            if path.exists() and os.path.samestat(os.fstat(fd), path.stat()):
                lock.name_holder(os.getpid())
                return lock
        except (BlockingIOError, PermissionError):
            os.close(fd)
            raise Held(holder(path)) from None
        except BaseException:
            os.close(fd)
            raise
        lock.close()  # `down` had it, and has deleted it: this one guards nothing


def is_held(path: Path) -> bool:
    """Raises OSError for a file that may not be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        asked = struct.pack(FLOCK, fcntl.F_WRLCK, 0, 0, 0, 0)
        found = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked)
    finally:
        os.close(fd)
    kind: int = struct.unpack(FLOCK, found)[0]
    return kind != fcntl.F_UNLCK


def holder(path: Path) -> int:
    """The process that was named; 0 when none can be told."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0
