"""A watch that outlives connections: it goes on from its last revision wherever it can.

Owns: the revision that comes next, and a bounded buffer between the connection and the reader.

When the buffer is full the watch is cancelled on the server; the reader empties the buffer and
then watches again from the revision after it. So a slow reader costs nobody anything but history,
and loses nothing unless compaction is faster: then it raises Compacted.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING

import trio

from raftkv.client.connection import Connection, ConnectionLost
from raftkv.client.types import WatchBatch
from raftkv.errors import Compacted, KvError, LeaderChanged, NotApplied
from raftkv.streams import Wakeup
from raftkv.wire.protocol import is_error, raise_error

if TYPE_CHECKING:
    from raftkv.client.client import KvClient

__all__ = ["Watch"]

log = logging.getLogger(__name__)

BUFFERED_EVENTS_MAX = 20_000


class Watch:
    """Iterate over it; one task at a time. Made by `KvClient.watch`."""

    def __init__(
        self, client: KvClient, key: bytes, end: bytes | None, start_revision: int, options: int
    ) -> None:
        self._client = client
        self._key = key
        self._end = end
        self._options = options
        self._next = start_revision  # 0: from now, known once created
        self._connection: Connection | None = None
        self._id = 0
        self._buffer: deque[WatchBatch] = deque()
        self._buffered = 0
        self._error: KvError | None = None
        self._news = Wakeup()
        self._progress_wanted = False

    @property
    def next_revision(self) -> int:
        """Where the watch would go on: everything before it has been handed out or buffered."""
        return self._next

    # --- for its reader -------------------------------------------------------------------------

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> WatchBatch:
        """The next batch. Raises Compacted, or another KvError the server ended the watch with."""
        while True:
            if self._buffer:
                batch = self._buffer.popleft()
                self._buffered -= len(batch.events)
                return batch
            if self._error is not None:
                error = self._error
                if not isinstance(error, NotApplied | LeaderChanged):
                    raise error
                self._error = None
                await self._client.pause()
            if self._connection is None:
                await self.open()
                continue
            await self._news.wait()

    async def open(self) -> None:
        """Subscribe from the next revision on, wherever that's possible."""
        while self._connection is None:
            connection = await self._client.near_connection()
            watch_id = connection.new_watch_id()
            connection.watches[watch_id] = self
            self._connection, self._id = connection, watch_id
            try:
                result = await connection.call(
                    "watch", watch_id, self._key, self._end, self._next, self._options
                )
            except ConnectionLost:
                continue
            except trio.Cancelled:
                self.close()
                raise
            if is_error(result):
                self._detach()
                try:
                    raise_error(result)
                except NotApplied as error:
                    log.debug("watch refused address=%s error=%s", connection.address, error)
                    self._client.avoid(connection)
                    await self._client.pause()
                    continue
            if self._next == 0:
                self._next = result[0] + 1
            if self._progress_wanted and self._connection is not None:
                self._connection.post("watch_progress", self._id)

    def request_progress(self) -> None:
        """Ask for a batch that tells the revision up to which everything has come."""
        self._progress_wanted = True
        if self._connection is not None:
            self._connection.post("watch_progress", self._id)

    def close(self) -> None:
        """No more batches; the server is told."""
        connection = self._connection
        if connection is not None and connection.alive:
            connection.post("watch_cancel", self._id)
        self._detach()

    def _detach(self) -> None:
        if self._connection is not None:
            self._connection.watches.pop(self._id, None)
        self._connection = None

    # --- for its connection ---------------------------------------------------------------------

    def happened(self, batch: WatchBatch) -> None:
        self._next = batch.revision + 1
        self._put(batch)

    def progressed(self, revision: int) -> None:
        """Nothing at or below this revision is still to come."""
        self._progress_wanted = False
        self._next = max(self._next, revision + 1)
        self._put(WatchBatch(revision, []))

    def canceled(self, error: KvError) -> None:
        self._error = error
        if not isinstance(error, Compacted) and self._connection is not None:
            self._client.avoid(self._connection)
        self._detach()
        self._news.set()

    def connection_lost(self) -> None:
        if self._connection is not None:
            self._client.avoid(self._connection)
        self._connection = None
        self._news.set()

    def _put(self, batch: WatchBatch) -> None:
        self._buffer.append(batch)
        self._buffered += len(batch.events)
        if self._buffered > BUFFERED_EVENTS_MAX:
            self.close()
        self._news.set()
