"""Snapshot files: one state machine each, whole or not at all.

    magic 8 | CRC-32 of the rest, 4 bytes little-endian | msgpack of the meta | data

A file is written atomically (`Disk.replace`), but it counts only once the log says so: without
its record there, it is the leftover of a crash and is deleted at the next start.
"""

from __future__ import annotations

import struct
from typing import Final
from zlib import crc32

import msgpack
import trio

from raftkv.errors import SnapshotDamaged
from raftkv.host import Disk
from raftkv.raft.messages import Snapshot, SnapshotMeta

__all__ = ["is_snapshot", "load", "name_of", "pack", "read"]

MAGIC: Final = b"raftkvF1"
_CHECKSUM: Final = struct.Struct("<I")
HEADER: Final = len(MAGIC) + _CHECKSUM.size
SUFFIX: Final = ".snap"
PIECE_BYTES: Final = 1 << 20
"""Checksummed at once: a millisecond."""


def name_of(meta: SnapshotMeta) -> str:
    return f"{meta.term:016x}-{meta.index:016x}{SUFFIX}"


def is_snapshot(name: str) -> bool:
    return name.endswith(SUFFIX)


async def pack(snapshot: Snapshot) -> bytes:
    """The contents of its file."""
    meta = msgpack.packb(snapshot.meta)
    checksum = await _checksum(memoryview(snapshot.data), crc32(meta))
    return b"".join((MAGIC, _CHECKSUM.pack(checksum), meta, snapshot.data))


def read(disk: Disk, meta: SnapshotMeta) -> Snapshot:
    """The snapshot that belongs to `meta`. Raises SnapshotDamaged, also where it is missing."""
    data = _contents(disk, meta)
    return _unpack(meta, data, crc32(memoryview(data)[HEADER:]))


async def load(disk: Disk, meta: SnapshotMeta) -> Snapshot:
    """The same beside other work."""
    data = _contents(disk, meta)
    return _unpack(meta, data, await _checksum(memoryview(data)[HEADER:], 0))


async def _checksum(data: memoryview, checksum: int) -> int:
    """A piece at a time, for a large one would keep everybody waiting."""
    for start in range(0, len(data), PIECE_BYTES):
        checksum = crc32(data[start : start + PIECE_BYTES], checksum)
        await trio.lowlevel.checkpoint()
    return checksum


def _contents(disk: Disk, meta: SnapshotMeta) -> bytes:
    name = name_of(meta)
    try:
        data = disk.read(name)
    except FileNotFoundError:
        raise SnapshotDamaged(f"{name} is missing") from None
    if not data.startswith(MAGIC) or len(data) <= HEADER:
        raise SnapshotDamaged(f"{name} is not a snapshot file of this program")
    return data


def _unpack(meta: SnapshotMeta, data: bytes, checksum: int) -> Snapshot:
    name = name_of(meta)
    if checksum != _CHECKSUM.unpack_from(data, len(MAGIC))[0]:
        raise SnapshotDamaged(f"{name} is damaged: its checksum does not match its contents")
    body = memoryview(data)[HEADER:]
    unpacker = msgpack.Unpacker(use_list=False, max_buffer_size=0)
    unpacker.feed(body[: 1 << 16])
    index, term, voters, learners = unpacker.unpack()
    if SnapshotMeta(index, term, voters, learners) != meta:
        raise SnapshotDamaged(f"{name} holds another snapshot than its name says")
    return Snapshot(meta, bytes(body[unpacker.tell() :]))
