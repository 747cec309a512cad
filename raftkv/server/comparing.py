"""Members compare their states as they go, so that one that differs does not go on in silence.

Now and then the leader puts the running checksum of its state into the log: that of the place
where the last comparison stood, which is the same place for everybody. A member that had another
one there has applied something else, whatever the reason (etcd's inconsistency of 2022 went
unnoticed for months). It raises Corrupt and ends; started again, it makes its state anew from
snapshot and log.

What was in the log when a member started is not judged again: where it was the leader that
differed, the others end, come back with what the log makes of it, and go on. Owns: the time of
the next comparison.
"""

from __future__ import annotations

from typing import Any

from raftkv.errors import Corrupt
from raftkv.mvcc.machine import Machine
from raftkv.server.inbox import Inbox, Proposal, ReplyTo

__all__ = ["CHECK", "Comparing"]

CHECK = "check"


class Comparing(ReplyTo):
    def __init__(self, inbox: Inbox, seconds: float, restored_to: int) -> None:
        """`restored_to`: the last index of the log that this member started with."""
        self._inbox = inbox
        self._seconds = seconds
        self._restored_to = restored_to
        self._next: float | None = None

    def tick(self, machine: Machine, now: float) -> None:
        """At each tick of the leader. Where nothing has changed there's nothing to compare."""
        if self._next is None:
            self._next = now + self._seconds
        elif now >= self._next:
            self._next = now + self._seconds
            if machine.revision != machine.mark[0]:
                self._inbox.propose([Proposal(self, 0, [CHECK, *machine.mark])])

    def applied(self, index: int, command: Any, result: list[Any]) -> None:
        """Raise Corrupt where this member is not what its leader was."""
        if index > self._restored_to and not result[1]:
            raise Corrupt(
                f"{Corrupt.text}: at revision {command[1]} this member holds something else than "
                "its leader. It stops; started again, it makes its state anew from its snapshot "
                "and log. If this comes again: remove it with `raftkv member remove`, delete its "
                "data directory, and add it under a new name"
            )

    def reply(self, request_id: int, result: Any) -> None:
        """A comparison that is lost is made again."""
