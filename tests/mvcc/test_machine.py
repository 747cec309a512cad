"""Rules of etcd v3, one by one, and the bugs that others had with them."""

from __future__ import annotations

import random
from typing import Any

import pytest

from raftkv.errors import Compacted, EmptyKey, FutureRevision, SnapshotDamaged
from raftkv.mvcc import snapshot
from raftkv.mvcc.commands import is_read_only, prefix_end
from raftkv.mvcc.machine import Machine


def put(key: bytes, value: bytes = b"v", lease: int = 0) -> list[Any]:
    return ["put", key, value, lease, False]


def rangeop(key: bytes, end: bytes | None = None, revision: int = 0) -> list[Any]:
    return ["range", key, end, 0, revision, False, False]


def test_first_write_has_revision_2() -> None:
    machine = Machine()
    assert machine.revision == 1
    assert machine.apply(put(b"a"))[0] == [2, None]
    assert machine.range(b"a").kvs == [(b"a", b"v", 2, 2, 1, 0)]
    machine.apply(put(b"a", b"w"))
    assert machine.range(b"a").kvs == [(b"a", b"w", 2, 3, 2, 0)]
    result, events = machine.apply(["delete", b"a", None, True])
    assert result == [4, 1, [(b"a", b"w", 2, 3, 2, 0)]]
    assert events == [("delete", (b"a", b"", 0, 4, 0, 0), (b"a", b"w", 2, 3, 2, 0))]
    machine.apply(put(b"a"))
    assert machine.range(b"a").kvs == [(b"a", b"v", 5, 5, 1, 0)]


def test_deleting_nothing_makes_no_revision() -> None:
    machine = Machine()
    assert machine.apply(["delete", b"a", b"z", True]) == ([1, 0, []], [])


def test_txn_is_one_revision_and_reads_its_own_writes() -> None:
    machine = Machine()
    machine.apply(put(b"a", b"old"))
    txn = [
        "txn",
        [[b"a", None, "mod", "=", 2]],
        [put(b"b"), rangeop(b"a", b"c"), ["delete", b"a", None, False], rangeop(b"a", b"c")],
        [],
    ]
    result, events = machine.apply(txn)
    assert result[:2] == [3, True]
    assert [each[0] for each in result[2][1].kvs] == [b"a", b"b"]
    assert [each[0] for each in result[2][3].kvs] == [b"b"]
    assert [each[1][3] for each in events] == [3, 3]
    result, events = machine.apply(txn)
    assert result == [3, False, []]
    assert events == []


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ([], "InvalidRequest"),
        (["nonsense"], "InvalidRequest"),
        ([b"put", b"a", b"", 0, False], "InvalidRequest"),
        (["put", b"a", b""], "InvalidRequest"),
        (["put", "a", b"", 0, False], "InvalidRequest"),
        (["put", b"a", "text", 0, False], "InvalidRequest"),
        (["put", b"a", b"", -1, False], "InvalidRequest"),
        (["put", b"", b"", 0, False], "EmptyKey"),
        (["put", b"a", b"", 5, False], "LeaseNotFound"),
        (["delete", b"", None, False], "EmptyKey"),
        (["delete", b"a", 7, False], "InvalidRequest"),
        (["compact", 1.5], "InvalidRequest"),
        (["compact", 99], "FutureRevision"),
        (["compact", 0], "Compacted"),
        (["lease_revoke", 3], "LeaseNotFound"),
        (["lease_checkpoint", 3, 1], "LeaseNotFound"),
        (["txn", [], [put(b"")], []], "EmptyKey"),
        (["txn", [], [put(b"a"), put(b"a")], []], "DuplicateKey"),
        (["txn", [], [], [put(b"b"), ["delete", b"a", b"c", False]]], "DuplicateKey"),
        (["txn", [], [["delete", b"a", b"\0", False], put(b"b")], []], "DuplicateKey"),
        (["txn", [], [put(b"%d" % i) for i in range(129)], []], "TooManyOps"),
        (["txn", [[b"a", None, "mod", "=", 0]] * 129, [], []], "TooManyOps"),
        (["txn", [], [put(b"x"), rangeop(b"a", None, 9)], []], "FutureRevision"),
        (["txn", [], [put(b"x"), put(b"y", b"", 4)], []], "LeaseNotFound"),
        (["txn", [[b"", None, "mod", "=", 0]], [], []], "EmptyKey"),
        (["txn", [[b"a", None, "size", "=", 0]], [], []], "InvalidRequest"),
        (["txn", [[b"a", None, "mod", "~", 0]], [], []], "InvalidRequest"),
        (["txn", [[b"a", None, "mod", "=", b""]], [], []], "InvalidRequest"),
        (["txn", [[b"a", None, "value", "=", 0]], [], []], "InvalidRequest"),
        (["txn", [], [["txn", [], []]], []], "InvalidRequest"),
        (["txn", [], [put(b"x"), ["txn", [], [], [put(b"x")]]], []], "DuplicateKey"),
        (["txn", [], [["txn", [], [put(b"x")], []]] * 2, []], "DuplicateKey"),
        (
            ["txn", [], [["delete", b"w", b"y", False], ["txn", [], [put(b"x")], []]], []],
            "DuplicateKey",
        ),
        (["txn", [], [["txn", [], [put(b"x"), rangeop(b"a", None, 9)], []]], []], "FutureRevision"),
        (["txn", [], [["txn", [], [rangeop(b"a")] * 128, []]], []], "TooManyOps"),
        (["txn", [], 5, []], "InvalidRequest"),
    ],
)
def test_refusals_have_no_effect(command: Any, code: str) -> None:
    machine = Machine()
    machine.apply(put(b"k"))
    before = machine.hash()
    result, events = machine.apply(command)
    assert result[:2] == ["error", code]
    assert events == []
    assert machine.hash() == before
    assert machine.revision == 2


