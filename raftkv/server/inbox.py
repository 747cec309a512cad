"""The replica's inbox: everything that reaches the actor from other tasks.

Owns: four queues, a count of ticks and one wake-up. Producers append and go on; the actor takes
all at once, so the cost of waking it is paid per batch. Nothing here awaits but the waits for work
and for room.

When one of them is full, no connection is read on (`wait_room`) until the actor has taken all:
what had arrived before that is still taken, at most one chunk a connection. So clients wait, and
so do members, which drop what they can't send. Ticks beyond `TICKS_MAX` are lost, since time that
passed while the disk hung must not start an election at once.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import trio

from raftkv.streams import Wakeup

__all__ = ["Inbox", "Proposal", "Read", "Reader", "ReplyTo"]

PROPOSALS_MAX = 16_384
READS_MAX = 16_384
MESSAGES_MAX = 8_192
CALLS_MAX = 1_024
TICKS_MAX = 2


class ReplyTo(Protocol):
    """Whoever asked: takes the result later, without waiting."""

    __slots__ = ()

    def reply(self, request_id: int, result: Any) -> None: ...

    def reply_packed(self, request_id: int, result: Any) -> None:
        """The same for a large result: a connection turns it into bytes, so that they count."""
        self.reply(request_id, result)


class Reader(ReplyTo, Protocol):
    """One who asked to read."""

    __slots__ = ()

    @property
    def swamped(self) -> bool:
        """Are there so many bytes to be sent to it that it gets nothing large any more?"""
        ...


class Proposal(NamedTuple):
    """One command for the log, and where its result goes."""

    session: ReplyTo
    request_id: int
    command: list[Any]


class Read(NamedTuple):
    """One linearizable read: `op` and `arguments` as in `raftkv.wire.protocol`."""

    session: Reader
    request_id: int
    op: str
    arguments: list[Any]


class Inbox:
    __slots__ = (
        "_room",
        "_waiting",
        "_wakeup",
        "calls",
        "messages",
        "proposals",
        "reads",
        "ticks",
        "wanted",
    )

    def __init__(self) -> None:
        self.proposals: list[Proposal] = []
        self.reads: list[Read] = []
        self.messages: list[Any] = []
        self.calls: list[Any] = []  # functions without arguments, run on the actor
        self.ticks = 0
        self.wanted = 0  # proposals, below which the actor need not be woken for them
        self._wakeup = Wakeup()
        self._room = trio.Event()
        self._waiting = 0  # for room

    def wake(self) -> None:
        self._wakeup.set()

    def propose(self, proposals: list[Proposal]) -> None:
        self.proposals += proposals
        if len(self.proposals) >= self.wanted:
            self._wakeup.set()

    def call(self, function: Any) -> None:
        """Run a small synchronous function on the actor: news of peers, and what clients ask of
        the membership."""
        self.calls.append(function)
        self._wakeup.set()

    def tick(self) -> None:
        self.ticks = min(self.ticks + 1, TICKS_MAX)
        self._wakeup.set()

    @property
    def full(self) -> bool:
        return (
            len(self.proposals) >= PROPOSALS_MAX
            or len(self.reads) >= READS_MAX
            or len(self.messages) >= MESSAGES_MAX
            or len(self.calls) >= CALLS_MAX
        )

    async def wait(self) -> None:
        """Until there's something to do."""
        await self._wakeup.wait()

    async def wait_room(self) -> None:
        while self.full:
            self._waiting += 1
            try:
                await self._room.wait()
            finally:
                self._waiting -= 1

    def emptied(self) -> None:
        """The actor took what was there."""
        self._wakeup.clear()
        if self._waiting:
            self._room.set()
            self._room = trio.Event()
