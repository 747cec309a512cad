"""Clients of a cluster, simulated or real: what they do, and an honest record of what they were
told."""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Awaitable, Callable, Container
from typing import Any, Protocol

import attrs
import trio

from raftkv.client import KvClient, compare, put_op
from raftkv.client.types import FROM_KEY
from raftkv.errors import (
    Compacted,
    InvalidRequest,
    KvError,
    LeaseNotFound,
    NotApplied,
    UnknownOutcome,
)
from raftkv.mvcc.machine import Machine
from tests.checkers.history import History, Operation
from tests.checkers.leases import LeaseLife
from tests.checkers.replayed import Change
from tests.checkers.watches import WatchViolation, check_watch

__all__ = ["Caller", "LeaseHolder", "Scene", "Watcher"]

KEYS = [b"k/a", b"k/b", b"k/c"]
KEYS_END = b"k/d"


class Scene(Protocol):
    """Where it happens: a simulated world, or this one."""

    def time(self) -> float:
        """Seconds, for comparison with each other only."""
        ...

    def note(self, line: str) -> None: ...


@attrs.define
class Caller:
    """One client that writes and reads a few keys, one request at a time."""

    world: Scene
    number: int
    kv: KvClient
    history: History
    rng: random.Random
    pause: float
    seen: dict[bytes, int] = attrs.field(factory=dict)
    made: int = 0
    stopped: bool = False
    newest: int = 0

    async def run(self) -> None:
        while True:
            await trio.sleep(self.rng.random() * self.pause)
            if not self.stopped:
                await self.request()

    async def request(self) -> None:
        """One random request, with a random patience."""
        (kind,) = self.rng.choices(tuple(WEIGHTS), tuple(WEIGHTS.values()))
        if kind in _CHORES:
            await _CHORES[kind](self)
            return
        keys = self.rng.sample(KEYS, 2 if kind == "pair" else 1)
        now = self.world.time()
        recorded = "put" if kind == "pair" else kind
        operations = [self.history.begin(now, self.number, recorded, key) for key in keys]
        action = _ACTIONS[kind]
        try:
            with trio.move_on_after(self.rng.choice((0.3, 2.0, 10.0))):
                await action(self, *operations)
        except UnknownOutcome:
            pass
        except NotApplied:
            for operation in operations:
                operation.failed(self.world.time())
        except KvError as error:
            told = f"not an error to expect: {error!r} for {operations[0]}"
            raise AssertionError(told) from error
        for operation in operations:
            self.world.note(str(operation))

    def _value(self) -> bytes:
        """Never the same twice; now and then a big one."""
        self.made += 1
        value = b"%d.%d" % (self.number, self.made)
        return value.ljust(20_000, b".") if self.rng.random() < 0.03 else value

    def _ok(self, operation: Operation, result: Any, revision: int) -> None:
        operation.ok(self.world.time(), result, revision)
        self.newest = max(self.newest, revision)

    async def put(self, operation: Operation) -> None:
        operation.argument = self._value()
        revision = await self.kv.put(operation.key, operation.argument)
        self._ok(operation, None, revision)

    async def get(self, operation: Operation) -> None:
        answer = await self.kv.range(operation.key, serializable=operation.kind == "peek")
        found = answer.kvs[0] if answer.kvs else None
        self.seen[operation.key] = found.mod_revision if found else 0
        result = (found.value, found.mod_revision) if found else None
        self._ok(operation, result, answer.revision)

    async def cas(self, operation: Operation) -> None:
        expected = self.seen.get(operation.key, 0)
        operation.argument = (expected, self._value())
        answer = await self.kv.txn(
            [compare(operation.key, "mod", "=", expected)],
            [put_op(operation.key, operation.argument[1])],
            [],
        )
        self._ok(operation, answer.succeeded, answer.revision)

    async def pair(self, first: Operation, second: Operation) -> None:
        """Two keys in one revision: a watch must show both or neither."""
        writes = []
        for operation in (first, second):
            operation.argument = self._value()
            writes.append(put_op(operation.key, operation.argument))
        answer = await self.kv.txn([], writes)
        self._ok(first, None, answer.revision)
        self._ok(second, None, answer.revision)

    async def delete(self, operation: Operation) -> None:
        answer = await self.kv.txn([], [["delete", operation.key, None, False]], [])
        self._ok(operation, bool(answer.results[0][1]), answer.revision)

    async def list(self, operation: Operation) -> None:
        """A page of all keys, sometimes of an older revision."""
        rng = self.rng
        pinned = max(0, self.newest - rng.randrange(20)) if rng.random() < 0.5 else 0
        operation.key = KEYS[0]
        operation.argument = end, limit, _ = (KEYS_END, rng.choice((0, 1, 2)), pinned)
        try:
            answer = await self.kv.range(KEYS[0], end, limit=limit, revision=pinned)
        except Compacted:
            operation.failed(self.world.time())
            return
        pairs = [(pair.key, pair.value, pair.mod_revision) for pair in answer.kvs]
        self._ok(operation, (pairs, answer.count, answer.more), answer.revision)

    async def _back_up(self) -> None:
        """While everything else goes on; a backup that is whole can be read."""
        pieces: list[bytes] = []
        with trio.move_on_after(2.0), contextlib.suppress(NotApplied, UnknownOutcome):
            revision = await self.kv.save_snapshot(pieces.append)
            found = Machine.restore(b"".join(pieces)).revision
            assert found == revision, f"a backup of {revision} holds {found}"
            self.world.note(f"backed up {revision}")

    async def _compact(self) -> None:
        revision = self.newest - self.rng.randrange(30)
        if revision <= 0:
            return
        try:
            with trio.move_on_after(2.0):
                await self.kv.compact(revision)
                self.world.note(f"compacted {revision}")
        except (UnknownOutcome, NotApplied, Compacted):
            pass

    async def _move_leader(self) -> None:
        with trio.move_on_after(2.0), contextlib.suppress(InvalidRequest, NotApplied):
            await self.kv.move_leader(self.rng.randrange(1, 4))
            self.world.note("leadership was moved")


