"""Snapshots and the log: which one is believed, and what of the log may go."""

from __future__ import annotations

import contextlib
import random

import pytest

from raftkv.errors import SnapshotDamaged, WalDamaged
from raftkv.raft.messages import HardState
from raftkv.storage.replay import segment_name
from raftkv.storage.verify import verify
from raftkv.storage.wal import Wal
from tests.storage.fake_disk import Crashed, FakeDisk, random_tear
from tests.storage.test_wal import ME, entry, filled, reopen, snapshot


async def test_snapshot_and_release() -> None:
    disk = await filled(40, segment_bytes=400)
    wal, _ = await Wal.open(disk, segment_bytes=400)
    segments = len(disk.names())
    await wal.release(40)
    assert len(disk.names()) == segments, "nothing stands for these entries yet"
    await wal.save_snapshot(snapshot(30))
    await wal.release(35)
    assert len(disk.names()) < segments
    wal.append(HardState(1, 1, 40), [entry(41)])
    await wal.sync()
    found = await reopen(disk)
    assert found.snapshot_meta == snapshot(30).meta
    assert found.snapshot_data == b"state"
    assert found.entries[0].index <= 31
    assert found.entries[-1].index == 41


async def test_wal_not_purged_while_needed() -> None:
    disk = await filled(40, segment_bytes=400)
    wal, _ = await Wal.open(disk, segment_bytes=400)
    for index in (10, 20, 30):
        await wal.save_snapshot(snapshot(index))
        await wal.release(1000)
        found = await reopen(disk.after_crash())
        assert found.snapshot_meta == snapshot(index).meta
        assert found.entries[0].index <= index + 1
        assert found.entries[-1].index == 40
    assert sum(name.endswith(".snap") for name in disk.names()) == 2


async def test_snapshot_from_the_leader_replaces_a_log_without_its_end() -> None:
    for existing, kept in ((5, False), (50, True)):
        disk = await filled(existing)
        wal, _ = await Wal.open(disk)
        wal.append(HardState(4, 0, 20), [])
        await wal.save_snapshot(snapshot(20, 1))
        assert wal.last_index == (50 if kept else 20)
        wal.append(None, [entry(wal.last_index + 1, 4)])
        await wal.sync()
        found = await reopen(disk)
        assert found.hard_state == HardState(4, 0, 20)
        assert found.snapshot_meta == snapshot(20).meta
        assert found.entries[0].index == (1 if kept else 21)
        assert found.entries[-1].term == 4


async def test_snapshot_over_a_log_of_another_term_drops_it() -> None:
    disk = await filled(50)
    wal, _ = await Wal.open(disk, segment_bytes=200)
    wal.append(HardState(4, 0, 49), [])
    await wal.save_snapshot(snapshot(50, 3))
    assert wal.last_index == 50
    for index in range(51, 60):
        wal.append(HardState(4, 0, index - 1), [entry(index, 4)])
        await wal.sync()
    await wal.release(50)
    found = await reopen(disk)
    assert [e.index for e in found.entries] == list(range(51, 60))


async def test_valid_snapshot_rule() -> None:
    """A snapshot file without its record in the log does not count, and is deleted."""
    disk = await filled(5)
    wal, _ = await Wal.open(disk)
    disk.fail_at = len(disk.steps) + 4
    with pytest.raises(Crashed, match="append"):
        await wal.save_snapshot(snapshot(4))
    left = disk.after_crash()
    assert any(name.endswith(".snap") for name in left.names())
    found = await reopen(left)
    assert found.snapshot_meta is None
    assert len(found.entries) == 5
    assert not any(name.endswith(".snap") for name in left.names())


async def test_db_snapshot_mismatch() -> None:
    """A crash at every step of saving: before the record the old state, after it the new one."""
    for fail_at in range(7):
        disk = await filled(5)
        wal, _ = await Wal.open(disk)
        wal.append(HardState(2, 0, 9), [])
        disk.fail_at = len(disk.steps) + fail_at
        with contextlib.suppress(Crashed):
            await wal.save_snapshot(snapshot(9, 2, b"x" * 2000))
        found = await reopen(disk.after_crash())
        if found.snapshot_meta is None:
            assert found.last_index == 5
            assert found.hard_state.term == 1
        else:
            assert found.snapshot_meta.index == 9
            assert found.snapshot_data == b"x" * 2000
            assert found.last_index == 9
            assert found.hard_state == HardState(2, 0, 9)