def test_txn_in_a_txn_takes_its_branch_by_the_state_before() -> None:
    machine = Machine()
    machine.apply(put(b"a"))
    inner = ["txn", [[b"a", None, "version", "=", 1]], [put(b"b", b"then")], [put(b"b", b"else")]]
    outer = ["txn", [], [put(b"a", b"two"), inner, rangeop(b"b")], []]
    result, events = machine.apply(outer)
    assert result[:2] == [3, True]
    assert result[2][1] == [3, True, [[3, None]]]
    assert result[2][2].kvs == [(b"b", b"then", 3, 3, 1, 0)]
    assert [each[1][:2] for each in events] == [(b"a", b"two"), (b"b", b"then")]
    assert machine.apply(outer)[0][2][1] == [4, False, [[4, None]]]
    assert not is_read_only(outer)
    assert is_read_only(["txn", [], [["txn", [], [rangeop(b"a")], []]], []])


def test_deletes_of_one_txn_may_overlap() -> None:
    """test_no_duplicate_in_txn (etcd#17247): still one event for each key."""
    machine = Machine()
    machine.apply(put(b"a"))
    deletes = [["delete", b"a", None, False], ["delete", b"a", b"z", False]]
    result, events = machine.apply(["txn", [], deletes, []])
    assert [each[1] for each in result[2]] == [1, 0]
    assert len(events) == 1


def test_compare_of_a_missing_key() -> None:
    machine = Machine()
    for target in ("version", "create", "mod", "lease"):
        assert machine.apply(["txn", [[b"a", None, target, "=", 0]], [], []])[0][1]
    for operator in ("=", "!=", "<", ">"):
        assert not machine.apply(["txn", [[b"a", None, "value", operator, b""]], [], []])[0][1]


def test_compacted_revision_is_readable_and_older_ones_are_not() -> None:
    machine = Machine()
    for value in (b"1", b"2", b"3"):
        machine.apply(put(b"a", value))
    assert machine.apply(["compact", 3])[0] == [4]
    assert machine.range(b"a", revision=3).kvs[0][1] == b"2"
    with pytest.raises(Compacted) as caught:
        machine.range(b"a", revision=2)
    assert caught.value.compact_revision == 3
    with pytest.raises(FutureRevision):
        machine.range(b"a", revision=5)
    assert machine.apply(["compact", 3])[0][:2] == ["error", "Compacted"]
    with pytest.raises(EmptyKey):
        machine.range(b"")


