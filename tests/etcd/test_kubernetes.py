"""The calls that kube-apiserver makes of etcd, in exactly its shapes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trio

from raftkv.etcd.schema import MESSAGES
from tests.etcd.client import EtcdClient, Refused, Stream
from tests.etcd.support import Fronts, in_thread, open_fronts

M = MESSAGES
MEMBER = 2
LEADER_WANTED = (("hasleader", "true"),)
PODS = b"/registry/pods/"
PODS_END = b"/registry/pods0"
COMPACT_KEY = b"compact_rev_key"
EQUAL, VERSION, MOD = 0, 0, 2


def optimistic(key: bytes, revision: int, change: Any, otherwise: Any = None) -> dict[str, Any]:
    """A txn as the apiserver's storage layer makes all its writes."""
    compare = M["Compare"](result=EQUAL, target=MOD, key=key, mod_revision=revision)
    return {
        "compare": [compare],
        "success": [change],
        "failure": [] if otherwise is None else [otherwise],
    }


def put(key: bytes, value: bytes, lease: int = 0) -> Any:
    return M["RequestOp"](request_put=M["PutRequest"](key=key, value=value, lease=lease))


def delete(key: bytes) -> Any:
    return M["RequestOp"](request_delete_range=M["DeleteRangeRequest"](key=key))


def get(key: bytes) -> Any:
    return M["RequestOp"](request_range=M["RangeRequest"](key=key))


async def test_objects_live_and_die(tmp_path: Path) -> None:
    async with open_fronts(tmp_path, 3) as fronts:
        key = PODS + b"default/a"
        made = await fronts.call("KV/Txn", MEMBER, **optimistic(key, 0, put(key, b"one")))
        assert made.succeeded
        revision = made.header.revision
        assert made.responses[0].response_put.header.revision == revision
        again = await fronts.call("KV/Txn", MEMBER, **optimistic(key, 0, put(key, b"one")))
        assert not again.succeeded
        assert again.header.revision == revision

        stale = optimistic(key, revision - 1, put(key, b"two"), get(key))
        missed = await fronts.call("KV/Txn", MEMBER, **stale)
        assert not missed.succeeded
        (found,) = missed.responses[0].response_range.kvs
        assert (found.value, found.mod_revision) == (b"one", revision)
        updated = optimistic(key, revision, put(key, b"two"), get(key))
        done = await fronts.call("KV/Txn", MEMBER, **updated)
        assert done.succeeded
        assert done.header.revision == revision + 1
        gone = optimistic(key, revision + 1, delete(key), get(key))
        done = await fronts.call("KV/Txn", MEMBER, **gone)
        assert done.succeeded
        assert done.responses[0].response_delete_range.deleted == 1
        found = await fronts.call("KV/Range", MEMBER, key=key, limit=1)
        assert not found.kvs
        assert found.header.revision == revision + 2


async def test_a_follower_answers_when_it_has_applied(tmp_path: Path) -> None:
    """So that its client's next watch begins behind what it has written itself."""
    async with open_fronts(tmp_path, 3) as fronts:
        leader = await fronts.cluster.wait_leader()
        member = next(n for n in fronts.addresses if n != leader.id)
        for number in range(50):
            put_there = await fronts.call("KV/Put", member, key=PODS, value=b"%d" % number)
            (kv,) = (await fronts.call("KV/Range", member, key=PODS, serializable=True)).kvs
            assert kv.value == b"%d" % number
            assert fronts.cluster.servers[member].revision >= put_there.header.revision


