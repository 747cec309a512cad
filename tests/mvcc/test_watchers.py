"""Watching: the named bugs of others, and the rules of etcd's interface."""

from __future__ import annotations

from typing import Any

import pytest

from raftkv.errors import Compacted
from raftkv.mvcc.machine import Machine
from raftkv.mvcc.watchers import WatchHub


def put(key: bytes, value: bytes = b"v") -> list[Any]:
    return ["put", key, value, 0, False]


class Bench:
    def __init__(self) -> None:
        self.machine = Machine()
        self.hub = WatchHub(self.machine)

    def do(self, *commands: list[Any]) -> dict[int, Any]:
        events = [event for command in commands for event in self.machine.apply(command)[1]]
        return dict(self.hub.notify(events))


def revisions(events: Any) -> list[int]:
    return [event[1][3] for event in events]


def test_revision_0_means_now() -> None:
    bench = Bench()
    bench.do(put(b"a"))
    watch = bench.hub.add(1, b"a")
    assert watch.synced
    assert watch.next_revision == 3
    assert revisions(bench.do(put(b"a"))[1]) == [3]


def test_history_then_live() -> None:
    bench = Bench()
    bench.do(put(b"a"), put(b"b"), put(b"a"))
    assert not bench.hub.add(1, b"a", start_revision=2).synced
    first, synced = bench.hub.history(1, 2)
    assert revisions(first) == [2]
    assert not synced
    assert 1 not in bench.do(put(b"a")), "nothing may overtake the history"
    rest, synced = bench.hub.history(1, 2)
    assert revisions(rest) == [4, 5]
    assert synced
    assert revisions(bench.do(put(b"a"))[1]) == [6]


def test_progress_never_ahead_of_events() -> None:
    """etcd#15220: no progress while one watcher of the stream still has history to read."""
    bench = Bench()
    bench.do(put(b"a"), put(b"a"))
    bench.hub.add(1, b"a")
    bench.hub.add(2, b"a", start_revision=2)
    assert bench.hub.progress([1]) == 3
    assert bench.hub.progress([1, 2]) is None
    bench.hub.history(2)
    assert bench.hub.progress([1, 2]) == 3


def test_watch_future_rev() -> None:
    """etcd#20221: nothing older, no progress below the start, also over a snapshot."""
    bench = Bench()
    bench.hub.add(1, b"a", start_revision=5)
    assert bench.hub.progress([1]) is None
    assert bench.do(put(b"a")) == {}
    other = Machine()
    for _ in range(2):
        other.apply(put(b"a"))
    assert list(bench.hub.replace_machine(Machine.restore(other.snapshot()))) == []
    bench.machine = other = Machine.restore(other.snapshot())
    bench.hub.replace_machine(other)
    assert bench.hub.progress([1]) is None
    assert revisions(bench.do(put(b"a"), put(b"a"), put(b"b"), put(b"a"))[1]) == [5, 7]
    assert bench.hub.progress([1]) == 7


def test_future_watcher_counts_as_synced_when_its_time_has_come() -> None:
    bench = Bench()
    bench.hub.add(1, b"a", start_revision=3)
    bench.do(put(b"b"))
    assert bench.hub.progress([1]) == 2
    assert revisions(bench.do(put(b"a"))[1]) == [3]


def test_watch_not_back_in_time_after_snapshot() -> None:
    """etcd#15271: a follower gets a snapshot; the stream goes on where it was."""
    bench = Bench()
    other = Machine()
    for index in range(6):
        command = put(b"a", b"%d" % index)
        other.apply(command)
        if index < 3:
            bench.do(command)
    bench.hub.add(1, b"a")
    behind = list(bench.hub.replace_machine(Machine.restore(other.snapshot())))
    assert [watch.id for watch in behind] == [1]
    events, synced = bench.hub.history(1)
    assert revisions(events) == [5, 6, 7]
    assert synced
    with pytest.raises(AssertionError):
        bench.hub.replace_machine(Machine())


def test_snapshot_that_compacted_past_a_watcher_ends_it() -> None:
    bench = Bench()
    bench.hub.add(1, b"a")
    other = Machine()
    for _ in range(5):
        other.apply(put(b"a"))
    other.apply(["compact", 5])
    bench.hub.replace_machine(Machine.restore(other.snapshot()))
    with pytest.raises(Compacted) as caught:
        bench.hub.history(1)
    assert caught.value.compact_revision == 5