def test_txn_range_with_rev_same_on_all() -> None:
    """A range at a compacted revision is refused before the txn wrote anything, swept or not
    (etcd#18667)."""
    machines = [Machine(), Machine()]
    for machine in machines:
        for value in (b"1", b"2", b"3"):
            machine.apply(put(b"a", value))
        machine.store.compact(4)
    machines[1].store.sweep()
    txn = ["txn", [], [put(b"b"), rangeop(b"a", None, 3)], []]
    results = [machine.apply(txn) for machine in machines]
    assert results[0] == results[1]
    assert results[0][0][:2] == ["error", "Compacted"]
    assert machines[0].range(b"b").count == 0
    assert machines[0].hash() == machines[1].hash()


def test_revision_monotonic_after_compact_crash() -> None:
    """Compaction up to a tombstone that is the last revision; a restart loses no number
    (etcd#17780)."""
    machine = Machine()
    machine.apply(put(b"a"))
    machine.apply(["delete", b"a", None, False])
    machine.apply(["compact", 3])
    machine = Machine.restore(machine.snapshot())
    assert machine.revision == 3
    assert machine.compact_revision == 3
    assert machine.apply(put(b"b"))[0] == [4, None]


def test_restore_bumps_revision() -> None:
    machine = Machine()
    machine.apply(put(b"a", b"1"))
    machine.apply(put(b"a", b"2"))
    backup = Machine.restore(machine.snapshot())
    backup.bump_revision(1_000_000)
    assert backup.revision == backup.compact_revision == 1_000_003
    assert backup.range(b"a").kvs == [(b"a", b"2", 2, 3, 2, 0)]
    with pytest.raises(Compacted):
        backup.range(b"a", revision=3)
    assert backup.apply(put(b"a", b"3"))[0] == [1_000_004, None]
    again = Machine.restore(backup.snapshot())
    assert again.hash() == backup.hash()
    assert again.range(b"a", revision=1_000_003).kvs[0][1] == b"2"


def test_snapshot_integrity() -> None:
    machine = Machine()
    machine.apply(put(b"a"))
    data = machine.snapshot()
    for place in range(len(data)):
        damaged = data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]
        with pytest.raises(SnapshotDamaged):
            Machine.restore(damaged)
    for end in range(len(data)):
        with pytest.raises(SnapshotDamaged):
            Machine.restore(data[:end])


def test_lease_revoke_key_order() -> None:
    """Keys of a lease go sorted, in one revision, with the lease (etcd#6558)."""
    machine = Machine()
    machine.apply(["lease_grant", 7, 60])
    for key in (b"c", b"a", b"b"):
        machine.apply(put(key, b"", 7))
    result, events = machine.apply(["lease_revoke", 7])
    assert result == [5]
    assert [each[1][0] for each in events] == [b"a", b"b", b"c"]
    assert 7 not in machine.leases


def test_lease_missing_same_result() -> None:
    machine = Machine()
    assert machine.apply(["lease_revoke", 7])[0][:2] == ["error", "LeaseNotFound"]
    assert machine.apply(put(b"a", b"", 7))[0][:2] == ["error", "LeaseNotFound"]


def test_put_moves_or_drops_the_lease() -> None:
    machine = Machine()
    machine.apply(["lease_grant", 1, 60])
    machine.apply(["lease_grant", 2, 60])
    machine.apply(put(b"a", b"", 1))
    machine.apply(put(b"b", b"", 1))
    machine.apply(put(b"a", b"", 2))
    machine.apply(put(b"b", b"", 0))
    assert machine.apply(["lease_revoke", 1]) == ([machine.revision], [])
    assert machine.range(b"a", b"c").count == 2
    machine.apply(["delete", b"a", None, False])
    assert machine.apply(["lease_revoke", 2])[1] == []


@pytest.mark.parametrize(
    ("lease", "ttl", "code"),
    [
        (0, 60, "InvalidRequest"),
        (-1, 60, "InvalidRequest"),
        (2**63, 60, "InvalidRequest"),
        (1, 0, "InvalidRequest"),
        (1, 9_000_000_001, "LeaseTtlTooLarge"),
    ],
)
def test_lease_id_and_ttl_bounds(lease: int, ttl: int, code: str) -> None:
    assert Machine().apply(["lease_grant", lease, ttl])[0][:2] == ["error", code]