async def test_lists_in_pages_of_one_revision(tmp_path: Path) -> None:
    async with open_fronts(tmp_path) as fronts:
        for number in range(5):
            key = PODS + b"%d" % number
            await fronts.call("KV/Txn", **optimistic(key, 0, put(key, b"v")))
        first = await fronts.call("KV/Range", key=PODS, range_end=PODS_END, limit=2)
        assert (len(first.kvs), first.count, first.more) == (2, 5, True)
        pinned = first.header.revision
        await fronts.call("KV/Put", key=PODS + b"9", value=b"later")
        rest = await fronts.call(
            "KV/Range", key=first.kvs[-1].key + b"\0", range_end=PODS_END, limit=9, revision=pinned
        )
        assert (len(rest.kvs), rest.count, rest.more) == (3, 3, False)
        assert rest.header.revision == pinned + 1
        count = await fronts.call("KV/Range", key=PODS, range_end=PODS_END, count_only=True)
        assert (count.count, len(count.kvs)) == (6, 0)
        keys = await fronts.call("KV/Range", key=PODS, range_end=PODS_END, keys_only=True)
        assert {kv.value for kv in keys.kvs} == {b""}
        await fronts.call("KV/Compact", revision=pinned + 1)
        with pytest.raises(Refused) as compacted:
            await fronts.call("KV/Range", key=PODS, range_end=PODS_END, revision=pinned)
        assert compacted.value.args == (
            "OUT_OF_RANGE",
            "etcdserver: mvcc: required revision has been compacted",
        )
        with pytest.raises(Refused) as future:
            await fronts.call("KV/Range", key=PODS, range_end=PODS_END, revision=pinned + 99)
        assert future.value.args == (
            "OUT_OF_RANGE",
            "etcdserver: mvcc: required revision is a future revision",
        )


async def test_compactors_of_several_apiservers(tmp_path: Path) -> None:
    """Only the one whose version of the key is right may compact."""

    def compaction(version: int, revision: int) -> dict[str, Any]:
        compare = M["Compare"](result=EQUAL, target=VERSION, key=COMPACT_KEY, version=version)
        value = json.dumps(revision).encode()
        return {
            "compare": [compare],
            "success": [put(COMPACT_KEY, value)],
            "failure": [get(COMPACT_KEY)],
        }

    async with open_fronts(tmp_path) as fronts:
        for number in range(3):
            await fronts.call("KV/Put", key=PODS, value=b"%d" % number)
        mine = await fronts.call("KV/Txn", **compaction(0, 3))
        assert mine.succeeded
        theirs = await fronts.call("KV/Txn", **compaction(0, 3))
        assert not theirs.succeeded
        assert theirs.responses[0].response_range.kvs[0].version == 1
        await fronts.call("KV/Compact", revision=3, physical=False)
        assert (await fronts.call("KV/Txn", **compaction(1, 4))).succeeded


async def test_leases_status_and_versions(tmp_path: Path) -> None:
    async with open_fronts(tmp_path) as fronts:
        lease = await fronts.call("Lease/LeaseGrant", TTL=3660)
        assert lease.ID > 0
        assert lease.TTL == 3660
        for number in range(3):
            key = b"/registry/events/%d" % number
            await fronts.call("KV/Txn", **optimistic(key, 0, put(key, b"e", lease.ID)))
        status = await fronts.call("Maintenance/Status", metadata=LEADER_WANTED)
        assert tuple(map(int, status.version.split("."))) >= (3, 5, 13)
        assert status.dbSize > 0
        assert status.leader == 1


class Watched:
    """The apiserver's one stream for all its watches."""

    def __init__(self, client: EtcdClient) -> None:
        self._stream: Stream = client.stream("Watch", "Watch", "WatchResponse", LEADER_WANTED)

    def create(self, **fields: Any) -> Any:
        request = M["WatchCreateRequest"](prev_kv=True, progress_notify=True, **fields)
        self._stream.send(M["WatchRequest"](create_request=request))
        created = self._stream.receive()
        assert created.created
        return created

    def events(self, count: int) -> list[Any]:
        found: list[Any] = []
        while len(found) < count:
            response = self._stream.receive()
            assert all(
                event.kv.mod_revision <= response.header.revision for event in response.events
            )
            found += response.events
        return found

    def ask_progress(self) -> None:
        self._stream.send(M["WatchRequest"](progress_request=M["WatchProgressRequest"]()))

    def progress(self) -> Any:
        self.ask_progress()
        return self._stream.receive()

    def receive(self) -> Any:
        return self._stream.receive()

    def close(self) -> None:
        self._stream.close()


async def test_watches_with_progress(tmp_path: Path) -> None:
    async with open_fronts(tmp_path, 3, progress_seconds=0.5) as fronts:
        revision = (await fronts.call("KV/Put", key=PODS + b"a", value=b"1")).header.revision
        await in_thread(lambda: watch_pods(fronts, revision))


