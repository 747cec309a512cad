"""The log keeps what it promised, cuts what it never promised, and refuses what is damaged."""

from __future__ import annotations

import contextlib
import random

import pytest

from raftkv.errors import StorageFailed, WalDamaged, WrongCluster
from raftkv.raft.messages import Entry, HardState, Snapshot, SnapshotMeta
from raftkv.storage.records import Record, scan
from raftkv.storage.replay import Identity, Recovered, segment_name
from raftkv.storage.verify import verify
from raftkv.storage.wal import Wal
from tests.storage.fake_disk import Crashed, FakeDisk, random_tear

ME = Identity(7, 1, 99)


def entry(index: int, term: int = 1, size: int = 20) -> Entry:
    return Entry(index, term, 0, bytes([index % 251]) * size)


def snapshot(index: int, term: int = 1, data: bytes = b"state") -> Snapshot:
    return Snapshot(SnapshotMeta(index, term, (1, 2, 3), ()), data)


async def filled(count: int, segment_bytes: int = 1 << 20) -> FakeDisk:
    disk = FakeDisk()
    wal, _ = await Wal.open(disk, ME, segment_bytes=segment_bytes)
    for index in range(1, count + 1):
        wal.append(HardState(1, 1, index - 1), [entry(index)])
        await wal.sync()
    wal.close()
    return disk


async def reopen(disk: FakeDisk) -> Recovered:
    wal, found = await Wal.open(disk)
    wal.close()
    return found


async def test_new_log_is_empty_and_has_an_identity() -> None:
    disk = FakeDisk()
    wal, found = await Wal.open(disk, ME)
    assert found.hard_state == HardState()
    assert found.entries == []
    assert found.snapshot_meta is None
    assert wal.identity == ME
    wal.close()
    assert (await reopen(disk)).identity == ME


async def test_hardstate_survives() -> None:
    disk = FakeDisk()
    wal, _ = await Wal.open(disk, ME)
    wal.append(HardState(5, 3, 0), [])
    await wal.sync()
    found = await reopen(disk.after_crash())
    assert found.hard_state == HardState(5, 3, 0)


async def test_entries_come_back_and_overwritten_ones_do_not() -> None:
    disk = FakeDisk()
    wal, _ = await Wal.open(disk, ME)
    wal.append(HardState(1, 1, 0), [entry(1), entry(2), entry(3)])
    await wal.sync()
    wal.append(HardState(2, 0, 1), [entry(2, 2)])
    await wal.sync()
    found = await reopen(disk)
    assert found.entries == [entry(1), entry(2, 2)]
    assert found.hard_state == HardState(2, 0, 1)


async def test_pending_entries_may_be_replaced_before_the_sync() -> None:
    disk = FakeDisk()
    wal, _ = await Wal.open(disk, ME)
    wal.append(HardState(1, 1, 0), [entry(1), entry(2), entry(3)])
    wal.append(HardState(2, 1, 0), [entry(2, 2), entry(3, 2)])
    wal.append(None, [entry(4, 2)])
    assert wal.last_index == 4
    await wal.sync()
    assert (await reopen(disk)).entries == [entry(1), entry(2, 2), entry(3, 2), entry(4, 2)]


async def test_one_batch_is_one_append_and_one_sync() -> None:
    disk = FakeDisk()
    wal, _ = await Wal.open(disk, ME)
    disk.steps.clear()
    wal.append(HardState(1, 1, 0), [entry(i) for i in range(1, 100)])
    wal.append(None, [entry(i) for i in range(100, 200)])
    await wal.sync()
    await wal.sync()
    assert disk.steps == ["append", "sync", "synced"]


async def test_log_of_another_cluster_is_refused() -> None:
    disk = await filled(1)
    with pytest.raises(WrongCluster, match="cluster 7, not 8"):
        await Wal.open(disk, Identity(8, 1, 0))
    with pytest.raises(WrongCluster, match="member 1, not 2"):
        await Wal.open(disk, Identity(7, 2, 0))


async def test_torn_last_record() -> None:
    """Cut at every byte of the last record: all earlier ones stay, the log goes on."""
    whole = await filled(5)
    name = segment_name(1)
    data = whole.read(name)
    before = (await filled(4)).read(name)
    assert data.startswith(before)
    for end in range(len(before), len(data)):
        disk = FakeDisk()
        file = disk.open_append(name)
        file.append(data[:end])
        wal, found = await Wal.open(disk)
        complete = data[end:].strip(b"\0") == b""
        assert [e.index for e in found.entries] == list(range(1, 6 if complete else 5))
        following = found.last_index + 1
        wal.append(HardState(2, 1, 4), [entry(following, 2)])
        await wal.sync()
        wal.close()
        assert (await reopen(disk)).entries[-1] == entry(following, 2)


