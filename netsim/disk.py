"""A simulated host's disk: `raftkv.host.Disk` with the crash behaviour of a real one.

Owns what is durable and what is only cached. A process that is killed loses nothing; a machine that
loses power keeps, of each file, what was synced, and of the rest a random part, perhaps with
sectors of zeros in it; of the created, renamed and deleted names since the last directory sync it
keeps a random beginning of that history (as a journal does). A failed sync leaves the data readable
and never durable (as Linux does): the caller must not go on.

Faults are attributes of `SimDisk`; `netsim.faults` sets and takes them back.
"""

from __future__ import annotations

import errno
import math
import os
import random

import trio

from netsim.fabric import Fabric
from netsim.life import CURRENT_LIFE, Life, Machine

__all__ = ["DiskSettings", "SimDisk", "SimFile"]

SECTOR = 512


class DiskSettings:
    """How slow a sync is: uniform between two bounds, in seconds."""

    __slots__ = ("sync_seconds_max", "sync_seconds_min")

    def __init__(self, sync_seconds_min: float = 0.0003, sync_seconds_max: float = 0.002) -> None:
        self.sync_seconds_min = sync_seconds_min
        self.sync_seconds_max = sync_seconds_max


class _Inode:
    """A file's bytes, apart from its name."""

    __slots__ = ("content", "number", "poisoned", "previous", "synced")

    def __init__(self, number: int) -> None:
        self.number = number
        self.content = bytearray()
        self.synced = 0
        # The durable bytes, where a truncation cut into them and is not yet synced itself.
        self.previous: bytes | None = None
        self.poisoned = False

    def truncate(self, size: int) -> None:
        if size < self.synced:
            if self.previous is None:
                self.previous = bytes(self.content[: self.synced])
            self.synced = size
        del self.content[size:]

    def made_durable(self, size: int) -> None:
        """A sync that began when the file had `size` bytes has succeeded."""
        if not self.poisoned:
            self.synced = max(self.synced, min(size, len(self.content)))
            self.previous = None

    def lose_power(self, rng: random.Random) -> None:
        """Become what the platter holds."""
        unsynced = len(self.content) - self.synced
        if self.previous is not None and rng.random() < 0.5:
            self.content = bytearray(self.previous)
        elif unsynced and not self.poisoned:
            self._tear(rng, unsynced)
        else:
            del self.content[self.synced :]
        self.synced = len(self.content)
        self.previous = None
        self.poisoned = False

    def _tear(self, rng: random.Random, unsynced: int) -> None:
        kind = rng.randrange(4)
        if kind == 0:
            kept = 0
        elif kind == 1:
            kept = unsynced
        else:
            kept = rng.randrange(unsynced + 1)
        end = self.synced + kept
        del self.content[end:]
        if kind == 3 and kept:
            # The size was written, one sector of the data was not.
            start = max(self.synced, (end - 1) // SECTOR * SECTOR)
            self.content[start:end] = bytes(end - start)


class SimDisk:
    """A directory of a simulated disk. One object lives as long as its machine's platter does."""

    def __init__(
        self, fabric: Fabric, machine: Machine, label: str, settings: DiskSettings
    ) -> None:
        self._fabric = fabric
        self._machine = machine
        self._label = label
        self._rng = fabric.random(f"disk {label}")
        self._names: dict[str, _Inode] = {}
        self._durable: dict[str, _Inode] = {}
        # Changes of names since the last directory sync: (name, inode or None for gone).
        self._journal: list[list[tuple[str, _Inode | None]]] = []
        self._inodes = 0
        self.settings = settings
        self.limits: list[float] = []
        """Bytes that fit, the least of them counts; an append beyond writes what fits and fails
        with ENOSPC."""
        self.sync_fails = 0
        """Above 0, every sync fails with EIO."""
        self.slowdown = 0.0
        """Seconds that every sync takes longer."""
        self.hung: trio.Event | None = None
        """While set to an event, syncs wait for it."""
        self.syncs = 0

    # The Disk protocol, for one life of the process

    def opened_by(self, life: Life) -> LifeDisk:
        return LifeDisk(self, life)

    def names(self) -> list[str]:
        return sorted(self._names)

    def read(self, name: str) -> bytes:
        return bytes(self._inode(name).content)

    def _inode(self, name: str) -> _Inode:
        inode = self._names.get(name)
        if inode is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return inode

    def open_inode(self, name: str) -> _Inode:
        inode = self._names.get(name)
        if inode is None:
            self._inodes += 1
            inode = _Inode(self._inodes)
            self._change([(name, inode)])
        return inode

    def rename(self, old: str, new: str) -> None:
        inode = self._inode(old)
        if old != new:
            self._change([(new, inode), (old, None)])

    def delete(self, name: str) -> None:
        if name in self._names:
            self._change([(name, None)])

    def _change(self, changes: list[tuple[str, _Inode | None]]) -> None:
        _apply(self._names, changes)
        self._journal.append(changes)

    def append(self, inode: _Inode, data: bytes | bytearray | memoryview) -> None:
        room = min(self.limits) - self.used if self.limits else math.inf
        if len(data) > room:
            inode.content += bytes(data)[: max(0, int(room))]
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._label)
        inode.content += data

    @property
    def used(self) -> int:
        """Bytes in named files."""
        return sum(len(inode.content) for inode in self._names.values())

    async def sync(self, inode: _Inode | None, life: Life) -> None:
        """Make a file (or, for None, the names) durable, as they are at the time of the call."""
        size = len(inode.content) if inode is not None else len(self._journal)
        epoch = self._machine.boots
        await self._take_time()
        if not life.kernel_alive or epoch != self._machine.boots:
            raise OSError(errno.EIO, os.strerror(errno.EIO), self._label)
        if self.sync_fails:
            if inode is not None:
                inode.poisoned = True
            self._fabric.note(f"disk {self._label} sync fails")
            raise OSError(errno.EIO, os.strerror(errno.EIO), self._label)
        self.syncs += 1
        if inode is not None:
            inode.made_durable(size)
            self._fabric.note(f"disk {self._label} sync {inode.number} {size}")
        else:
            for changes in self._journal[:size]:
                _apply(self._durable, changes)
            del self._journal[:size]

    async def _take_time(self) -> None:
        low, high = self.settings.sync_seconds_min, self.settings.sync_seconds_max
        await trio.sleep(self._rng.uniform(low, high) + self.slowdown)
        while self.hung is not None:
            await self.hung.wait()

    # What the world does to it

    def lose_power(self) -> None:
        """Keep what is durable, and by chance some of what is not."""
        rng = self._rng
        kept = rng.randrange(len(self._journal) + 1) if self._journal else 0
        for changes in self._journal[:kept]:
            _apply(self._durable, changes)
        self._journal.clear()
        self._names = dict(self._durable)
        for inode in self._names.values():
            inode.lose_power(rng)
        state = " ".join(f"{name}:{len(inode.content)}" for name, inode in self._names.items())
        self._fabric.note(f"disk {self._label} after power loss {state}")

    def flip_bit(self, name: str, bit: int | None = None) -> int:
        """Turn one bit of a file over, at rest; which one (counted from the file's start)."""
        content = self._inode(name).content
        if bit is None:
            bit = self._rng.randrange(len(content) * 8)
        content[bit // 8] ^= 1 << bit % 8
        self._fabric.note(f"disk {self._label} flip {name} {bit}")
        return bit

    def misdirect(self, name: str) -> bool:
        """Write one of a file's sectors over another one; False where that changes nothing."""
        content = self._inode(name).content
        sectors = range(0, len(content) - SECTOR + 1, SECTOR)
        if len(sectors) < 2:
            return False
        source, target = self._rng.sample(sectors, 2)
        changed = content[source : source + SECTOR] != content[target : target + SECTOR]
        content[target : target + SECTOR] = content[source : source + SECTOR]
        self._fabric.note(f"disk {self._label} misdirect {name} {source} to {target}")
        return changed

    def wipe(self) -> None:
        """An empty directory, as from a new disk."""
        self._names.clear()
        self._durable.clear()
        self._journal.clear()
        self._fabric.note(f"disk {self._label} wiped")


def _apply(names: dict[str, _Inode], changes: list[tuple[str, _Inode | None]]) -> None:
    for name, inode in changes:
        if inode is None:
            names.pop(name, None)
        else:
            names[name] = inode


class SimFile:
    """An append-only file, opened in one life of the process; afterwards it writes nothing."""

    __slots__ = ("_closed", "_disk", "_inode", "_life")

    def __init__(self, disk: SimDisk, life: Life, inode: _Inode) -> None:
        self._disk = disk
        self._life = life
        self._inode = inode
        self._closed = False

    @property
    def size(self) -> int:
        return len(self._inode.content)

    def append(self, data: bytes | bytearray | memoryview) -> None:
        self._require_open()
        if self._life.alive:
            self._disk.append(self._inode, data)

    def begin_sync(self) -> None:
        """A simulated sync begins when it is waited for."""
        self._require_open()

    async def sync(self) -> None:
        self._require_open()
        await self._disk.sync(self._inode, self._life)

    def truncate(self, size: int) -> None:
        self._require_open()
        if self._life.alive:
            self._inode.truncate(size)

    def close(self) -> None:
        self._closed = True

    def _require_open(self) -> None:
        if self._closed:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))


