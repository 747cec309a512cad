"""What the proxy's loop asks of whoever makes a table real."""

from __future__ import annotations

from typing import Protocol

from k8slite.proxy.table import Table

__all__ = ["Writer", "WriteFailed"]


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

    async def cleanup(self) -> None:
        """Remove everything that `sync` made, now or in an earlier life. Raises WriteFailed."""
        ...
