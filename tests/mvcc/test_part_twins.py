"""The parts of the state machine beside twins too simple to be wrong.

The machine as a whole, with ranges, transactions, compaction and watches, has its twin in
test_twin.py.
"""

from __future__ import annotations

import math
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from raftkv.errors import LeaseNotFound
from raftkv.mvcc.commands import FROM_KEY, Kv
from raftkv.mvcc.keyindex import KeyIndex
from raftkv.mvcc.leases import CHECKPOINT_SECONDS, Lease, LeaseTable, Lessor
from raftkv.mvcc.machine import Machine
from raftkv.mvcc.txn import holds
from tests.mvcc.twin import inside

keys = st.sampled_from([b"a", b"aa", b"b", b"b\xff", b"\xff"])
ends = st.sampled_from([None, b"aa", b"b", b"c", FROM_KEY])


# -- the key index ---------------------------------------------------------------------------------

index_steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), keys),
        st.tuples(st.just("put"), keys),
        st.tuples(st.just("delete"), keys),
        st.tuples(st.just("prune"), st.integers(0, 30)),
    ),
    max_size=30,
)


@settings(max_examples=300)
@given(index_steps)
def test_key_index_twin(steps: list[tuple[str, Any]]) -> None:
    """A list of all versions, searched from one end to the other."""
    index = KeyIndex()
    written: list[Kv] = []
    pruned = 0

    def at(key: bytes, revision: int) -> Kv | None:
        last = [pair for pair in written if pair[0] == key and pair[3] <= revision]
        return last[-1] if last and last[-1][4] else None

    for revision, (what, argument) in enumerate(steps, 2):
        if what == "put":
            before = at(argument, revision)
            created, version = (before[2], before[4] + 1) if before else (revision, 1)
            pair: Kv = (argument, b"%d" % revision, created, revision, version, 0)
            assert index.put(pair) == before
            written.append(pair)
        elif what == "delete" and argument in index.live:
            tombstone: Kv = (argument, b"", 0, revision, 0, 0)
            assert index.delete(tombstone) == at(argument, revision)
            written.append(tombstone)
        elif what == "prune" and argument < revision:
            pruned = max(pruned, argument)
            for key in {pair[0] for pair in written}:
                index.prune(key, argument)
    now = len(steps) + 2
    everything = sorted({pair[0] for pair in written})
    for revision in range(pruned, now + 1):
        for key in everything:
            assert index.at(key, revision) == at(key, revision)
    for key in [b"a", b"aa", b"b", b"c"]:
        for end in (None, b"aa", b"b", b"c", FROM_KEY):
            live = [each for each in everything if inside(each, key, end) and at(each, now)]
            assert list(index.live_keys(key, end)) == live
            assert index.count_live(key, end) == len(live)
            past = list(index.all_keys(key, end))
            assert past == sorted(set(past))
            readable = [
                each
                for each in everything
                if inside(each, key, end)
                and any(at(each, revision) for revision in range(pruned, now + 1))
            ]
            assert [each for each in past if each in readable] == readable
    kept = [pair for versions in index.old.values() for pair in versions]
    kept += index.live.values()
    assert index.size == sum(len(pair[0]) + len(pair[1]) for pair in kept)


# -- deadlines of leases ---------------------------------------------------------------------------


class LessorTwin:
    """Every lease's deadline in a dictionary; who is due is found by looking at all of them."""

    def __init__(self) -> None:
        self.ends: dict[int, float] = {}
        self.revoking: set[int] = set()

    def due(self, now: float) -> list[int]:
        found = sorted(
            lease for lease, end in self.ends.items() if end <= now and lease not in self.revoking
        )
        self.revoking |= set(found)
        return found


lessor_steps = st.lists(
    st.one_of(
        st.tuples(st.just("grant"), st.integers(1, 5), st.integers(1, 2000)),
        st.tuples(st.just("renew"), st.integers(1, 5), st.just(0)),
        st.tuples(st.just("pass"), st.sampled_from([0, 1, 7, 100, 400]), st.just(0)),
        st.tuples(st.just("revoked"), st.integers(1, 5), st.just(0)),
        st.tuples(st.just("failed"), st.integers(1, 5), st.just(0)),
        st.tuples(st.just("elected"), st.integers(0, 3), st.just(0)),
    ),
    max_size=40,
)


