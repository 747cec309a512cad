"""In which order a connection says what it says about its watches, whatever goes on beside."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.lowlevel

from raftkv.client import KvClient, delete_op, prefix_end, put_op
from raftkv.wire.framing import encode
from tests.server.support import client_of, open_cluster
from tests.server.test_sessions import Raw

KEYS = [b"k/a", b"k/b", b"k/c"]


@attrs.define
class Seen:
    """What one watch was told so far."""

    created: bool = False
    canceled: bool = False
    told_to: int = 0
    events: dict[tuple[bytes, int], None] = attrs.field(factory=dict)

    def push(self, kind: str, revision: int, events: list[Any]) -> None:
        assert self.created, "pushed before it was created"
        assert not self.canceled, "pushed after its cancellation was acknowledged"
        if kind == "progress":
            assert revision >= self.told_to
            self.told_to = revision
            return
        revisions = [event[1][3] for event in events]
        assert revisions == sorted(revisions)
        assert revisions[0] > self.told_to, "a revision was told twice, in parts, or after progress"
        assert revisions[-1] == revision
        for event in events:
            place = (event[1][0], event[1][3])
            assert place not in self.events
            self.events[place] = None
        self.told_to = revision


@attrs.define
class Conversation:
    """One connection that makes and cancels watches as fast as it can."""

    raw: Raw
    rng: random.Random
    asked: dict[int, tuple[str, int]] = attrs.field(factory=dict)
    watches: dict[int, Seen] = attrs.field(factory=dict)
    numbers: int = 1

    async def talk(self, turns: int) -> None:
        for _ in range(turns):
            await self.raw.stream.send_all(encode([self._request() for _ in range(3)]))
            await trio.lowlevel.checkpoint()
        await self.raw.stream.send_all(encode([[self._number("end", 0), "revision"]]))

    def _number(self, what: str, watch: int) -> int:
        self.numbers += 1
        self.asked[self.numbers] = (what, watch)
        return self.numbers

    def _request(self) -> list[Any]:
        rng = self.rng
        if not self.watches or rng.random() < 0.4:
            watch = len(self.watches) + 1
            self.watches[watch] = Seen()
            key, end = rng.choice([(rng.choice(KEYS), None), (b"k/", prefix_end(b"k/"))])
            return [self._number("watch", watch), "watch", watch, key, end, rng.choice((0, 1)), 0]
        watch = rng.choice(list(self.watches))
        what = rng.choice(["watch_cancel", "watch_progress"])
        return [self._number(what, watch), what, watch]

    async def listen(self) -> None:
        while True:
            for message in await self.raw.receive():
                if message[0]:
                    what, number = self.asked.pop(message[0])
                    if what == "end":
                        return
                    if what == "watch":
                        self.watches[number].created = True
                    elif what == "watch_cancel":
                        self.watches[number].canceled = True
                    continue
                ids = message[1] if type(message[1]) is list else [message[1]]
                for number in ids:
                    self.watches[number].push(message[2], message[3], message[4:] and message[4])


async def _write(kv: KvClient, rng: random.Random) -> None:
    while True:
        one, two = rng.sample(KEYS, 2)
        other = delete_op(two) if rng.random() < 0.3 else put_op(two, b"2")
        await kv.txn([], [put_op(one, b"1"), other])


@pytest.mark.parametrize("seed", range(3))
async def test_created_before_events(tmp_path: Path, seed: int) -> None:
    """Created, then events by whole revisions, each once, then progress; after the answer to a
    cancellation, nothing. Also `test_cancel_ack_last` and `test_no_duplicate_in_txn`."""
    rng = random.Random(seed)
    async with open_cluster(tmp_path, 1) as cluster, client_of(cluster) as kv:
        await kv.put(b"k/a", b"0")
        raw = await Raw.open(cluster, cluster.endpoints[0])
        conversation = Conversation(raw, rng)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_write, kv, rng)
            nursery.start_soon(conversation.talk, 100)
            await conversation.listen()
            nursery.cancel_scope.cancel()
        watches = conversation.watches.values()
        assert sum(len(watch.events) for watch in watches) > 50
        assert any(watch.canceled and watch.events for watch in watches)


async def test_cancel_ack_last(tmp_path: Path) -> None:
    """Nothing about a watch follows the answer to its cancellation, though writes go on."""
    async with open_cluster(tmp_path, 1) as cluster, client_of(cluster) as kv:
        raw = await Raw.open(cluster, cluster.endpoints[0])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_write, kv, random.Random(1))
            for watch in range(1, 30):
                await raw.stream.send_all(encode([[2 * watch, "watch", watch, b"k/a", None, 1, 0]]))
                await raw.stream.send_all(encode([[2 * watch + 1, "watch_cancel", watch]]))
            answered: dict[int, None] = {}
            while len(answered) < 58:
                for message in await raw.receive():
                    if message[0]:
                        answered[message[0]] = None
                        continue
                    for watch in message[1] if type(message[1]) is list else [message[1]]:
                        assert 2 * watch in answered
                        assert 2 * watch + 1 not in answered
            nursery.cancel_scope.cancel()


async def test_no_duplicate_in_txn(tmp_path: Path) -> None:
    """etcd#17247: one event for each key and revision, whatever one transaction does to the key."""
    async with open_cluster(tmp_path, 1) as cluster, client_of(cluster) as kv:
        await kv.put(b"k/a", b"0")
        await kv.put(b"k/b", b"0")
        await kv.txn([], [delete_op(b"k/a"), delete_op(b"k/", b"k0")])
        async with kv.watch(b"k/", prefix_end(b"k/"), start_revision=1) as watch:
            seen: list[tuple[bytes, int]] = []
            async for batch in watch:
                seen += [(event.kv.key, event.kv.mod_revision) for event in batch.events]
                if batch.revision >= 4:
                    break
    assert seen == [(b"k/a", 2), (b"k/b", 3), (b"k/a", 4), (b"k/b", 4)]