async def test_two_snapshots_fast() -> None:
    disk = await filled(5)
    wal, _ = await Wal.open(disk)
    wal.append(HardState(2, 0, 9), [])
    await wal.save_snapshot(snapshot(9, 2, b"nine"))
    wal.append(HardState(2, 0, 19), [])
    await wal.save_snapshot(snapshot(19, 2, b"nineteen"))
    found = await reopen(disk.after_crash())
    assert found.snapshot_data == b"nineteen"
    assert found.last_index == 19


def damage(disk: FakeDisk, name: str, place: int = -1) -> None:
    disk.files[name].data[place] ^= 1


async def test_older_snapshot_fallback_checks_gap() -> None:
    disk = await filled(40, segment_bytes=400)
    wal, _ = await Wal.open(disk, segment_bytes=400)
    await wal.save_snapshot(snapshot(10, data=b"ten"))
    await wal.release(10)
    await wal.save_snapshot(snapshot(30, data=b"thirty"))
    newest = next(name for name in disk.names() if name.endswith(f"{30:016x}.snap"))

    covered = disk.copy()
    damage(covered, newest)
    found = await reopen(covered)
    assert found.snapshot_data == b"ten"
    assert found.entries[0].index <= 11
    assert found.entries[-1].index == 40
    assert "is damaged" in found.warnings[0]

    await wal.release(30)
    damage(disk, newest)
    with pytest.raises(SnapshotDamaged, match="does not reach back"):
        await reopen(disk)
    assert not verify(disk).ok


async def test_snapshot_integrity() -> None:
    disk = FakeDisk()
    wal, _ = await Wal.open(disk, ME)
    wal.append(HardState(1, 0, 7), [])
    await wal.save_snapshot(snapshot(7))
    name = next(name for name in disk.names() if name.endswith(".snap"))
    size = len(disk.read(name))
    for place in range(size):
        flipped = disk.copy()
        damage(flipped, name, place)
        with pytest.raises(SnapshotDamaged):
            await reopen(flipped)
    lost = disk.copy()
    lost.delete(name)
    with pytest.raises(SnapshotDamaged, match="is missing"):
        await reopen(lost)


async def test_snapshots_without_a_log_are_refused() -> None:
    disk = FakeDisk()
    wal, _ = await Wal.open(disk, ME)
    await wal.save_snapshot(snapshot(7))
    disk.delete(segment_name(1))
    with pytest.raises(WalDamaged, match="their log is missing"):
        await reopen(disk)


async def test_crash_in_defrag() -> None:
    """etcd#14685: there is no defragmentation; what takes its place, a snapshot, its record and the
    release of the log before it, is cut off at every step, and the log goes on from there."""

    async def shrink(disk: FakeDisk) -> None:
        wal, found = await Wal.open(disk, segment_bytes=400)
        for index in (20, 38):
            if found.snapshot_meta is None or found.snapshot_meta.index < index:
                await wal.save_snapshot(snapshot(index))
            await wal.release(index)

    whole = await filled(40, segment_bytes=400)
    untouched = whole.copy()
    await shrink(whole)
    for fail_at in range(len(whole.steps)):
        disk = untouched.copy()
        disk.fail_at = fail_at
        with contextlib.suppress(Crashed):
            await shrink(disk)
        for seed in range(3):
            left = disk.after_crash(random_tear(random.Random(seed)) if seed else None)
            found = await reopen(left)
            assert found.last_index == 40
            behind = found.snapshot_meta.index if found.snapshot_meta else 0
            first = found.entries[0].index if found.entries else 41
            assert first <= behind + 1
            assert found.entries == [entry(index) for index in range(first, 41)]
            await shrink(left)
            assert (await reopen(left)).snapshot_meta == snapshot(38).meta


async def test_release_that_a_crash_left_half_done() -> None:
    """Deletions that did not all reach the disk, in whatever order, are no gap that matters."""
    disk = await filled(40, segment_bytes=400)
    wal, _ = await Wal.open(disk, segment_bytes=400)
    await wal.save_snapshot(snapshot(38))
    before = disk.copy()
    await wal.release(38)
    gone = [name for name in before.names() if name not in disk.names()]
    assert len(gone) > 3
    for back in gone[:-1]:
        left = disk.copy()
        left.files[back] = before.files[back]
        found = await reopen(left)
        assert found.snapshot_meta == snapshot(38).meta
        assert back not in left.names()