class LifeDisk:
    """A directory as one life of the process holds it."""

    __slots__ = ("_disk", "_life")

    def __init__(self, disk: SimDisk, life: Life) -> None:
        self._disk = disk
        self._life = life

    @property
    def _writable(self) -> bool:
        current = CURRENT_LIFE.get()
        return self._life.alive and (current is None or current.alive)

    def names(self) -> list[str]:
        return self._disk.names()

    def read(self, name: str) -> bytes:
        return self._disk.read(name)

    def open_append(self, name: str) -> SimFile:
        if not self._writable:
            raise OSError(errno.EIO, os.strerror(errno.EIO), name)
        return SimFile(self._disk, self._life, self._disk.open_inode(name))

    async def replace(self, name: str, data: bytes) -> None:
        temporary = f"{name}.tmp"
        if temporary in self._disk.names():
            self.delete(temporary)
        file = self.open_append(temporary)
        file.append(data)
        await file.sync()
        self.rename(temporary, name)
        await self.sync_directory()

    def rename(self, old: str, new: str) -> None:
        if self._writable:
            self._disk.rename(old, new)

    def delete(self, name: str) -> None:
        if self._writable:
            self._disk.delete(name)

    async def sync_directory(self) -> None:
        await self._disk.sync(None, self._life)
