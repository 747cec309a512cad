"""A disk in memory that forgets, at a crash, what was not synced."""

from __future__ import annotations

import random
from collections.abc import Callable

from raftkv.host import File


class Crashed(BaseException):
    """The machine went down at this operation."""


class Inode:
    def __init__(self, data: bytes = b"") -> None:
        self.data = bytearray(data)
        self.durable = bytes(data)


class FakeFile:
    def __init__(self, disk: FakeDisk, inode: Inode) -> None:
        self._disk = disk
        self._inode = inode

    @property
    def size(self) -> int:
        return len(self._inode.data)

    def append(self, data: bytes | bytearray | memoryview) -> None:
        self._disk.step("append")
        room = self._disk.room
        if room is not None and len(data) > room:
            self._inode.data += bytes(data[:room])
            self._disk.room = 0
            raise OSError(28, "No space left on device")
        if room is not None:
            self._disk.room = room - len(data)
        self._inode.data += data

    def begin_sync(self) -> None:
        """Begins when it is waited for."""

    async def sync(self) -> None:
        self._disk.step("sync")
        if self._disk.sync_error is not None:
            raise self._disk.sync_error
        self._inode.durable = bytes(self._inode.data)
        self._disk.step("synced")

    def truncate(self, size: int) -> None:
        self._disk.step("truncate")
        del self._inode.data[size:]

    def close(self) -> None:
        pass


class FakeDisk:
    """`fail_at`: the number of the operation at which the machine goes down."""

    def __init__(self) -> None:
        self.files: dict[str, Inode] = {}
        self.durable_names: dict[str, Inode] = {}
        self.steps: list[str] = []
        self.fail_at: int | None = None
        self.sync_error: OSError | None = None
        self.room: int | None = None

    def step(self, what: str) -> None:
        if self.fail_at is not None and len(self.steps) == self.fail_at:
            raise Crashed(what)
        self.steps.append(what)

    def names(self) -> list[str]:
        return sorted(self.files)

    def read(self, name: str) -> bytes:
        if name not in self.files:
            raise FileNotFoundError(name)
        return bytes(self.files[name].data)

    def open_append(self, name: str) -> File:
        return FakeFile(self, self.files.setdefault(name, Inode()))

    async def replace(self, name: str, data: bytes) -> None:
        self.step("replace: write")
        temporary = Inode(data)
        self.files[f"{name}.tmp"] = temporary
        self.durable_names[f"{name}.tmp"] = Inode(data[: len(data) // 2])
        self.step("replace: rename")
        del self.files[f"{name}.tmp"]
        self.files[name] = temporary
        self.step("replace: directory")
        self.durable_names.pop(f"{name}.tmp", None)
        self.durable_names[name] = temporary
        self.step("replaced")

    def rename(self, old: str, new: str) -> None:
        self.step("rename")
        self.files[new] = self.files.pop(old)

    def delete(self, name: str) -> None:
        self.step("delete")
        self.files.pop(name, None)

    async def sync_directory(self) -> None:
        self.step("directory")
        self.durable_names = dict(self.files)

    def after_crash(self, tear: Callable[[bytes, bytes], bytes] | None = None) -> FakeDisk:
        """What is left; `tear(durable, written)` says what of unsynced bytes survived."""
        disk = FakeDisk()
        for name, inode in self.durable_names.items():
            data = inode.durable
            if tear is not None:
                data = tear(data, bytes(inode.data))
            disk.files[name] = Inode(data)
        disk.durable_names = dict(disk.files)
        return disk

    def copy(self) -> FakeDisk:
        disk = FakeDisk()
        disk.files = {name: Inode(bytes(inode.data)) for name, inode in self.files.items()}
        disk.durable_names = dict(disk.files)
        return disk


def random_tear(rng: random.Random) -> Callable[[bytes, bytes], bytes]:
    """Unsynced sectors survive or not, each for itself; the file may be shorter, too."""

    def tear(durable: bytes, written: bytes) -> bytes:
        if written[: len(durable)] != durable or len(written) == len(durable):
            return rng.choice((durable, written))
        end = rng.randint(len(durable), len(written))
        result = bytearray(written[:end])
        start = len(durable)
        while start < end:
            stop = min(end, start - start % 512 + 512)
            if rng.random() < 0.3:
                result[start:stop] = bytes(stop - start)
            start = stop
        return bytes(result)

    return tear
