"""How many connections an apiserver holds, and who goes when there are too many.

Owns: the count of open connections, and a line of those that have no complete request at work: they
shake hands, send slowly, or are idle. When the bound is reached, the one that has been in that
line for longest is closed for the one that comes. So idle and dawdling clients, however many, keep
nobody out; only requests at work could, and those have bounds of their own.
"""

from __future__ import annotations

import trio

__all__ = ["Crowd"]


class Crowd:
    """The connections of one server."""

    def __init__(self, connections_max: int) -> None:
        self.open = 0
        self.closing = False
        """No connection takes another request."""
        self._connections_max = connections_max
        self._leaving = 0
        self._quiet: dict[int, trio.CancelScope] = {}
        self._next = 0
        self._empty = trio.Event()

    def enter(self) -> bool:
        """One more; False if it must be turned away, for all others are at work."""
        if self.open - self._leaving >= self._connections_max and not self.make_room():
            return False
        self.open += 1
        return True

    def leave(self) -> None:
        """One that had entered has ended."""
        self.open -= 1
        if self.closing and not self.open:
            self._empty.set()

    def make_room(self) -> bool:
        """Close the connection that has been quiet for longest; False if none is."""
        if not self._quiet:
            return False
        number = next(iter(self._quiet))
        self._quiet.pop(number).cancel()
        self._leaving += 1
        return True

    def quiet(self, scope: trio.CancelScope) -> int:
        """A connection waits for its client, inside `scope`; a number for `busy`."""
        self._next += 1
        self._quiet[self._next] = scope
        if self.closing:
            scope.cancel()
        return self._next

    def busy(self, number: int) -> None:
        """It does so no longer."""
        if self._quiet.pop(number, None) is None:
            self._leaving -= 1

    async def drain(self) -> None:
        """Let requests at work be answered; wait until all connections have ended."""
        self.closing = True
        for scope in self._quiet.values():
            scope.cancel()
        if self.open:
            await self._empty.wait()
