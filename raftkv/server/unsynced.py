"""A disk that does not wait for the platter: for tests of other things, never for data.

Owns nothing; passes everything on but `File.sync`.
"""

from __future__ import annotations

import attrs
import trio

from raftkv.host import Disk, File

__all__ = ["UnsyncedDisk"]


@attrs.frozen
class UnsyncedFile:
    file: File

    @property
    def size(self) -> int:
        return self.file.size

    def append(self, data: bytes | bytearray | memoryview) -> None:
        self.file.append(data)

    def begin_sync(self) -> None:
        """Nothing, see `sync`."""

    async def sync(self) -> None:
        """Nothing: what was appended may be lost with the machine, not with the process.

        Others get their turn all the same, so that proposals gather as they do with a real disk.
        """
        await trio.lowlevel.checkpoint()

    def truncate(self, size: int) -> None:
        self.file.truncate(size)

    def close(self) -> None:
        self.file.close()


@attrs.frozen
class UnsyncedDisk:
    disk: Disk

    def names(self) -> list[str]:
        return self.disk.names()

    def read(self, name: str) -> bytes:
        return self.disk.read(name)

    def open_append(self, name: str) -> File:
        return UnsyncedFile(self.disk.open_append(name))

    async def replace(self, name: str, data: bytes) -> None:
        await self.disk.replace(name, data)

    def rename(self, old: str, new: str) -> None:
        self.disk.rename(old, new)

    def delete(self, name: str) -> None:
        self.disk.delete(name)

    async def sync_directory(self) -> None:
        """Nothing, as above."""
