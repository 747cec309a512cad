"""Backups: what a file of `raftkv snapshot save` holds, and a data directory made from it.

A backup is the state machine's own snapshot (`raftkv.mvcc.snapshot`), whose checksum covers all of
it; Raft's log, term and members are no part of it. So `restore` begins a new history: a log whose
first entry is the snapshot, a member with a new incarnation, and a lineage that tells the restored
cluster from the one that the backup was taken of, should some of its members still run.

Every member of a cluster is restored from the same file with the same options: what they begin
with must be equal.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final
from zlib import crc32

import attrs

from raftkv.errors import InvalidRequest, SnapshotDamaged
from raftkv.host import Disk
from raftkv.mvcc.machine import Machine
from raftkv.mvcc.members import MemberInfo, MemberTable
from raftkv.mvcc.snapshot import MAGIC, is_whole
from raftkv.raft.messages import HardState, Snapshot, SnapshotMeta
from raftkv.storage.replay import Identity, is_segment
from raftkv.storage.wal import Wal

__all__ = ["BackupStatus", "describe", "restore", "unframed"]

BLOCK: Final = 512
DIGEST: Final = 32
CHECKSUM: Final = 4
FIRST_INDEX: Final = 1
FIRST_TERM: Final = 1


@attrs.frozen
class BackupStatus:
    """bytes: of keys and values, over all revisions kept; hash: as `raftkv hash` prints it."""

    revision: int
    compact_revision: int
    keys: int
    bytes: int
    leases: int
    hash: int
    members: tuple[MemberInfo, ...]


def describe(data: bytes) -> BackupStatus:
    """What a backup holds. Raises SnapshotDamaged."""
    machine = Machine.restore(unframed(data))
    return BackupStatus(
        revision=machine.revision,
        compact_revision=machine.compact_revision,
        keys=len(machine.store.index.live),
        bytes=machine.size,
        leases=len(machine.leases),
        hash=_hash(machine),
        members=tuple(machine.members),
    )


def _hash(machine: Machine) -> int:
    steps = machine.hash_kv()
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: int = end.value[2]
            return found


def unframed(data: bytes) -> bytes:
    """A backup as `raftkv snapshot save` writes it, of one that may have come by etcd's clients.

    They save whole blocks of zeros behind it, and a SHA-256 of it all. Raises SnapshotDamaged.
    """
    if data[: len(MAGIC)] != MAGIC or len(data) % BLOCK != DIGEST:
        return data
    body, digest = data[:-DIGEST], data[-DIGEST:]
    if sha256(body).digest() != digest:
        return data  # a backup whose length happens to be like that; it has its own checksum
    least = len(body.rstrip(b"\0"))
    for end in range(least, least + CHECKSUM + 1):  # its own checksum may end with zeros
        if end <= len(body) and is_whole(body[:end]):
            return body[:end]
    raise SnapshotDamaged


async def restore(
    disk: Disk, data: bytes, identity: Identity, voters: tuple[int, ...], bump_revision: int
) -> Machine:
    """Make an empty directory the data directory of one of `voters`; the state it begins with.

    bump_revision: how far the revisions jump ahead. Everything before is then compacted, so that
    no revision is used twice for different contents, and watches from before the backup end with
    Compacted instead of silence. 0 keeps revisions and history.

    Raises SnapshotDamaged, InvalidRequest (the directory is not empty), StorageFailed.
    """
    if any(is_segment(name) for name in disk.names()):
        raise InvalidRequest("there is a log already: restore makes a new data directory")
    assert identity.member in voters
    data = unframed(data)
    machine = Machine.restore(data)
    seed = b"%d,%d,%d" % (crc32(data), bump_revision, identity.cluster)
    machine.members = MemberTable(lineage=crc32(seed) or 1)
    if bump_revision:
        machine.bump_revision(bump_revision)
    meta = SnapshotMeta(FIRST_INDEX, FIRST_TERM, tuple(sorted(voters)), ())
    wal, _ = await Wal.open(disk, identity)
    try:
        wal.append(HardState(FIRST_TERM, 0, 0), ())
        await wal.save_snapshot(Snapshot(meta, machine.snapshot()))
    finally:
        wal.close()
    return machine
