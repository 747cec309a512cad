"""The machine and its twin are given the same commands and must not differ in anything."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from raftkv.errors import Compacted, DuplicateKey, KvError
from raftkv.mvcc import snapshot
from raftkv.mvcc.commands import validate
from raftkv.mvcc.machine import Machine
from raftkv.mvcc.watchers import WatchHub
from tests.mvcc.twin import Refused, Twin, inside

keys = st.sampled_from([b"a", b"aa", b"ab", b"b", b"b\xff", b"c", b"\xff"])
ends = st.sampled_from([None, None, None, b"\0", b"ab", b"b", b"c", b"a"])
values = st.sampled_from([b"", b"1", b"2"])
lease_ids = st.sampled_from([0, 0, 0, 1, 2])
revisions = st.sampled_from([0, 0, 1, 2, 3, 5, 8, 13, 21])
flags = st.booleans()

puts = st.tuples(st.just("put"), keys, values, lease_ids, flags).map(list)
deletes = st.tuples(st.just("delete"), keys, ends, flags).map(list)
ranges = st.tuples(
    st.just("range"), keys, ends, st.sampled_from([0, 1, 2]), revisions, st.just(False), flags
).map(list)
compares = st.one_of(
    st.tuples(keys, ends, st.just("value"), st.sampled_from(["=", "!=", "<", ">"]), values),
    st.tuples(
        keys,
        ends,
        st.sampled_from(["version", "create", "mod", "lease"]),
        st.sampled_from(["=", "!=", "<", ">"]),
        revisions,
    ),
).map(list)
branches = st.lists(st.one_of(puts, puts, deletes, ranges), max_size=4)
txns = st.tuples(st.just("txn"), st.lists(compares, max_size=2), branches, branches).map(list)
commands = st.one_of(
    puts,
    puts,
    puts,
    deletes,
    txns,
    st.tuples(st.just("compact"), revisions.filter(bool)).map(list),
    st.tuples(st.just("lease_grant"), st.sampled_from([1, 2]), st.just(60)).map(list),
    st.tuples(st.just("lease_revoke"), st.sampled_from([1, 2])).map(list),
)


def refused(command: list[Any]) -> bool:
    try:
        validate(command)
    except DuplicateKey:
        return True
    return False


def plain(command: list[Any], result: list[Any]) -> list[Any]:
    """A result of the machine in the twin's words."""
    if result[0] == "error":
        return result[:2]
    if command[0] != "txn":
        return result
    operations = command[2] if result[1] else command[3]
    results: list[Any] = []
    for operation, each in zip(operations, result[2], strict=True):
        if operation[0] == "put":
            results.append(each[1])
        elif operation[0] == "delete":
            results.append((each[1], each[2]))
        elif operation[6]:
            results.append(("count", each.count))
        else:
            results.append((each.kvs, each.count, each.more))
    return [result[0], result[1], results]


def expected(command: list[Any], result: list[Any]) -> list[Any]:
    if command[0] != "txn" or result[0] == "error":
        return result
    operations = command[2] if result[1] else command[3]
    results = [
        ("count", each[1]) if operation[0] == "range" and operation[6] else each
        for operation, each in zip(operations, result[2], strict=True)
    ]
    return [result[0], result[1], results]


def same_reads(machine: Machine, twin: Twin) -> None:
    """Every revision, with a few ranges and limits."""
    for revision in range(machine.revision + 2):
        for key, end, limit in (
            (b"a", None, 0),
            (b"\0", b"\0", 0),
            (b"a", b"b", 1),
            (b"aa", b"c", 2),
            (b"b", b"a", 0),
        ):
            try:
                want: Any = twin.range(key, end, limit, revision, twin.revision)
            except Refused as error:
                want = error.args[0]
            got: Any
            try:
                result = machine.range(key, end, limit=limit, revision=revision)
                got = (result.kvs, result.count, result.more)
                counted = machine.range(key, end, revision=revision, count_only=True)
                assert counted.count == result.count
            except KvError as error:
                got = error.code
            assert got == want


def history(machine: Machine, start: int) -> list[Any]:
    return [e for events in machine.store.events(start, machine.revision + 1) for e in events]


@settings(max_examples=300)
@given(st.lists(commands, max_size=25), st.booleans())
def test_machine_equals_its_twin(sequence: list[list[Any]], lazy: bool) -> None:
    machine, twin = Machine(), Twin()
    for command in sequence:
        if refused(command):
            assert machine.apply(command)[0][:2] == ["error", "DuplicateKey"]
            continue
        before = machine.revision
        result, events = machine.apply(command)
        assert plain(command, result) == expected(command, twin.apply(command))
        assert machine.revision == twin.revision
        assert machine.revision == before + bool(events)
        assert events == twin.events(before + 1)
        assert len({each[1][0] for each in events}) == len(events), "one event per key"
        if not lazy:
            assert machine.store.swept
    same_reads(machine, twin)
    start = max(machine.compact_revision, 1)
    assert history(machine, start) == twin.events(start)
    assert {lease.id: sorted(lease.keys) for lease in machine.leases} == {
        lease: [k for k, p in twin.state(twin.revision).items() if p[5] == lease]
        for lease in twin.leases
    }
    live = sum(len(k) + len(p[1]) for k, p in twin.state(twin.revision).items())
    assert machine.size >= live
    restored = Machine.restore(machine.snapshot())
    assert restored.hash() == machine.hash()
    assert restored.snapshot() == machine.snapshot()
    assert restored.digest == machine.digest
    same_reads(restored, twin)
    assert history(restored, start) == twin.events(start)
    event(f"compacted: {machine.compact_revision > 0}")


