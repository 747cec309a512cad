"""What the proxy's loop asks of whoever makes a table real."""

from __future__ import annotations

from typing import Protocol

from k8slite.proxy.table import Table

__all__ = ["Follower", "WriteFailed", "Writer"]


class WriteFailed(Exception):
    """The rules could not be written; what was there before still is. Try again later."""


class Writer(Protocol):
    """One task uses it."""

    async def sync(self, table: Table) -> list[str]:
        """Make the table real, changing only what differs from the last one.

        Gives what could not be done, one sentence each (a port that is taken); that is tried
        again at the next call. Raises WriteFailed where nothing could be done.
        """
        ...

    async def look(self) -> None:
        """Whether what was written is still there; where it is not, the next `sync` writes all of
        it again. Cheap, and raises nothing."""
        ...

    async def cleanup(self) -> None:
        """Remove everything that `sync` made, now or in an earlier life. Raises WriteFailed."""
        ...


class Follower(Protocol):
    """What else is done about a table, once its rules are written."""

    async def sync(self, table: Table) -> list[str]:
        """What could not be done, one sentence each; that is tried again."""
        ...
