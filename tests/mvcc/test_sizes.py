"""Answers that would be too large: ranges are cut, commands refused before they do anything."""

from __future__ import annotations

from typing import Any

import pytest

from raftkv.mvcc import sizes
from raftkv.mvcc.machine import Machine


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Ten pairs, of which three fit into an answer."""
    monkeypatch.setattr(sizes, "ANSWER_BYTES_MAX", 3 * (sizes.PAIR_BYTES + 101))
    machine = Machine()
    for number in range(10):
        machine.apply(["put", b"%d" % number, bytes(100), 0, False])
    return machine


def test_what_fits(machine: Machine) -> None:
    pairs = machine.range(b"0", b"\0").kvs
    assert sizes.fitting(pairs) == 3
    assert sizes.fitting(pairs[:2]) == 2
    assert sizes.fitting([]) == 0
    large = (b"k", bytes(10_000), 2, 2, 1, 0)
    assert sizes.fitting([large, large]) == 1


@pytest.mark.parametrize(
    ("operation", "fits"),
    [
        (["range", b"0", b"\0", 0, 0, False, False], False),
        (["range", b"0", b"\0", 3, 0, False, False], True),
        (["range", b"0", b"7", 0, 0, True, False], True),
        (["range", b"0", b"\0", 0, 0, False, True], True),
        (["range", b"0", b"\0", 0, 3, False, False], True),
        (["delete", b"0", b"\0", True], False),
        (["delete", b"0", b"3", True], True),
        (["delete", b"0", b"\0", False], True),
    ],
)
def test_commands_are_refused_whole(machine: Machine, operation: list[Any], fits: bool) -> None:
    before = machine.hash()
    commands = [["txn", [], [["put", b"x", b"", 0, False], operation], []]]
    if operation[0] == "delete":
        commands = [["txn", [], [operation], []], operation]
    for command in commands:
        result, events = machine.apply(command)
        if fits:
            assert result[0] == machine.revision
            return
        assert result[:2] == ["error", "RequestTooLarge"]
        assert not events
        assert machine.hash() == before


def test_ranges_of_one_transaction_are_added_up(machine: Machine) -> None:
    two = ["range", b"0", b"2", 0, 0, False, False]
    assert machine.apply(["txn", [], [two], []])[0][1] is True
    assert machine.apply(["txn", [], [two, two], []])[0][1] == "RequestTooLarge"


def test_which_results_have_pairs() -> None:
    machine = Machine()
    steps: list[tuple[list[Any], bool]] = [
        (["put", b"a", b"1", 0, True], False),
        (["put", b"a", b"2", 0, True], True),
        (["put", b"a", b"3", 0, False], False),
        (["txn", [], [["put", b"a", b"4", 0, False]], []], False),
        (["txn", [], [["put", b"a", b"5", 0, True]], []], True),
        (["txn", [], [["range", b"a", None, 0, 0, False, False]], []], True),
        (["delete", b"a", None, True], True),
        (["delete", b"a", None, True], False),
        (["lease_grant", 7, 10], False),
        (["lease_grant", 7, 10], False),
    ]
    for command, expected in steps:
        assert sizes.has_pairs(command, machine.apply(command)[0]) is expected, command
