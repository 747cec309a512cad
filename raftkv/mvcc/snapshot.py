"""The state as bytes: what a snapshot holds, and how it is known to be whole.

A snapshot is a base and a log: the pairs as they were just before the compacted revision, then
the events of every revision since, pairs only. Loading replays the log over the base, which
brings back history, tombstones and previous values without storing any of them. What garbage
`sweep` has not yet freed is not in it, so equal states give equal bytes.

    magic, 8 bytes | msgpack objects | CRC-32 of the objects, 4 bytes big-endian
    objects: [revision, compact_revision, digest, leases, members], lease: [id, ttl, remaining],
             members: as `MemberTable.dump` gives them
             arrays of base pairs, an empty array
             arrays of revisions, each an array of its pairs, an empty array
    Which keys hang on a lease the live pairs tell.

`parts` gives a snapshot piece by piece, and commands may be applied between two pieces: all its
pieces show the state at the moment of the first one, because the store keeps every version for as
long (`Store.hold`). So a large store is written down without anybody waiting for it.
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterator
from typing import Any, Final
from zlib import crc32

import msgpack

from raftkv.errors import SnapshotDamaged
from raftkv.mvcc.commands import Kv
from raftkv.mvcc.leases import Lease, LeaseTable
from raftkv.mvcc.members import MemberTable
from raftkv.mvcc.store import Store

__all__ = ["MAGIC", "checksum", "hash_kv", "parts", "unpack"]

MAGIC: Final = b"raftkvS3"
_CHECKSUM: Final = struct.Struct(">I")
PIECE: Final = 1000
"""Keys or revisions per piece: about a millisecond."""
END: Final = b"\x90"
"""An empty array."""


def parts(store: Store, leases: LeaseTable, members: MemberTable) -> Generator[bytes, None, None]:
    """The state when the first piece is taken. Close the iterator if it is given up."""
    head, crc = MAGIC, 0
    for piece in _pieces(store, leases, members):
        crc = crc32(piece, crc)
        yield head + piece
        head = b""
    yield _CHECKSUM.pack(crc)


def _pieces(store: Store, leases: LeaseTable, members: MemberTable) -> Iterator[bytes]:
    pack = msgpack.Packer().pack
    with store.hold() as held:
        granted = [[lease.id, lease.ttl, lease.remaining] for lease in leases]
        bounds = [held.revision, held.compact_revision, store.digest]
        yield pack([*bounds, granted, members.dump()])
        # Keys that came meanwhile shift the pieces of `base`, so they are cut anew: equal states
        # give equal bytes. An empty piece is still a pause.
        gathered: list[Kv] = []
        for pairs in held.base(PIECE):
            gathered += pairs
            full, gathered = gathered[:PIECE], gathered[PIECE:]
            if len(full) < PIECE:
                gathered = full
                yield b""
            else:
                yield pack(full)
        if gathered:
            yield pack(gathered)
        yield END
        for revisions in held.log(PIECE):
            yield pack([[pair for _, pair, _ in events] for events in revisions])
        yield END


def checksum(store: Store, leases: LeaseTable, members: MemberTable) -> int:
    """The CRC-32 that ends the snapshot."""
    crc = 0
    for piece in _pieces(store, leases, members):
        crc = crc32(piece, crc)
    return crc


def hash_kv(store: Store, revision: int = 0) -> Generator[None, None, tuple[int, int, int]]:
    """(revision, compacted revision, CRC-32) over keys, values and history up to a revision.

    Members that are sound agree on it at equal revisions and equal compacted revisions. Returned
    by the generator's end; each step is a millisecond, and commands may be applied in between.
    Raises Compacted, FutureRevision.
    """
    store.check_revision(revision)
    pack = msgpack.Packer().pack
    with store.hold() as held:
        held.revision = revision or held.revision
        crc = 0
        for pairs in held.base(PIECE):
            for pair in pairs:
                crc = crc32(pack(pair), crc)
            yield
        for revisions in held.log(PIECE):
            for events in revisions:
                for _, pair, _ in events:
                    crc = crc32(pack(pair), crc)
            yield
        return held.revision, held.compact_revision, crc


def unpack(data: bytes) -> tuple[Store, LeaseTable, MemberTable]:
    """Raises SnapshotDamaged, before anything of the contents is believed."""
    if not data.startswith(MAGIC) or len(data) < len(MAGIC) + _CHECKSUM.size:
        raise SnapshotDamaged("this is not a snapshot: it does not begin with " + MAGIC.decode())
    body = memoryview(data)[len(MAGIC) : -_CHECKSUM.size]
    if crc32(body) != _CHECKSUM.unpack_from(data, len(data) - _CHECKSUM.size)[0]:
        raise SnapshotDamaged
    unpacker = msgpack.Unpacker(use_list=False, max_buffer_size=len(data))
    unpacker.feed(body)
    revision, compact_revision, digest, granted, members = unpacker.unpack()
    base = _joined(unpacker)
    log = _joined(unpacker)
    store = Store.load(revision, compact_revision, digest, base, log)
    leases = LeaseTable()
    for lease_id, ttl, remaining in granted:
        leases.add(Lease(lease_id, ttl, remaining))
    for key, pair in sorted(store.index.live.items()):
        if pair[5]:
            leases.attach(key, pair[5])
    return store, leases, MemberTable.load(members)


def _joined(unpacker: Any) -> list[Any]:
    """The contents of the arrays up to the empty one."""
    found: list[Any] = []
    while array := unpacker.unpack():
        found += array
    return found