def watch_pods(fronts: Fronts, revision: int) -> None:
    client = fronts.client(MEMBER)
    watched = Watched(client)
    try:
        created = watched.create(key=PODS, range_end=PODS_END, start_revision=revision + 1)
        assert created.watch_id == 0
        other = watched.create(key=b"/registry/nodes/", range_end=b"/registry/nodes0")
        assert other.watch_id == 1
        client.call("KV/Put", key=PODS + b"a", value=b"2")
        gone = client.call("KV/DeleteRange", key=PODS + b"a").header.revision
        updated, deleted = watched.events(2)
        assert (updated.type, updated.kv.value, updated.prev_kv.value) == (0, b"2", b"1")
        assert updated.kv.create_revision < updated.kv.mod_revision  # no new object
        assert (deleted.type, deleted.kv.mod_revision, deleted.kv.value) == (1, gone, b"")
        assert deleted.prev_kv.value == b"2"

        elsewhere = client.call("KV/Put", key=b"/registry/x", value=b"1").header.revision
        told = watched.progress()
        while told.watch_id != -1 or told.header.revision < elsewhere:  # periodic ones, old ones
            assert not told.events
            told = watched.progress() if told.watch_id == -1 else watched.receive()
        told = watched.receive()
        while told.watch_id == -1:
            told = watched.receive()
        assert not told.events  # by itself, since nothing happened
    finally:
        watched.close()


async def test_progress_is_never_ahead_of_events(tmp_path: Path) -> None:
    async with open_fronts(tmp_path, 3) as fronts:

        def write() -> None:
            for number in range(300):
                fronts.client(1).call("KV/Put", key=PODS + b"%d" % (number % 7), value=b"v")

        watched = Watched(fronts.client(MEMBER))
        for start in (0, 0, 1):
            await in_thread(
                lambda start=start: watched.create(
                    key=PODS, range_end=PODS_END, start_revision=start
                )
            )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(in_thread, write)
            nursery.start_soon(in_thread, lambda: ask_for_progress(watched, 300))


def ask_for_progress(watched: Watched, puts: int) -> None:
    """While others write, on several watches of one stream."""
    try:
        progress, last, asked = 0, dict.fromkeys(range(3), 0), 0
        while min(last.values()) <= puts:
            watched.ask_progress()
            asked += 1
            response = watched.receive()
            for event in response.events:
                assert event.kv.mod_revision > max(progress, last[response.watch_id])
                last[response.watch_id] = event.kv.mod_revision
            if response.watch_id == -1:
                assert response.header.revision >= progress
                progress = response.header.revision
        assert asked
        assert progress
    finally:
        watched.close()


async def test_watch_from_a_compacted_revision_ends_with_it(tmp_path: Path) -> None:
    async with open_fronts(tmp_path) as fronts:
        for number in range(4):
            await fronts.call("KV/Put", key=PODS, value=b"%d" % number)
        await fronts.call("KV/Compact", revision=4)

        def watch() -> None:
            watched = Watched(fronts.client())
            try:
                watched.create(key=PODS, range_end=PODS_END, start_revision=2)
                ended = watched.receive()
                assert (ended.canceled, ended.compact_revision) == (True, 4)
            finally:
                watched.close()

        await in_thread(watch)


async def test_without_a_leader_calls_that_want_one_fail_at_once(tmp_path: Path) -> None:
    async with open_fronts(tmp_path, 3) as fronts:
        watched = Watched(fronts.client(MEMBER))
        await in_thread(lambda: watched.create(key=PODS))
        for other in (1, 3):
            await fronts.cluster.stop(other)
        with pytest.raises(Refused) as ended:
            await in_thread(watched.receive)
        assert ended.value.args == ("UNAVAILABLE", "etcdserver: no leader")
        watched.close()
        with pytest.raises(Refused) as refused:
            await fronts.call("KV/Range", MEMBER, LEADER_WANTED, key=PODS)
        assert refused.value.args == ("UNAVAILABLE", "etcdserver: no leader")
        local = await fronts.call("KV/Range", MEMBER, key=PODS, serializable=True)
        assert local.header.revision >= 1