async def test_zero_tail() -> None:
    """Zeros after the end are no record, and are gone once the log was opened for writing."""
    for zeros in (1, 15, 16, 17, 511, 512, 4096, 5000):
        disk = await filled(3)
        disk.open_append(segment_name(1)).append(bytes(zeros))
        found = await reopen(disk)
        assert len(found.entries) == 3
        assert disk.read(segment_name(1)) == (await filled(3)).read(segment_name(1))


async def test_zeros_behind_an_older_segment() -> None:
    """Space that was reserved when the process was killed; a record lost before it is noticed."""
    disk = await filled(30, segment_bytes=400)
    name = disk.names()[1]
    whole = bytes(disk.files[name].data)
    disk.files[name].data += bytes(1000)
    assert len((await reopen(disk.copy())).entries) == 30
    records = [item for item in scan(name, whole, False) if isinstance(item, Record)]
    cut = records[-1].offset
    disk.files[name].data[cut:] = bytes(1000)
    with pytest.raises(WalDamaged, match="does not continue the log"):
        await reopen(disk)


async def test_torn_sector_heuristic() -> None:
    """A sector of zeros in the last record is a tear; a wrong byte is damage."""
    disk = FakeDisk()
    wal, _ = await Wal.open(disk, ME)
    wal.append(HardState(1, 1, 0), [entry(1)])
    await wal.sync()
    start = len(disk.read(segment_name(1)))
    wal.append(HardState(1, 1, 1), [entry(2, size=3000)])
    await wal.sync()
    data = disk.read(segment_name(1))
    first = start - start % 512 + 512
    for sector in range(first, len(data) - 512, 512):
        torn = FakeDisk()
        torn.open_append(segment_name(1)).append(data[:sector] + bytes(512) + data[sector + 512 :])
        assert [e.index for e in (await reopen(torn)).entries] == [1]
        flipped = FakeDisk()
        flipped.open_append(segment_name(1)).append(
            data[:sector] + bytes([data[sector] ^ 1]) + data[sector + 1 :]
        )
        with pytest.raises(WalDamaged) as caught:
            await reopen(flipped)
        assert caught.value.file == segment_name(1)
        assert caught.value.offset == start


async def test_bitflip_middle_refuses() -> None:
    """Any bit wrong in a record that is not the last: refused, and said where."""
    data = (await filled(4)).read(segment_name(1))
    last = len((await filled(3)).read(segment_name(1)))
    for place in range(0, last, 3):
        disk = FakeDisk()
        disk.open_append(segment_name(1)).append(
            data[:place] + bytes([data[place] ^ (1 << place % 8)]) + data[place + 1 :]
        )
        problem = verify(disk).problem
        if problem is None:
            assert len((await reopen(disk)).entries) == 4, "only padding is not covered"
            continue
        assert isinstance(problem, WalDamaged)
        assert problem.file == segment_name(1)
        assert place - 512 < problem.offset <= place
        assert "raftkv member remove" in str(problem)
        with pytest.raises(WalDamaged):
            await reopen(disk)


