"""Errors cross the wire and come out as what they were."""

from __future__ import annotations

import importlib
import pkgutil
from collections import Counter

import msgpack
import pytest

import raftkv
from raftkv import errors


def is_error(thing: object) -> bool:
    return isinstance(thing, type) and issubclass(thing, errors.KvError)


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


def test_every_error_has_its_own_code() -> None:
    codes = Counter(error.code for error in vars(errors).values() if is_error(error))
    assert set(codes) == set(errors.BY_CODE)
    assert set(codes.values()) == {1}


def test_errors_are_defined_where_from_wire_finds_them() -> None:
    """A subclass in another module would leave a server as itself and arrive as a KvError."""
    for module in pkgutil.walk_packages(raftkv.__path__, "raftkv."):
        if not module.name.endswith("__main__"):
            for found in vars(importlib.import_module(module.name)).values():
                assert not is_error(found) or found.__module__ == errors.__name__, found


def test_unknown_code_is_a_plain_error() -> None:
    error = errors.from_wire("FromTheFuture", "something new")
    assert type(error) is errors.KvError
    assert str(error) == "something new"