def test_slow_watcher_loses_nothing() -> None:
    """etcd#17529: all events, or the end with the compacted revision, as often as it is asked."""
    bench = Bench()
    bench.hub.add(1, b"a")
    bench.hub.add(2, b"a")
    for watch_id in (1, 2):
        bench.hub.fall_behind(watch_id, 2)
    bench.do(put(b"a"), put(b"a"), put(b"a"))
    events, synced = bench.hub.history(1)
    assert revisions(events) == [2, 3, 4]
    assert synced
    bench.do(["compact", 3])
    for _ in range(3):
        with pytest.raises(Compacted) as caught:
            bench.hub.history(2)
        assert caught.value.compact_revision == 3
    bench.hub.remove(2)
    bench.hub.remove(2)


def test_delete_at_compact_rev_kept() -> None:
    """etcd#18089: compaction exactly at a tombstone; a watch from there still gets the delete,
    the same before and after a restore."""
    bench = Bench()
    bench.do(put(b"a"), ["delete", b"a", None, False], ["compact", 3])
    assert bench.machine.store.swept
    for machine in (bench.machine, Machine.restore(bench.machine.snapshot())):
        hub = WatchHub(machine)
        hub.add(1, b"a", start_revision=3)
        events, _ = hub.history(1)
        assert events == [("delete", (b"a", b"", 0, 3, 0, 0), None)]


def test_watch_compacted_rev() -> None:
    bench = Bench()
    bench.do(put(b"a"), put(b"a"), put(b"a"), ["compact", 3])
    with pytest.raises(Compacted) as caught:
        bench.hub.add(1, b"a", start_revision=2)
    assert caught.value.compact_revision == 3
    assert str(caught.value) == "etcdserver: mvcc: required revision has been compacted"
    assert bench.hub.add(1, b"a", start_revision=3)


def test_revision_atomic_fragment() -> None:
    """The events of one revision come in one piece, however small the steps of history."""
    bench = Bench()
    txn = ["txn", [], [put(b"a"), put(b"b"), put(b"c")], []]
    bench.do(txn, txn)
    bench.hub.add(1, b"a", b"z", 2)
    pieces = []
    synced = False
    while not synced:
        events, synced = bench.hub.history(1, 1)
        pieces.append(revisions(events))
    assert pieces == [[2, 2, 2], [3, 3, 3]]


def test_watchers_of_one_range_share_the_events() -> None:
    """What lets an encoder work once for all of them."""
    bench = Bench()
    for watch_id in range(100):
        bench.hub.add(watch_id, b"a", b"b")
    told = bench.do(put(b"a1"), put(b"a2"), put(b"b"))
    assert len(told) == 100
    assert len({id(events) for events in told.values()}) == 1
    assert revisions(told[0]) == [2, 3]


def test_watcher_memory_bounded() -> None:
    """etcd#16839: ten thousand slow watchers cost a cursor each, and matching skips them."""
    bench = Bench()
    for watch_id in range(10_000):
        bench.hub.add(watch_id, b"a")
        bench.hub.fall_behind(watch_id, 2)
    assert bench.do(*(put(b"a") for _ in range(100))) == {}
    for watch_id in (0, 9_999):
        assert len(bench.hub.history(watch_id)[0]) == 100


@pytest.mark.parametrize(
    ("key", "end", "seen"),
    [
        (b"b", None, [b"b"]),
        (b"b", b"c", [b"b", b"b1", b"b\xff"]),
        (b"b", b"\0", [b"b", b"b1", b"b\xff", b"c", b"\xff"]),
        (b"\0", b"\0", [b"a", b"b", b"b1", b"b\xff", b"c", b"\xff"]),
        (b"", b"\0", [b"a", b"b", b"b1", b"b\xff", b"c", b"\xff"]),
        (b"b1", b"c", [b"b1", b"b\xff"]),
        (b"\xff", b"\0", [b"\xff"]),
        (b"c", b"a", []),
    ],
)
def test_ranges(key: bytes, end: bytes | None, seen: list[bytes]) -> None:
    bench = Bench()
    bench.hub.add(1, key, end)
    commands = [put(each) for each in (b"a", b"b", b"b1", b"b\xff", b"c", b"\xff")]
    told = bench.do(*commands).get(1, [])
    assert [event[1][0] for event in told] == seen
    bench.hub.remove(1)
    assert bench.do(put(b"b")) == {}
    assert not bench.hub._groups
    assert not bench.hub._exact
    assert not bench.hub._prefixes
    assert not bench.hub._ranges
