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

from raftkv.errors import SnapshotDamaged
from raftkv.host import Disk
from raftkv.raft.messages import Snapshot, SnapshotMeta

__all__ = ["is_snapshot", "name_of", "pack", "read", "unpack"]

MAGIC: Final = b"raftkvF1"
_CHECKSUM: Final = struct.Struct("<I")
HEADER: Final = len(MAGIC) + _CHECKSUM.size
SUFFIX: Final = ".snap"


def name_of(meta: SnapshotMeta) -> str:
    return f"{meta.term:016x}-{meta.index:016x}{SUFFIX}"


def is_snapshot(name: str) -> bool:
    return name.endswith(SUFFIX)


def pack(snapshot: Snapshot) -> bytes:
    meta = msgpack.packb(snapshot.meta)
    checksum = crc32(snapshot.data, crc32(meta))
    return b"".join((MAGIC, _CHECKSUM.pack(checksum), meta, snapshot.data))


def unpack(name: str, data: bytes) -> Snapshot:
    """Raises SnapshotDamaged."""
    if not data.startswith(MAGIC) or len(data) <= HEADER:
        raise SnapshotDamaged(f"{name} is not a snapshot file of this program")
    body = memoryview(data)[HEADER:]
    if crc32(body) != _CHECKSUM.unpack_from(data, len(MAGIC))[0]:
        raise SnapshotDamaged(f"{name} is damaged: its checksum does not match its contents")
    unpacker = msgpack.Unpacker(use_list=False, max_buffer_size=0)
    unpacker.feed(body[: 1 << 16])
    index, term, voters, learners = unpacker.unpack()
    meta = SnapshotMeta(index, term, voters, learners)
    return Snapshot(meta, bytes(body[unpacker.tell() :]))


def read(disk: Disk, meta: SnapshotMeta) -> Snapshot:
    """The snapshot that belongs to `meta`. Raises SnapshotDamaged, also where it is missing."""
    name = name_of(meta)
    try:
        data = disk.read(name)
    except FileNotFoundError:
        raise SnapshotDamaged(f"{name} is missing") from None
    snapshot = unpack(name, data)
    if snapshot.meta != meta:
        raise SnapshotDamaged(f"{name} holds another snapshot than its name says")
    return snapshot
