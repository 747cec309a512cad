"""Errors cross the wire and come out as what they were."""

from __future__ import annotations

import msgpack
import pytest

from raftkv import errors


def instance(kind: type[errors.KvError]) -> errors.KvError:
    if kind is errors.WalDamaged:
        return errors.WalDamaged("1.wal", 42, "restore a snapshot", "bad checksum")
    if kind is errors.NotLeader:
        return errors.NotLeader(3, "127.0.0.1:2379")
    if kind is errors.Compacted:
        return errors.Compacted("", 17)
    return kind()


@pytest.mark.parametrize("code", sorted(errors.BY_CODE))
def test_every_error_survives_the_wire(code: str) -> None:
    error = instance(errors.BY_CODE[code])
    back = errors.from_wire(*msgpack.unpackb(msgpack.packb(errors.to_wire(error))))
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert back.details() == error.details()


def test_codes_are_unique() -> None:
    assert len(errors.BY_CODE) == len(errors._tree(errors.KvError))


def test_unknown_code_is_a_plain_error() -> None:
    error = errors.from_wire("FromTheFuture", "something new")
    assert type(error) is errors.KvError
    assert str(error) == "something new"
