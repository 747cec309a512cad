"""Backups for clients: the state machine of one moment, handed out piece by piece.

Owns: at most one backup per connection. The client asks for each piece, so a slow one costs
nothing but the versions that the store keeps meanwhile; after `OPEN_SECONDS` it is given up.
Synchronous; runs between the awaits of the replica.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import attrs

from raftkv.errors import InvalidRequest, TooManyRequests
from raftkv.mvcc.machine import Machine

__all__ = ["Backups"]

OPEN_SECONDS = 600.0
OPEN_MAX = 4
PIECE_BYTES = 256 * 1024


@attrs.define(eq=False)
class Backup:
    pieces: Generator[bytes, None, None]
    first: bytes
    until: float


class Backups:
    def __init__(self) -> None:
        self._open: dict[int, Backup] = {}

    def open(self, session: int, machine: Machine, now: float) -> list[Any]:
        """Fix the state as it is; `[revision]`. Raises TooManyRequests."""
        self.close(session)
        if len(self._open) >= OPEN_MAX:
            raise TooManyRequests(f"{OPEN_MAX} backups of this member are being made already")
        pieces = machine.snapshot_parts()
        self._open[session] = Backup(pieces, next(pieces), now + OPEN_SECONDS)
        return [machine.revision]

    def read(self, session: int) -> list[Any]:
        """`[bytes]`, empty at the end. Raises InvalidRequest where none is open (any more)."""
        backup = self._open.get(session)
        if backup is None:
            raise InvalidRequest("no backup is open on this connection; it may have taken too long")
        gathered, size = [backup.first], len(backup.first)
        backup.first = b""
        while size < PIECE_BYTES:
            piece = next(backup.pieces, None)
            if piece is None:
                break
            gathered.append(piece)
            size += len(piece)
        if not size:
            self.close(session)
        return [b"".join(gathered)]

    def close(self, session: int) -> None:
        backup = self._open.pop(session, None)
        if backup is not None:
            backup.pieces.close()

    def expire(self, now: float) -> None:
        for session in [each for each, backup in self._open.items() if backup.until < now]:
            self.close(session)
