"""Backups: what a file of `raftkv snapshot save` holds, and a data directory made from it.

A backup is the state machine's own snapshot (`raftkv.mvcc.snapshot`), whose checksum covers all of
it; Raft's log, term and members are no part of it. So `restore` begins a new history: a log whose
first entry is the snapshot, a member with a new incarnation, and a lineage that tells the restored
cluster from the one that the backup was taken of, should some of its members still run.

A snapshot of etcd's (`etcd_backup`) is as good a backup as one of ours.

Every member of a cluster is restored from the same file with the same options: what they begin
with must be equal.
"""

from __future__ import annotations

from typing import Final
from zlib import crc32

import attrs

from raftkv.errors import InvalidRequest
from raftkv.host import Disk
from raftkv.mvcc.machine import Machine
from raftkv.mvcc.members import MemberInfo, MemberTable
from raftkv.raft.messages import HardState, Snapshot, SnapshotMeta
from raftkv.storage.etcd_backup import from_etcd, is_etcd
from raftkv.storage.replay import Identity, is_segment
from raftkv.storage.wal import Wal

__all__ = ["BackupStatus", "describe", "machine_of", "restore"]

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
    machine = machine_of(data)
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


def machine_of(data: bytes) -> Machine:
    """The state in a backup, ours or a snapshot of etcd's. Raises SnapshotDamaged."""
    return from_etcd(data) if is_etcd(data) else Machine.restore(data)


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
    machine = machine_of(data)
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
