"""The state as bytes: what a snapshot holds, and how it is known to be whole.

A snapshot is a base and a log: the pairs as they were just before the compacted revision, then
the events of every revision since, pairs only. Loading replays the log over the base, which
brings back history, tombstones and previous values without storing any of them. What garbage
`sweep` has not yet freed is not in it, so equal states give equal bytes.

    magic, 8 bytes | CRC-32 of the rest, 4 bytes big-endian | msgpack of
    [revision, compact_revision, digest, base pairs, [[pairs of a revision]...], leases]
    lease: [id, ttl, remaining]; which keys hang on it the live pairs tell
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Final
from zlib import crc32

import msgpack

from raftkv.errors import SnapshotDamaged
from raftkv.mvcc.leases import Lease, LeaseTable
from raftkv.mvcc.store import Store

__all__ = ["MAGIC", "checksum", "pack", "unpack"]

MAGIC: Final = b"raftkvS1"
_CHECKSUM: Final = struct.Struct(">I")
HEADER: Final = len(MAGIC) + _CHECKSUM.size
PAIRS_AT_ONCE: Final = 1000


def _parts(store: Store, leases: LeaseTable) -> Iterator[bytes]:
    """The msgpack document in pieces, so that it never exists as Python objects as a whole."""
    packer = msgpack.Packer(autoreset=True)
    log = store.events(store.compact_revision, store.revision + 1)
    base = store.base()
    yield packer.pack_array_header(6)
    for number in (store.revision, store.compact_revision, store.digest):
        yield packer.pack(number)
    yield packer.pack_array_header(len(base))
    for start in range(0, len(base), PAIRS_AT_ONCE):
        yield b"".join([packer.pack(pair) for pair in base[start : start + PAIRS_AT_ONCE]])
    yield packer.pack_array_header(len(log))
    for events in log:
        yield packer.pack([pair for _, pair, _ in events])
    yield packer.pack([[lease.id, lease.ttl, lease.remaining] for lease in leases])


def pack(store: Store, leases: LeaseTable) -> bytes:
    body = b"".join(_parts(store, leases))
    return b"".join((MAGIC, _CHECKSUM.pack(crc32(body)), body))


def checksum(store: Store, leases: LeaseTable) -> int:
    """The CRC-32 that `pack` would write."""
    crc = 0
    for part in _parts(store, leases):
        crc = crc32(part, crc)
    return crc


def unpack(data: bytes) -> tuple[Store, LeaseTable]:
    """Raises SnapshotDamaged, before anything of the contents is believed."""
    if not data.startswith(MAGIC) or len(data) < HEADER:
        raise SnapshotDamaged("this is not a snapshot: it does not begin with " + MAGIC.decode())
    body = memoryview(data)[HEADER:]
    (expected,) = _CHECKSUM.unpack_from(data, len(MAGIC))
    if crc32(body) != expected:
        raise SnapshotDamaged
    contents: tuple[Any, ...] = msgpack.unpackb(body, use_list=False)
    revision, compact_revision, digest, base, log, granted = contents
    store = Store.load(revision, compact_revision, digest, list(base), log)
    leases = LeaseTable()
    for lease_id, ttl, remaining in granted:
        leases.add(Lease(lease_id, ttl, remaining))
    for key in store.index.live_keys(b"\0", b"\0"):
        held = store.index.live[key][5]
        if held:
            leases.attach(key, held)
    return store, leases