@settings(max_examples=300)
@given(st.lists(st.one_of(commands, st.just(["restore"])), max_size=25), st.data())
def test_restored_machine_goes_on_as_the_original(
    sequence: list[list[Any]], data: st.DataObject
) -> None:
    """Swept or not, restored or not: nobody can tell."""
    one, two = Machine(), Machine()
    for command in sequence:
        if command == ["restore"]:
            two = Machine.restore(two.snapshot())
            continue
        if data.draw(flags):
            one.store.sweep(1)
        assert one.apply(command) == two.apply(command)
        assert one.hash() == two.hash()
        assert one.digest == two.digest


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "PIECE", 2)


@settings(
    max_examples=300,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(commands, max_size=25), st.lists(commands, max_size=40), st.data())
def test_a_snapshot_in_pieces_shows_the_moment_of_its_beginning(
    before: list[list[Any]], meanwhile: list[list[Any]], data: st.DataObject
) -> None:
    """Whatever is written, deleted, compacted and swept between two pieces."""
    machine = Machine()
    for command in before:
        machine.apply(command)
    machine.store.sweep()
    whole = machine.snapshot()
    pieces = snapshot.parts(machine.store, machine.leases, machine.members)
    got = [next(pieces)]
    for command in meanwhile:
        machine.apply(command)
        if data.draw(flags):
            got += [piece for piece in [next(pieces, None)] if piece is not None]
    got += pieces
    assert b"".join(got) == whole
    machine.store.sweep()
    assert machine.store.swept


watch_ranges = st.sampled_from(
    [(b"a", None), (b"a", b"b"), (b"\0", b"\0"), (b"aa", b"c"), (b"b", b"\0"), (b"\xff", b"\0")]
)
watches = st.tuples(watch_ranges, st.integers(0, 12), flags, flags)
slow = st.tuples(st.just("slow"), st.integers(0, 5))


@settings(max_examples=400)
@given(
    st.lists(
        st.one_of(commands, commands, st.tuples(st.just("watch"), watches), slow), max_size=40
    ),
    st.integers(1, 3),
)
def test_every_watcher_sees_all_its_events_once_in_order_or_is_told(
    sequence: list[Any], step: int
) -> None:
    """Also slow ones, ones with a start in the past or future, and over a snapshot restore."""
    machine, twin = Machine(), Twin()
    hub = WatchHub(machine)
    seen: dict[int, list[Any]] = {}
    asked: dict[int, Any] = {}
    lost: dict[int, None] = {}

    def catch_up(watch_id: int) -> None:
        while watch_id not in lost:
            if hub._watches[watch_id].synced or watch_id in hub._future:
                return
            try:
                events, _ = hub.history(watch_id, step)
            except Compacted:
                lost[watch_id] = None
                hub.remove(watch_id)
                return
            seen[watch_id] += events

    for number, command in enumerate(sequence):
        if command[0] == "watch":
            (key, end), start, no_put, no_delete = command[1]
            try:
                hub.add(number, key, end, start, no_put=no_put, no_delete=no_delete)
            except Compacted:
                assert 0 < start < machine.compact_revision
                continue
            asked[number] = (key, end, start or machine.revision + 1, no_put, no_delete)
            seen[number] = []
            if number % 2:
                catch_up(number)
        elif command[0] == "slow":
            synced = [i for i in seen if i not in lost and hub._watches[i].synced]
            if synced:
                victim = synced[command[1] % len(synced)]
                hub.fall_behind(victim, machine.revision + 1)
                if hub.progress([victim]) is not None:
                    raise AssertionError("progress of a watcher that is behind")
        else:
            events = machine.apply(command)[1]
            if not refused(command):
                twin.apply(command)
            for watch_id, matched in hub.notify(events).items():
                seen[watch_id] += matched
    for watch_id in seen:
        catch_up(watch_id)
    for watch_id, (key, end, start, no_put, no_delete) in asked.items():
        want = [
            (kind, pair)
            for kind, pair in twin.history
            if pair[3] >= start
            and inside(pair[0], key, end)
            and not (no_put and kind == "put")
            and not (no_delete and kind == "delete")
        ]
        got = [(kind, pair) for kind, pair, _ in seen[watch_id]]
        if watch_id in lost:
            assert got == want[: len(got)]
        else:
            assert got == want
