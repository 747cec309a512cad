"""Checksums of the whole store, computed in steps so that nobody waits for them.

Owns: the queue of those who asked, and the task that answers them one by one. When the queue is
full the next one is refused.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator

import trio

from raftkv.errors import KvError, TooManyRequests
from raftkv.server.inbox import ReplyTo
from raftkv.streams import Wakeup
from raftkv.wire.protocol import error_result

__all__ = ["Hashes"]

QUEUE_MAX = 64
Steps = Generator[None, None, tuple[int, int, int]]


class Hashes:
    def __init__(self) -> None:
        self._queue: deque[tuple[ReplyTo, int, Steps]] = deque()
        self._wakeup = Wakeup()

    def ask(self, session: ReplyTo, request_id: int, steps: Steps) -> None:
        """Raises TooManyRequests."""
        if len(self._queue) >= QUEUE_MAX:
            raise TooManyRequests(f"{QUEUE_MAX} checksums are waiting already")
        self._queue.append((session, request_id, steps))
        self._wakeup.set()

    async def run(self) -> None:
        while True:
            while self._queue:
                session, request_id, steps = self._queue.popleft()
                try:
                    session.reply(request_id, await self._finish(steps))
                except KvError as error:
                    session.reply(request_id, error_result(error))
            await self._wakeup.wait()

    async def _finish(self, steps: Steps) -> list[int]:
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return list(end.value)
            await trio.lowlevel.checkpoint()