@settings(max_examples=400)
@given(lessor_steps)
@example([("grant", 1, 398), ("elected", 3, 0), ("renew", 1, 0), ("pass", 400, 0)])
def test_lessor_twin(steps: list[tuple[str, int, int]]) -> None:
    table = LeaseTable()
    lessor, twin = Lessor(table), LessorTwin()
    lessor.promote(0.0)
    now = 0.0
    for what, number, ttl in steps:
        known = number in table
        if what == "grant" and not known:
            table.add(Lease(number, ttl))
            lessor.applied(["lease_grant", number, ttl], now)
            twin.ends[number] = now + ttl
        elif what == "renew":
            alive = known and number not in twin.revoking
            try:
                assert lessor.renew(number, now) == table.get(number).ttl
                assert alive, "a renewal was granted to a lease that is going"
                twin.ends[number] = max(twin.ends[number], now + table.get(number).ttl)
                table.get(number).remaining = 0  # what the server proposes before it answers
            except LeaseNotFound:
                assert not alive
        elif what == "pass":
            now += number
        elif what == "revoked" and known:
            table.remove(number)
            lessor.applied(["lease_revoke", number], now)
            twin.ends.pop(number)
            twin.revoking.discard(number)
        elif what == "failed" and number in twin.revoking:
            lessor.revoke_failed(number, now)
            twin.revoking.discard(number)
            twin.ends[number] = now
        elif what == "elected":
            lessor.promote(now, float(number))
            twin.revoking = set()
            twin.ends = {lease.id: now + (lease.remaining or lease.ttl) + number for lease in table}
        for lease in table:
            left = max(0, math.ceil(twin.ends[lease.id] - now))
            assert lessor.remaining(lease.id, now) == left
        assert lessor.due(now) == twin.due(now)
        for lease_id, remaining in lessor.checkpoints(now):
            assert remaining == math.ceil(twin.ends[lease_id] - now) > 0
            assert lease_id not in twin.revoking
            assert table.get(lease_id).ttl > CHECKPOINT_SECONDS
            table.get(lease_id).remaining = remaining


# -- comparisons of transactions -------------------------------------------------------------------

pairs = st.dictionaries(keys, st.sampled_from([b"", b"1", b"2"]), max_size=4)
compares = st.one_of(
    st.tuples(keys, ends, st.just("value"), st.sampled_from("=<>"), st.sampled_from([b"", b"1"])),
    st.tuples(
        keys,
        ends,
        st.sampled_from(["version", "create", "mod", "lease"]),
        st.sampled_from(["=", "!=", "<", ">"]),
        st.integers(0, 4),
    ),
)


@settings(max_examples=400)
@given(pairs, compares)
def test_comparison_twin(present: dict[bytes, bytes], compare: tuple[Any, ...]) -> None:
    """True of every key of the range; of a range without keys, true of zeros, and of no value."""
    machine = Machine()
    for key, value in present.items():
        machine.apply(["put", key, value, 0, False])
    key, end, target, operator, operand = compare
    field = {"value": 1, "create": 2, "mod": 3, "version": 4, "lease": 5}[target]
    found = [pair for pair in machine.range(b"\0", FROM_KEY).kvs if inside(pair[0], key, end)]
    values: list[Any] = [pair[field] for pair in found]
    if not values:
        values = [] if target == "value" else [0]
    truth = {
        "=": lambda left: left == operand,
        "!=": lambda left: left != operand,
        "<": lambda left: left < operand,
        ">": lambda left: left > operand,
    }[operator]
    assert holds(machine.store, list(compare)) == (bool(values) and all(map(truth, values)))


# -- a snapshot while old revisions are given up ---------------------------------------------------


@settings(max_examples=200)
@given(st.integers(1, 40), st.integers(1, 20), st.integers(1, 7), st.booleans())
def test_snapshot_during_defrag(writes: int, more: int, step: int, replace: bool) -> None:
    """etcd#20271, #20650: here nothing is ever rewritten as a whole; compaction frees its memory in
    steps. A snapshot or a backup that is under way when it runs, or when the leader's snapshot
    replaces the whole machine, shows what it began with."""
    machine = Machine()
    for number in range(writes):
        machine.apply(["put", b"k%d" % (number % 3), b"%d" % number, 0, False])
    expected = machine.snapshot()
    pieces = machine.snapshot_parts()
    got = [next(pieces)]
    machine.apply(["compact", machine.revision])
    for number in range(more):
        machine.store.sweep(step)
        machine.apply(["put", b"k%d" % (number % 5), b"later", 0, False])
    if replace:
        machine = Machine.restore(machine.snapshot())
    got += pieces
    assert b"".join(got) == expected
    while machine.store.sweep(step):
        pass
    assert machine.store.swept
    assert Machine.restore(machine.snapshot()).hash() == machine.hash()
