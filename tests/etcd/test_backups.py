"""Backups as etcd's snapshots: what is written is read again, and damage is found."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.cli.main import main
from raftkv.errors import SnapshotDamaged
from raftkv.mvcc.machine import Machine
from raftkv.storage.backup import describe, machine_of
from raftkv.storage.bolt import read_bolt, write_bolt
from raftkv.storage.etcd_backup import from_etcd, is_etcd, to_etcd

PAIRS = st.dictionaries(st.binary(min_size=1, max_size=30), st.binary(max_size=9000), max_size=40)


@given(st.dictionaries(st.binary(min_size=1, max_size=8), PAIRS, max_size=4))
def test_buckets_are_read_as_they_were_written(buckets: dict[bytes, dict[bytes, bytes]]) -> None:
    written = {name: sorted(pairs.items()) for name, pairs in buckets.items()}
    data = write_bolt(written)
    assert len(data) % 4096 == 0
    assert read_bolt(data) == written


def test_tree_of_several_levels() -> None:
    pairs = [(b"%08d" % number, b"v" * 30) for number in range(50_000)]
    assert read_bolt(write_bolt({b"key": pairs})) == {b"key": pairs}


KEYS = st.sampled_from([b"a", b"b", b"c", b"d"])
COMMANDS = st.one_of(
    st.tuples(st.just("put"), KEYS, st.binary(max_size=9), st.sampled_from([0, 7]), st.just(False)),
    st.tuples(st.just("delete"), KEYS, st.sampled_from([None, b"c", b"\0"]), st.just(False)),
    st.tuples(
        st.just("txn"),
        st.just([]),
        st.lists(
            st.tuples(st.just("put"), KEYS, st.binary(max_size=3), st.just(0), st.just(False)),
            max_size=3,
            unique_by=lambda put: put[1],
        ),
        st.just([]),
    ),
    st.tuples(st.just("compact"), st.integers(1, 30)),
)


@given(st.lists(COMMANDS, max_size=30))
def test_state_goes_there_and_back(commands: list[Any]) -> None:
    machine = Machine()
    machine.apply(["lease_grant", 7, 60])
    for command in commands:
        machine.apply(list(command))
    data = to_etcd(machine)
    assert is_etcd(data)
    back = from_etcd(data)
    assert back.revision == machine.revision
    assert back.compact_revision == machine.compact_revision
    start = max(machine.compact_revision, 1)
    for revision in range(start, machine.revision + 1):
        expected = machine.range(b"\0", b"\0", revision=revision)
        assert back.range(b"\0", b"\0", revision=revision) == expected
    assert back.store.events(start, machine.revision + 1) == machine.store.events(
        start, machine.revision + 1
    )
    assert {lease.id: (lease.ttl, sorted(lease.keys)) for lease in back.leases} == {
        lease.id: (lease.ttl, sorted(lease.keys)) for lease in machine.leases
    }
    assert describe(data).hash == describe(machine.snapshot()).hash


def example() -> bytes:
    machine = Machine()
    for number in range(300):
        machine.apply(["put", b"k%d" % number, b"v" * 50, 0, False])
    return to_etcd(machine)


def test_damage_is_found_by_the_digest() -> None:
    data = bytearray(example())
    data[20_000] ^= 1
    with pytest.raises(SnapshotDamaged):
        machine_of(bytes(data))


@given(st.data())
def test_damage_without_a_digest_is_an_error_or_nothing_worse(data: st.DataObject) -> None:
    """A bare database file, as copied off a disk, has no digest to tell."""
    damaged = bytearray(example()[:-32])
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        machine_of(bytes(damaged))
    except SnapshotDamaged:
        return


def test_history_that_cannot_be_is_refused() -> None:
    deletion = struct.pack(">QcQ", 2, b"_", 0) + b"t"
    with pytest.raises(SnapshotDamaged, match="deletes a key"):
        machine_of(write_bolt({b"key": [(deletion, b"\x0a\x01k")]}))
    lease = b"\x08\x05\x10\x09"
    with pytest.raises(SnapshotDamaged, match="lease 5 twice"):
        machine_of(write_bolt({b"key": [], b"lease": [(b"1", lease), (b"2", lease)]}))
    leased = (struct.pack(">QcQ", 2, b"_", 0), b"\x0a\x01k\x20\x01\x30\x05")
    with pytest.raises(SnapshotDamaged, match="lacks"):
        machine_of(write_bolt({b"key": [leased]}))


def test_export_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    backup, exported = tmp_path / "backup", tmp_path / "exported"
    backup.write_bytes(machine_of(example()).snapshot())
    assert main(["snapshot", "export", str(backup), str(exported)]) == 0
    assert capsys.readouterr().out == f"{exported}: revision 301, 300 keys\n"
    told = []
    for file in (backup, exported):
        assert main(["snapshot", "status", str(file), "-o", "json"]) == 0
        told.append(capsys.readouterr().out)
    assert told[0] == told[1]
    assert main(["snapshot", "export", str(tmp_path / "none"), str(exported)]) == 2


def test_other_databases_are_refused() -> None:
    with pytest.raises(SnapshotDamaged, match="none of etcd's"):
        machine_of(write_bolt({b"other": [(b"a", b"b")]}))