def test_put_keeps_what_it_is_told_to_keep() -> None:
    machine = Machine()
    machine.apply(["lease_grant", 7, 60])
    missing = ["put", b"a", None, 0, False]
    assert machine.apply(missing)[0][:2] == ["error", "KeyNotFound"]
    assert machine.apply(["txn", [], [missing], []])[0][:2] == ["error", "KeyNotFound"]
    assert machine.revision == 1
    machine.apply(put(b"a", b"one", 7))
    assert machine.apply(["put", b"a", b"two", None, True])[0] == [3, (b"a", b"one", 2, 2, 1, 7)]
    assert machine.range(b"a").kvs == [(b"a", b"two", 2, 3, 2, 7)]
    assert machine.leases.get(7).keys == {b"a": None}
    assert machine.apply(["txn", [], [["put", b"a", None, 0, False]], []])[0][:2] == [4, True]
    assert machine.range(b"a").kvs == [(b"a", b"two", 2, 4, 3, 0)]
    assert machine.leases.get(7).keys == {}


def test_prefix_end() -> None:
    assert prefix_end(b"a") == b"b"
    assert prefix_end(b"a\xff") == b"b"
    assert prefix_end(b"\xff\xff") == b"\0"
    assert prefix_end(b"") == b"\0"


def test_read_only_commands() -> None:
    assert is_read_only(["txn", [], [rangeop(b"a")], []])
    assert not is_read_only(["txn", [], [rangeop(b"a")], [put(b"a")]])
    assert not is_read_only(put(b"a"))


def test_garbage_commands_are_refused_not_fatal() -> None:
    """No entry of the log, however strange, may bring down every replica."""
    rng = random.Random(1)
    machine = Machine()
    atoms: list[Any] = [None, 0, -1, 1.5, "put", "txn", b"", b"a", [], {}, True, "delete", 2**70]

    def garbage(depth: int) -> Any:
        if depth == 0 or rng.random() < 0.4:
            return rng.choice(atoms)
        return [garbage(depth - 1) for _ in range(rng.randrange(6))]

    names = ["put", "delete", "txn", "compact", "lease_grant", "lease_revoke", "lease_checkpoint"]
    for _ in range(20_000):
        command = [rng.choice(names), *(garbage(3) for _ in range(rng.choice((1, 2, 3, 4))))]
        before = machine.revision
        result, events = machine.apply(command)
        assert machine.revision == before + bool(events)
        assert result[0] == "error" or type(result[0]) is int


def test_keys_that_come_during_a_snapshot_do_not_change_its_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Found by the twin's test: a new key moved the borders between the pieces."""
    monkeypatch.setattr(snapshot, "PIECE", 2)
    machine = Machine()
    for command in (put(b"a"), put(b"a"), put(b"ab"), put(b"b"), ["compact", 5]):
        machine.apply(command)
    whole = machine.snapshot()
    pieces = machine.snapshot_parts()
    got = [next(pieces)]
    machine.apply(put(b"aa"))
    assert b"".join([*got, *pieces]) == whole


def test_check_compares_the_place_of_the_last_one() -> None:
    """Whatever was written since, and with nothing to say after a restore."""
    one, two, other = Machine(), Machine(), Machine()
    for machine in (one, two, other):
        machine.apply(put(b"k", b"1"))
        assert machine.apply(["check", 0, 0])[0] == [2, True]
    one.apply(put(b"k", b"2"))
    other.apply(put(b"k", b"3"))
    assert two.mark == one.mark == other.mark
    check = ["check", *one.mark]
    assert one.apply(check)[0] == [3, True]
    assert two.apply(check)[0] == [2, True]
    other.apply(check)
    two.apply(put(b"k", b"2"))
    check = ["check", *one.mark]
    assert other.apply(check)[0] == [3, False]
    assert Machine.restore(other.snapshot()).apply(check)[0] == [3, True]
    assert one.apply(["check", -1, 0])[0][:2] == ["error", "InvalidRequest"]
