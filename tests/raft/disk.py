"""One member's disk as the tests of the core see it: what of a batch survives a crash."""

from __future__ import annotations

import random

import attrs

from raftkv.raft import Effects, Entry, HardState, Restored, Snapshot


@attrs.define
class Disk:
    """What survives a crash of one member."""

    hard_state: HardState = attrs.Factory(HardState)
    snapshot: Snapshot | None = None
    entries: list[Entry] = attrs.Factory(list)

    def write(self, effects: Effects) -> None:
        if effects.snapshot is not None:
            self.snapshot = effects.snapshot
            self.entries = []
        if effects.hard_state is not None:
            self.hard_state = effects.hard_state
        if effects.entries:
            first = effects.entries[0].index
            if self.entries:
                del self.entries[max(0, first - self.entries[0].index) :]
            self.entries += effects.entries

    def write_torn(self, effects: Effects, rng: random.Random) -> None:
        """The crash came during the write: some part of the batch is there, entries last to
        first lost, and none of them without the snapshot that they follow."""
        snapshot = effects.snapshot if rng.random() < 0.5 else None
        cut = rng.randint(0, len(effects.entries)) if snapshot is effects.snapshot else 0
        self.write(
            attrs.evolve(
                effects,
                snapshot=snapshot,
                hard_state=effects.hard_state if rng.random() < 0.5 else None,
                entries=effects.entries[:cut],
            )
        )

    def holds(self, index: int, term: int | None) -> bool:
        """Whether the entry is there, or a snapshot stands for it."""
        if self.entries and self.entries[0].index <= index <= self.entries[-1].index:
            return self.entries[index - self.entries[0].index].term == term
        return self.snapshot is not None and index <= self.snapshot.meta.index

    @property
    def last_index(self) -> int:
        if self.entries:
            return self.entries[-1].index
        return self.snapshot.meta.index if self.snapshot else 0

    def compact(self, snapshot: Snapshot, keep_behind: int) -> None:
        if self.snapshot is None or snapshot.meta.index > self.snapshot.meta.index:
            self.snapshot = snapshot
            first = snapshot.meta.index - keep_behind
            self.entries = [e for e in self.entries if e.index > first]

    def restored(self) -> Restored:
        snapshot = self.snapshot
        applied = snapshot.meta.index if snapshot else 0
        meta = snapshot.meta if snapshot else None
        return Restored(self.hard_state, meta, list(self.entries), applied)
