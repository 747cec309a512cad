"""Bounded queues between a client's connection and what reads from it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

__all__ = ["Latest", "Queue"]

PIECES_MAX = 16  # each is no larger than one read of its connection
STALL_SECONDS = 5.0


class Queue:
    """Pieces of bytes; full: the putter waits, and calls `stalled` now and then meanwhile."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[bytes](PIECES_MAX)
        self.is_closed = False  # nothing more will be put

    async def put(self, data: bytes, stalled: Callable[[], Awaitable[None]]) -> None:
        """Dropped when nobody will read it any more."""
        while True:
            with trio.move_on_after(STALL_SECONDS):
                try:
                    await self._send.send(data)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    return
                return
            await stalled()

    def close(self) -> None:
        """The last piece has been put."""
        self.is_closed = True
        self._send.close()

    async def get(self) -> bytes:
        """The next piece; b"" after the last."""
        try:
            return await self._receive.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            return b""

    def refuse(self) -> None:
        """Nobody reads any more: what waits and what comes is dropped."""
        self._receive.close()


class Latest:
    """One value of which only the newest matters."""

    def __init__(self) -> None:
        self._value: tuple[int, int] | None = None
        self._changed = trio.Event()

    def put(self, value: tuple[int, int]) -> None:
        self._value = value
        self._changed.set()

    async def next(self) -> tuple[int, int]:
        """The newest value that has not been taken yet."""
        await self._changed.wait()
        self._changed = trio.Event()
        assert self._value is not None, "set before the event"
        return self._value