async def test_length_field_sane() -> None:
    """A garbage length neither allocates nor swallows the records behind it."""
    data = (await filled(4)).read(segment_name(1))
    start = len((await filled(1)).read(segment_name(1)))
    for garbage in (b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x01\0\0\0", b"\0\0\0\0"):
        disk = FakeDisk()
        disk.open_append(segment_name(1)).append(data[:start] + garbage + data[start + 4 :])
        with pytest.raises(WalDamaged) as caught:
            await reopen(disk)
        assert caught.value.offset == start


async def test_crc_chain_across_segments() -> None:
    """A segment deleted, swapped, doubled, or from another log is noticed."""
    disk = await filled(30, segment_bytes=400)
    names = disk.names()
    assert len(names) > 4
    assert len((await reopen(disk.copy())).entries) == 30

    missing = disk.copy()
    missing.delete(names[2])
    with pytest.raises(WalDamaged, match="without a snapshot"):
        await reopen(missing)

    swapped = disk.copy()
    swapped.files[names[1]], swapped.files[names[2]] = (
        swapped.files[names[2]],
        swapped.files[names[1]],
    )
    with pytest.raises(WalDamaged, match="the file is segment 3"):
        await reopen(swapped)

    foreign = disk.copy()
    other = FakeDisk()
    wal, _ = await Wal.open(other, ME, segment_bytes=400)
    for index in range(1, 31):
        wal.append(HardState(2, 1, index - 1), [entry(index, 2)])
        await wal.sync()
    foreign.files[names[2]] = other.files[names[2]]
    with pytest.raises(WalDamaged, match="does not continue"):
        await reopen(foreign)

    shortened = disk.copy()
    shortened.open_append(names[1]).truncate(len(disk.read(names[1])) - 20)
    with pytest.raises(WalDamaged, match="later segment exists"):
        await reopen(shortened)


async def test_cut_crash_points() -> None:
    """A crash at every step of writing over segment borders: what was acknowledged is there."""
    total = len((await filled(12, segment_bytes=300)).steps)
    for fail_at in range(total):
        disk = FakeDisk()
        disk.fail_at = fail_at
        acknowledged = 0
        with contextlib.suppress(Crashed):
            wal, _ = await Wal.open(disk, ME, segment_bytes=300)
            for index in range(1, 13):
                wal.append(HardState(1, 1, acknowledged), [entry(index)])
                await wal.sync()
                acknowledged = index
        for seed in range(4):
            left = disk.after_crash(random_tear(random.Random(seed)) if seed else None)
            wal, found = await Wal.open(left, ME, segment_bytes=300)
            indexes = [e.index for e in found.entries]
            assert indexes == list(range(1, len(indexes) + 1))
            assert acknowledged <= len(indexes) <= acknowledged + 1
            wal.append(HardState(3, 1, 0), [entry(len(indexes) + 1, 3)])
            await wal.sync()
            assert (await reopen(left.after_crash())).last_index == len(indexes) + 1


async def test_create_atomic() -> None:
    for fail_at in range(8):
        disk = FakeDisk()
        disk.fail_at = fail_at
        with contextlib.suppress(Crashed):
            await Wal.open(disk, ME)
        left = disk.after_crash()
        _, found = await Wal.open(left, ME)
        assert found.identity == ME
        assert found.entries == []


async def test_disk_full() -> None:
    """Nothing half-written is acknowledged; the member stops, and recovers with room."""
    disk = await filled(3)
    wal, _ = await Wal.open(disk)
    disk.room = 50
    wal.append(None, [entry(4, size=200)])
    with pytest.raises(StorageFailed, match="No space left"):
        await wal.sync()
    with pytest.raises(StorageFailed, match="not usable"):
        await wal.sync()
    disk.room = None
    wal, found = await Wal.open(disk)
    assert [e.index for e in found.entries] == [1, 2, 3]
    wal.append(None, [entry(4)])
    await wal.sync()
    assert (await reopen(disk)).entries[-1] == entry(4)


async def test_fsync_error_is_fatal() -> None:
    disk = await filled(1)
    wal, _ = await Wal.open(disk)
    disk.sync_error = OSError(5, "Input/output error")
    wal.append(None, [entry(2)])
    with pytest.raises(StorageFailed, match="this member stops"):
        await wal.sync()
    disk.sync_error = None
    with pytest.raises(StorageFailed):
        wal.append(None, [entry(3)])
    with pytest.raises(StorageFailed):
        await wal.sync()


async def test_what_a_killed_process_left_is_durable_before_it_is_believed() -> None:
    """Killed between write and sync, the record is still in the kernel's memory: a new process
    reads it and acts on it, so it must not vanish when the power fails afterwards."""
    disk = await filled(3)
    wal, _ = await Wal.open(disk)
    disk.fail_at = len(disk.steps) + 1
    wal.append(HardState(9, 2, 3), [entry(4, 9)])
    with pytest.raises(Crashed, match="sync"):
        await wal.sync()
    disk.fail_at = None
    found = await reopen(disk)
    assert found.hard_state == HardState(9, 2, 3)
    assert (await reopen(disk.after_crash())).hard_state == HardState(9, 2, 3)


async def test_lost_fsync_detected() -> None:
    """Committed entries that a lying disk lost are missed at the start, not later."""
    disk = await filled(5)
    wal, _ = await Wal.open(disk)
    wal.append(HardState(1, 1, 5), [])
    await wal.sync()
    wal.close()
    data = disk.read(segment_name(1))
    prefix = len((await filled(2)).read(segment_name(1)))
    tail = len((await filled(5)).read(segment_name(1)))
    lying = FakeDisk()
    lying.open_append(segment_name(1)).append(data[:prefix] + data[tail:])
    with pytest.raises(WalDamaged):
        await reopen(lying)


async def test_verify_describes_a_good_log() -> None:
    disk = await filled(40, segment_bytes=400)
    wal, _ = await Wal.open(disk, segment_bytes=400)
    await wal.save_snapshot(snapshot(30))
    names = disk.names()
    report = verify(disk)
    assert report.ok
    text = "\n".join(report.lines)
    assert "cluster 7, member 1" in text
    assert "entries 1 to 40, 40 in all" in text
    assert "snapshot at entry 30" in text
    assert disk.names() == names
    assert "no log here" in verify(FakeDisk()).lines[0]
