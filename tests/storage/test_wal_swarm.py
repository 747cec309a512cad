"""The log on a simulated disk, killed and powered off at random, over and over.

Whatever was promised must be there; beyond it at most the one batch that was being written.
"""

from __future__ import annotations

import random

import attrs
import pytest
import trio

from netsim.hosts import SimHost
from netsim.world import World, run
from raftkv.raft.messages import Entry, HardState, Snapshot, SnapshotMeta
from raftkv.storage.replay import Identity, Recovered
from raftkv.storage.wal import Wal

ME = Identity(5, 1, 77)
SEGMENT_BYTES = 2000


@attrs.define
class Model:
    """What a correct log holds."""

    hard_state: HardState = attrs.Factory(HardState)
    terms: dict[int, int] = attrs.Factory(dict)
    """Of the entries behind the snapshot, by index."""
    last_index: int = 0
    snapshot: int = 0

    def copy(self) -> Model:
        return Model(self.hard_state, dict(self.terms), self.last_index, self.snapshot)

    def agrees(self, found: Recovered) -> bool:
        snapshot = 0 if found.snapshot_meta is None else found.snapshot_meta.index
        terms = {entry.index: entry.term for entry in found.entries if entry.index > snapshot}
        return (
            found.hard_state == self.hard_state
            and snapshot == self.snapshot
            and found.last_index == self.last_index
            and terms == {i: term for i, term in self.terms.items() if i > snapshot}
        )


@attrs.define
class Bookkeeper:
    """Outside of the world's crashes."""

    promised: Model = attrs.Factory(Model)
    attempted: Model = attrs.Factory(Model)
    lives: int = 0
    syncs: int = 0
    snapshots: int = 0
    halves: int = 0
    """Lives that found more than was promised."""

    def check(self, found: Recovered) -> None:
        self.lives += 1
        if not self.promised.agrees(found):
            assert self.attempted.agrees(found), (self.promised, self.attempted, found)
            self.promised = self.attempted.copy()
            self.halves += 1
        self.attempted = self.promised.copy()


async def member(host: SimHost, books: Bookkeeper, rng: random.Random) -> None:
    wal, found = await Wal.open(host.disk("data"), ME, segment_bytes=SEGMENT_BYTES)
    books.check(found)
    assert wal.last_index == books.promised.last_index
    while True:
        model = books.attempted = books.promised.copy()
        state = model.hard_state
        choice = rng.random()
        if choice < 0.1:
            state = HardState(state.term + 1, rng.randrange(1, 4), state.commit)
        elif choice < 0.5:
            state = state._replace(commit=rng.randint(state.commit, model.last_index))
        first = model.last_index + 1
        if choice < 0.1 and model.last_index > state.commit:
            first = rng.randint(state.commit + 1, model.last_index)
        entries = [
            Entry(first + i, state.term, 0, rng.randbytes(rng.choice((0, 10, 600))))
            for i in range(rng.choice((0, 1, 1, 5)))
        ]
        wal.append(None if state == model.hard_state else state, entries)
        model.hard_state = state
        if entries:
            model.terms = {i: t for i, t in model.terms.items() if i < first}
            model.terms |= {entry.index: entry.term for entry in entries}
            model.last_index = entries[-1].index
        kind = rng.random()
        if kind < 0.05 and state.commit > model.snapshot:
            await save(wal, model, state.commit, model.terms[state.commit])
            books.snapshots += 1
        elif kind < 0.07:
            await save(wal, model, model.last_index + 10, max(1, state.term))
            books.snapshots += 1
        else:
            await wal.sync()
        books.promised = model
        books.syncs += 1
        if rng.random() < 0.1:
            await wal.release(rng.randint(0, model.last_index))


async def save(wal: Wal, model: Model, index: int, term: int) -> None:
    """An own snapshot at a committed entry, or a leader's beyond the end of the log."""
    commit = max(model.hard_state.commit, index)
    model.hard_state = model.hard_state._replace(commit=commit)
    model.snapshot = index
    if index > model.last_index:
        model.last_index = index
        model.terms = {}
    meta = SnapshotMeta(index, term, (1,), ())
    await wal.save_snapshot(Snapshot(meta, b"state " * 100))


async def scenario(world: World) -> Bookkeeper:
    books = Bookkeeper()
    rng = world.rng("scenario")
    host = world.host("m")
    host.start(member, host, books, world.rng("member"))
    for _ in range(40):
        await trio.sleep(rng.uniform(0.0, 0.15))
        world.crash(host, power=rng.random() < 0.6)
        await world.restart(host)
    await trio.sleep(0.5)
    return books


@pytest.mark.parametrize("seed", range(12))
def test_promises_survive_crashes(seed: int) -> None:
    books = run(seed, scenario).result
    assert books.lives > 20
    assert books.syncs > 200
    assert books.snapshots > 5


def test_the_swarm_reaches_what_it_is_for() -> None:
    books = [run(seed, scenario).result for seed in range(100, 104)]
    assert sum(each.halves for each in books) > 5, "batches that were written but not promised"
