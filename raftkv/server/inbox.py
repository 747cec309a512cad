"""The replica's inbox: everything that reaches the actor from other tasks.

Owns: four queues and one wake-up. Producers append and go on; the actor takes all at once, so the
cost of waking it is paid per batch. Nothing here awaits but the waits for work and for room.

When it is full: client proposals and reads wait (`wait_room`), which stops their connections from
reading, and so the client; peer messages wait too, and the sender drops; ticks beyond `TICKS_MAX`
are lost, since time that passed while the disk hung must not start an election at once.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import trio

from raftkv.streams import Wakeup

__all__ = ["Inbox", "Proposal", "Read", "Reader", "ReplyTo"]

PROPOSALS_MAX = 16_384
READS_MAX = 16_384
MESSAGES_MAX = 8_192
TICKS_MAX = 2


class ReplyTo(Protocol):
    """Whoever asked: takes the result later, without waiting."""

    def reply(self, request_id: int, result: Any) -> None: ...


class Reader(ReplyTo, Protocol):
    """One who asked to read: takes large results as bytes, so that they count."""

    def reply_packed(self, request_id: int, result: Any) -> None: ...


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
        """Run a small synchronous function on the actor; its producers are few (peers, timers)."""
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
