"""Backups as etcd's own snapshots, there and back: what goes from here to etcd, and from there.

An etcd snapshot is its database (`bolt`) with a SHA-256 behind it. The bucket `key` holds every
version by revision, `lease` the leases, `meta` how far history was compacted; members and users of
the cluster it came from are no part of a backup, and of no use to another cluster.

Pure: bytes to state, state to bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Final
from zlib import crc32

from raftkv.errors import SnapshotDamaged
from raftkv.mvcc.commands import Kv
from raftkv.mvcc.leases import Lease, LeaseTable
from raftkv.mvcc.machine import Machine
from raftkv.mvcc.store import REVISION_AT_START, Store
from raftkv.storage.bolt import is_bolt, read_bolt, write_bolt

__all__ = ["from_etcd", "is_etcd", "to_etcd"]

DIGEST_BYTES: Final = 32
BLOCK: Final = 512
REVISION: Final = struct.Struct(">QcQ")  # revision, "_", number in it
TOMBSTONE: Final = b"t"
INTEGER: Final = struct.Struct(">Q")
COMPACTED: Final = (b"scheduledCompactRev", b"finishedCompactRev")
EMPTY_BUCKETS: Final = (
    b"alarm",
    b"auth",
    b"authRoles",
    b"authUsers",
    b"cluster",
    b"members",
    b"members_removed",
)
PIECE: Final = 10_000
GAP_MAX: Final = 1_000_000


def is_etcd(data: bytes) -> bool:
    return is_bolt(data)


# --- there --------------------------------------------------------------------------------------


def to_etcd(machine: Machine) -> bytes:
    """A snapshot that etcd restores: keys with their history, leases, revisions."""
    meta = [(b"consistent_index", INTEGER.pack(1))]
    if machine.compact_revision:
        compacted = REVISION.pack(machine.compact_revision, b"_", 0)
        meta = sorted([*meta, *((name, compacted) for name in COMPACTED)])
    leases = sorted((INTEGER.pack(each.id), _lease_message(each)) for each in machine.leases)
    database = write_bolt(
        {
            **{name: [] for name in EMPTY_BUCKETS},
            b"key": list(_rows(machine.store)),
            b"lease": leases,
            b"meta": meta,
        }
    )
    return database + sha256(database).digest()


def _rows(store: Store) -> Iterator[tuple[bytes, bytes]]:
    """Every version that is kept, in order of revision."""
    with store.hold() as held:
        base = [pair for piece in held.base(PIECE) for pair in piece]
        base.sort(key=lambda pair: pair[3])
        last = number = 0
        for pair in base:
            number = number + 1 if pair[3] == last else 0
            last = pair[3]
            yield REVISION.pack(last, b"_", number), _pair_message(pair)
        for piece in held.log(PIECE):
            for events in piece:
                for number, (kind, pair, _) in enumerate(events):
                    revision = REVISION.pack(pair[3], b"_", number)
                    if kind == "put":
                        yield revision, _pair_message(pair)
                    else:
                        yield revision + TOMBSTONE, _field(1, pair[0])


def _pair_message(pair: Kv) -> bytes:
    key, value, created, modified, version, lease = pair
    fields = _field(1, key) + _number(2, created) + _number(3, modified) + _number(4, version)
    return fields + _field(5, value) + _number(6, lease)


def _lease_message(lease: Lease) -> bytes:
    return _number(1, lease.id) + _number(2, lease.ttl) + _number(3, lease.remaining)


# --- and back -----------------------------------------------------------------------------------


def from_etcd(data: bytes) -> Machine:
    """The state in a snapshot of etcd, with or without the SHA-256 behind it.

    Raises SnapshotDamaged.
    """
    if len(data) % BLOCK == DIGEST_BYTES:
        data, digest = data[:-DIGEST_BYTES], data[-DIGEST_BYTES:]
        if sha256(data).digest() != digest:
            raise SnapshotDamaged
    buckets = read_bolt(data)
    if b"key" not in buckets:
        raise SnapshotDamaged("this database is none of etcd's: it has no bucket of keys")
    meta = dict(buckets.get(b"meta", ()))
    compacted = max(_revision(meta[name])[0] if name in meta else 0 for name in COMPACTED)
    machine = Machine()
    try:
        machine.store = _store(buckets[b"key"], compacted, crc32(data))
    except KeyError as error:
        raise SnapshotDamaged(f"the database deletes a key that it lacks: {error}") from error
    machine.leases = _leases(buckets.get(b"lease", ()), machine.store)
    return machine


def _revision(data: bytes) -> tuple[int, bool]:
    """The revision, and whether it deleted."""
    if len(data) not in (REVISION.size, REVISION.size + len(TOMBSTONE)):
        raise SnapshotDamaged("the database has a revision that is none")
    revision: int = REVISION.unpack_from(data)[0]
    return revision, data[REVISION.size :] == TOMBSTONE


def _store(rows: Iterable[tuple[bytes, bytes]], compacted: int, digest: int) -> Store:
    base: dict[bytes, Kv] = {}
    log: list[list[Kv]] = []
    first = max(compacted, REVISION_AT_START + 1)
    for name, message in rows:
        revision, deleted = _revision(name)
        pair = _pair(message, revision, deleted)
        if revision < first:
            if deleted:
                base.pop(pair[0], None)
            else:
                base[pair[0]] = pair
            continue
        missing = revision - first - len(log) + 1
        if missing > GAP_MAX:
            raise SnapshotDamaged(f"the database lacks the history before revision {revision}")
        log += [[] for _ in range(missing)]
        log[-1].append(pair)
        if revision == compacted:
            base.pop(pair[0], None)
    if compacted == first and not log:
        log.append([])
    last = first + len(log) - 1
    return Store.load(last, compacted, digest, sorted(base.values()), log)


def _pair(message: bytes, revision: int, deleted: bool) -> Kv:
    fields = _fields(message)
    key, value = fields.get(1, b""), fields.get(5, b"")
    if not isinstance(key, bytes) or not isinstance(value, bytes):
        raise SnapshotDamaged("the database has a key that is none")
    if deleted:
        return key, b"", 0, revision, 0, 0
    created, version, lease = _integer(fields, 2), _integer(fields, 4), _integer(fields, 6)
    return key, value, created, revision, version, lease


def _leases(rows: Iterable[tuple[bytes, bytes]], store: Store) -> LeaseTable:
    table = LeaseTable()
    for _, message in rows:
        fields = _fields(message)
        lease = Lease(_integer(fields, 1), _integer(fields, 2), max(_integer(fields, 3), 0))
        if lease.id in table:
            raise SnapshotDamaged(f"the database has the lease {lease.id} twice")
        table.add(lease)
    for key, pair in sorted(store.index.live.items()):
        if pair[5] and pair[5] not in table:
            raise SnapshotDamaged(f"the key {key!r:.60} has a lease that the database lacks")
        if pair[5]:
            table.attach(key, pair[5])
    return table


# --- protobuf, as far as these messages need it -------------------------------------------------


def _varint(value: int) -> bytes:
    value &= 0xFFFFFFFFFFFFFFFF
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value) if value else b""


def _field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value if value else b""


def _fields(message: bytes) -> dict[int, int | bytes]:
    """Numbers and byte strings by field."""
    found: dict[int, int | bytes] = {}
    at = 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        value, at = _read_varint(message, at)
        if tag & 7 == 2:
            found[tag >> 3] = message[at : at + value]
            at += value
        elif tag & 7 == 0:
            found[tag >> 3] = value
        else:
            raise SnapshotDamaged("the database has a message that is none of etcd's")
    return found


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message) and shift < 70:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise SnapshotDamaged("the database has a message that ends too early")


def _integer(fields: dict[int, int | bytes], number: int) -> int:
    value = fields.get(number, 0)
    if isinstance(value, bytes):
        raise SnapshotDamaged("the database has a number that is none")
    return value - (1 << 64) if value >> 63 else value
