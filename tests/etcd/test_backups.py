"""Backups that came through etcd's clients are ours again without their frame."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.errors import SnapshotDamaged
from raftkv.mvcc.machine import Machine
from raftkv.storage.backup import describe, unframed


def framed(data: bytes) -> bytes:
    body = data + b"\0" * (-len(data) % 512)
    return body + sha256(body).digest()


def backup(values: list[bytes]) -> bytes:
    machine = Machine()
    for value in values:
        machine.apply(["put", b"k", value, 0, False])
    return machine.snapshot()


@given(st.lists(st.binary(max_size=600), max_size=5))
def test_frame_is_taken_off(values: list[bytes]) -> None:
    data = backup(values)
    assert unframed(framed(data)) == data
    assert unframed(data) == data
    assert describe(framed(data)) == describe(data)


def test_damage_is_found() -> None:
    data = bytearray(framed(backup([b"v" * 1000])))
    data[700] ^= 1
    with pytest.raises(SnapshotDamaged):
        describe(bytes(data))
    cut = framed(backup([b"v" * 1000])[:-5])
    with pytest.raises(SnapshotDamaged):
        describe(cut)
