"""An append-only file of the operating system, made for a log: many small appends, each synced.

Owns: a descriptor, the space reserved ahead, and the thread that syncs.

Space is reserved in steps before it's written, because a sync that must also record a new file size
costs half as much again (0.34 ms against 0.21 on ext4). So a file may end in zeros after a crash;
whoever reads it must tell its contents from them. An orderly `close` cuts them off.

A sync runs in a thread of its own that waits in the kernel; it is asked, and answers, through an
eventfd. trio's worker threads would do, but cost three times the processor time of this, which at
a thousand syncs a second is what limits a lone client.
"""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import Final

import trio

__all__ = ["OsFile"]

RESERVE_BYTES: Final = 1024 * 1024


class OsFile:
    """`size` counts what was appended, and what the file held when it was opened."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = self._reserved = os.fstat(self._fd).st_size
        self._syncer = Syncer(self._fd)

    @property
    def size(self) -> int:
        return self._size

    def append(self, data: bytes | bytearray | memoryview) -> None:
        rest = memoryview(data)
        if self._size + len(rest) > self._reserved:
            self._reserve(self._size + len(rest))
        while rest:
            written = os.pwrite(self._fd, rest, self._size)
            self._size += written
            rest = rest[written:]

    def _reserve(self, size: int) -> None:
        """Make room for `size` bytes and some more. A disk without so much has its say when the
        bytes themselves are written."""
        with contextlib.suppress(OSError):
            os.posix_fallocate(self._fd, self._reserved, size + RESERVE_BYTES - self._reserved)
            self._reserved = size + RESERVE_BYTES

    def begin_sync(self) -> None:
        self._syncer.begin()

    async def sync(self) -> None:
        await self._syncer.sync()

    def truncate(self, size: int) -> None:
        os.ftruncate(self._fd, size)
        self._size = self._reserved = size

    def close(self) -> None:
        self._syncer.close()
        try:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size)
        finally:
            os.close(self._fd)


class Syncer:
    """fdatasync of one file, one at a time, off the event loop."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._asked = -1
        self._done = -1
        self._closing = False
        self._error: OSError | None = None
        self._thread: threading.Thread | None = None
        self._begun = False

    def begin(self) -> None:
        assert not self._begun
        self._begun = True
        if self._thread is None:
            self._asked = os.eventfd(0, os.EFD_CLOEXEC)
            self._done = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._thread = threading.Thread(target=self._run, name="sync", daemon=True)
            self._thread.start()
        os.eventfd_write(self._asked, 1)

    async def sync(self) -> None:
        """Raises OSError. It can't be cancelled once begun, as nothing can stop the kernel."""
        if not self._begun:
            self.begin()
        with trio.CancelScope(shield=True):
            await trio.lowlevel.wait_readable(self._done)
        os.eventfd_read(self._done)
        self._begun = False
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self) -> None:
        while True:
            os.eventfd_read(self._asked)
            if self._closing:
                return
            try:
                os.fdatasync(self._fd)
            except OSError as error:
                self._error = error
            os.eventfd_write(self._done, 1)

    def close(self) -> None:
        """End the thread; a sync that was begun comes to its end."""
        if self._thread is None:
            return
        self._closing = True
        os.eventfd_write(self._asked, 1)
        self._thread.join()
        self._thread = None
        os.close(self._asked)
        os.close(self._done)