WEIGHTS = {
    "put": 5,
    "get": 5,
    "cas": 4,
    "delete": 1,
    "peek": 1,
    "list": 1,
    "pair": 1,
    "compact": 0.3,
    "back up": 0.1,
    "move": 0.15,
}
"""How often a client does what, beside the others."""
_CHORES: dict[str, Callable[[Caller], Awaitable[None]]] = {
    "compact": lambda caller: caller._compact(),
    "back up": lambda caller: caller._back_up(),
    "move": lambda caller: caller._move_leader(),
}
_ACTIONS: dict[str, Callable[..., Awaitable[None]]] = {
    "put": Caller.put,
    "list": Caller.list,
    "get": Caller.get,
    "peek": Caller.get,
    "cas": Caller.cas,
    "delete": Caller.delete,
    "pair": Caller.pair,
}


@attrs.define
class Segment:
    """What one watch showed, from its start revision until it was closed."""

    start: int
    batches: list[list[Change]] = attrs.field(factory=list)
    shown_to: int = 0


@attrs.define
class Watcher:
    """A client that watches a range for as long as it lasts, and begins again after compaction."""

    kv: KvClient
    key: bytes
    end: bytes
    prev_kv: bool = False
    no_put: bool = False
    segments: list[Segment] = attrs.field(factory=list)

    async def run(self, start: int = 1) -> None:
        while True:
            segment = Segment(start)
            self.segments.append(segment)
            try:
                await self._watch(segment)
            except Compacted as error:
                start = error.compact_revision or await self._revision()

    async def _watch(self, segment: Segment) -> None:
        async with self.kv.watch(
            self.key,
            self.end,
            start_revision=segment.start,
            progress=True,
            prev_kv=self.prev_kv,
            no_put=self.no_put,
        ) as watch:
            async for batch in watch:
                changes = [
                    Change(
                        event.kv.mod_revision,
                        event.kv.key,
                        event.kv.value if event.type == "put" else None,
                        event.kv.create_revision,
                        event.prev_kv.value if event.prev_kv is not None else None,
                    )
                    for event in batch.events
                ]
                if changes:
                    if changes[0].revision <= segment.shown_to:
                        raise WatchViolation(f"{changes[0]} after all up to {segment.shown_to}")
                    segment.batches.append(changes)
                segment.shown_to = max(segment.shown_to, batch.revision)

    async def _revision(self) -> int:
        while True:
            try:
                return await self.kv.current_revision()
            except (NotApplied, UnknownOutcome):
                await trio.sleep(0.5)

    @property
    def shown_to(self) -> int:
        return self.segments[-1].shown_to if self.segments else 0

    def check(self, changes: list[Change], compactions: Container[int]) -> None:
        """Raise WatchViolation where it was shown anything else than what happened."""
        for segment in self.segments:
            check_watch(
                segment.batches,
                changes,
                start=segment.start,
                key=self.key,
                end=None if self.end == FROM_KEY else self.end,
                complete_to=segment.shown_to,
                no_put=self.no_put,
                previous=self.prev_kv,
                compactions=compactions,
            )


ALL_KEYS = (FROM_KEY, FROM_KEY)


@attrs.define
class LeaseHolder:
    """A client that holds leases for a while, lets them run out, and looks when they are gone."""

    world: Scene
    kv: KvClient
    history: History
    rng: random.Random
    lives: list[LeaseLife] = attrs.field(factory=list)

    async def run(self) -> None:
        while True:
            try:
                await self._hold_one()
            except (NotApplied, UnknownOutcome):
                await trio.sleep(0.5)

    async def _hold_one(self) -> None:
        ttl = self.rng.randrange(2, 6)
        called = self.world.time()
        lease = await self.kv.lease_grant(ttl)
        life = LeaseLife(lease, ttl, called, self.world.time())
        self.lives.append(life)
        key = b"l/%d" % len(self.lives)
        operation = self.history.begin(called, 0, "put", key, b"lease %d" % len(self.lives))
        try:
            revision = await self.kv.put(key, operation.argument, lease)
            operation.ok(self.world.time(), None, revision)
        except LeaseNotFound:
            operation.failed(self.world.time())
        for _ in range(self.rng.randrange(4)):
            await trio.sleep(self.rng.random() * ttl * 1.5)
            called = self.world.time()
            # A renewal whose answer never comes may have been one.
            attempted, life.attempted = life.attempted, math.inf
            try:
                await self.kv.lease_keep_alive(lease)
            except LeaseNotFound:
                life.gone = self.world.time()
                return
            life.attempted = attempted
            life.renewed(called, self.world.time())
        await self._wait_gone(life, key)

    async def _wait_gone(self, life: LeaseLife, key: bytes) -> None:
        while True:
            await trio.sleep(0.3)
            remaining, _, _ = await self.kv.lease_time_to_live(life.lease)
            if remaining < 0:
                life.gone = self.world.time()
                self.world.note(f"lease {life.lease} gone")
                left = await self.kv.get(key)
                assert left is None, f"{left} outlived its lease"
                return
