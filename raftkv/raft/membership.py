"""Who takes part: configurations, the changes allowed, and their history in the log.

Owns: the rules of single-server change (thesis chapter 4). A configuration holds from the moment
it is *appended* to a member's log, committed or not, so two leaders never count by majorities
that do not overlap; truncation takes it back. Each MEMBERSHIP entry holds the whole configuration,
not the difference, so going back is dropping the last element of the history.
Assumes: the leader checks that no earlier change is uncommitted and that it has committed an entry
of its own term (the second rule is the fix of July 2015 to single-server change).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

import msgpack

from raftkv.raft.errors import ChangeRefused
from raftkv.raft.messages import MEMBERSHIP, Entry

__all__ = [
    "Change",
    "ChangeKind",
    "Configuration",
    "History",
    "changed",
    "decode",
    "encode",
]


class ChangeKind(IntEnum):
    ADD_LEARNER = 1
    ADD_VOTER = 2
    """Of a learner: its promotion. Of a stranger: allowed, but a learner first is safer."""
    REMOVE = 3
    DEMOTE = 4
    """A voter becomes a learner."""


class Change(NamedTuple):
    """`context` travels with the entry to every member; the core does not look at it."""

    kind: ChangeKind
    member: int
    context: bytes = b""


class Configuration(NamedTuple):
    """Both sorted, without a member in common."""

    voters: tuple[int, ...]
    learners: tuple[int, ...] = ()

    @property
    def members(self) -> tuple[int, ...]:
        return tuple(sorted(self.voters + self.learners))


def encode(configuration: Configuration, context: bytes = b"") -> bytes:
    """The data of a MEMBERSHIP entry."""
    data: bytes = msgpack.packb([configuration.voters, configuration.learners, context])
    return data


def decode(data: bytes) -> tuple[Configuration, bytes]:
    """(configuration, context) of a MEMBERSHIP entry."""
    voters, learners, context = msgpack.unpackb(data)
    assert isinstance(context, bytes)
    return Configuration(tuple(voters), tuple(learners)), context


def changed(old: Configuration, change: Change) -> Configuration:
    """The configuration after `change`. Raises ChangeRefused."""
    member = change.member
    voters, learners = set(old.voters), set(old.learners)
    if member <= 0:
        raise ChangeRefused(f"member id must be positive, not {member}")
    if change.kind is ChangeKind.ADD_LEARNER:
        if member in voters or member in learners:
            raise ChangeRefused(f"{member} is a member already")
        learners.add(member)
    elif change.kind is ChangeKind.ADD_VOTER:
        if member in voters:
            raise ChangeRefused(f"{member} is a voter already")
        learners.discard(member)
        voters.add(member)
    elif change.kind is ChangeKind.REMOVE:
        if member not in voters and member not in learners:
            raise ChangeRefused(f"{member} is not a member")
        learners.discard(member)
        voters.discard(member)
    else:
        if member not in voters:
            raise ChangeRefused(f"{member} is not a voter")
        voters.discard(member)
        learners.add(member)
    if not voters:
        raise ChangeRefused(f"{member} is the last voter")
    assert len(voters.symmetric_difference(old.voters)) <= 1, "more than one voter changed"
    assert not voters & learners
    return Configuration(tuple(sorted(voters)), tuple(sorted(learners)))


class History:
    """The configurations in the log, by the index of their entries; the last one holds."""

    __slots__ = ("_items",)

    def __init__(self, index: int, base: Configuration) -> None:
        self._items: list[tuple[int, Configuration]] = [(index, base)]

    @property
    def current(self) -> Configuration:
        return self._items[-1][1]

    @property
    def current_index(self) -> int:
        """Index of the entry that brought the current configuration."""
        return self._items[-1][0]

    def at(self, index: int) -> Configuration:
        """The configuration that held with the log up to `index`."""
        for position, configuration in reversed(self._items):
            if position <= index:
                return configuration
        raise AssertionError(f"no configuration known at {index}")

    def append(self, entries: Sequence[Entry]) -> bool:
        """Note the configurations among new entries; whether there was one."""
        found = False
        for entry in entries:
            if entry.kind == MEMBERSHIP:
                assert entry.index > self.current_index
                self._items.append((entry.index, decode(entry.data)[0]))
                found = True
        return found

    def truncate_from(self, index: int) -> bool:
        """Entries from `index` on are gone; whether a configuration went with them."""
        before = len(self._items)
        while len(self._items) > 1 and self._items[-1][0] >= index:
            self._items.pop()
        assert self._items[-1][0] < index, "the committed base was truncated"
        return len(self._items) < before

    def compact(self, index: int) -> None:
        """Forget configurations that were replaced at or before `index`."""
        while len(self._items) > 1 and self._items[1][0] <= index:
            del self._items[0]
