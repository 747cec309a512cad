"""One connection to one member: many requests in flight, pushes handed to their watches.

Owns: the stream, the requests that wait on it, and the watches that are fed by it. One task reads
big chunks and wakes every caller whose reply was in one; one task sends all that has gathered.
Never does: retry. Whoever waits when the connection ends gets `ConnectionLost`.

A connection that is silent although it owes an answer is asked (`hello`, the cheapest request);
if it stays silent it is closed, for after a partition TCP alone would not notice for minutes.
"""

from __future__ import annotations

import logging
from typing import Any, Protocol

import outcome
import trio

from raftkv.client.types import WatchBatch, event
from raftkv.errors import KvError
from raftkv.host import Address, Net, Tls
from raftkv.streams import GONE, Outbox, receive, secured
from raftkv.wire.framing import FrameReader, ProtocolError
from raftkv.wire.protocol import (
    CANCELED,
    EVENTS,
    MAX_FRAME_FROM_MEMBER,
    PROGRESS_PUSH,
    VERSION,
    error_of,
)

__all__ = ["Attempt", "Connection", "ConnectionLost", "NotSent", "PushTarget"]

log = logging.getLogger(__name__)

CHUNK_BYTES = 64 * 1024  # of more, each read would ask the kernel for memory and give it back
SILENCE_SECONDS = 3.0
CONNECT_SECONDS = 5.0


class ConnectionLost(Exception):
    """The connection ended before the answer came: what was asked may have happened."""


class NotSent(ConnectionLost):
    """The connection had ended before: what was asked certainly did not happen."""


class PushTarget(Protocol):
    """A watch, as the connection sees it."""

    def happened(self, batch: WatchBatch) -> None: ...
    def progressed(self, revision: int) -> None: ...
    def canceled(self, error: KvError) -> None: ...
    def connection_lost(self) -> None: ...


class Attempt:
    """A connection on its way; `error` tells why it did not come."""

    __slots__ = ("error", "over")

    def __init__(self) -> None:
        self.over = trio.Event()
        self.error: BaseException | None = None


class Connection:
    """Made by `connect`; `run` must be started, and lives as long as the connection."""

    def __init__(self, address: Address, stream: trio.abc.Stream) -> None:
        self.address = address
        self.watches: dict[int, PushTarget] = {}
        self.alive = True
        self._stream = stream
        self._outbox = Outbox()
        self._waiting: dict[int, trio.lowlevel.Task] = {}
        self._requests = 0
        self._watch_numbers = 0
        self._heard_at = trio.current_time()

    @classmethod
    async def connect(cls, net: Net, address: Address, tls: Tls | None) -> Connection:
        """Raises OSError, trio.TooSlowError, trio.BrokenResourceError (TLS)."""
        with trio.fail_after(CONNECT_SECONDS):
            stream = secured(
                await net.open_stream(address), tls.client if tls else None, address.host
            )
            if isinstance(stream, trio.SSLStream):
                try:
                    await stream.do_handshake()
                except BaseException:
                    await trio.aclose_forcefully(stream)
                    raise
        connection = cls(address, stream)
        connection.post("hello", VERSION)
        return connection

    def new_watch_id(self) -> int:
        self._watch_numbers += 1
        return self._watch_numbers

    def post(self, *request: Any) -> None:
        """Send a request whose answer nobody waits for."""
        self._requests += 1
        self._outbox.add([self._requests, *request])

    async def call(self, *request: Any) -> Any:
        """The result of a request, errors as they come. Raises ConnectionLost."""
        if not self.alive:
            raise NotSent(f"the connection to {self.address} is closed")
        self._requests += 1
        number = self._requests
        self._outbox.add([number, *request])
        self._waiting[number] = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            del self._waiting[number]
            return trio.lowlevel.Abort.SUCCEEDED

        return await trio.lowlevel.wait_task_rescheduled(abort)

    def close(self) -> None:
        """End it; those who wait are told. The stream is closed by `run`."""
        self.alive = False
        waiting, self._waiting = self._waiting, {}
        for task in waiting.values():
            lost = ConnectionLost(f"the connection to {self.address} was lost")
            trio.lowlevel.reschedule(task, outcome.Error(lost))
        watches, self.watches = self.watches, {}
        for watch in watches.values():
            watch.connection_lost()

    async def run(self) -> None:
        """Until the connection ends or the task is cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send, nursery.cancel_scope)
                nursery.start_soon(self._guard, nursery.cancel_scope)
                await self._receive()
                nursery.cancel_scope.cancel()
        finally:
            self.close()
            await trio.aclose_forcefully(self._stream)

    async def _send(self, scope: trio.CancelScope) -> None:
        try:
            await self._outbox.drain(self._stream)
        except GONE:
            scope.cancel()

    async def _receive(self) -> None:
        reader = FrameReader(MAX_FRAME_FROM_MEMBER)
        try:
            while data := await receive(self._stream, CHUNK_BYTES):
                self._heard_at = trio.current_time()
                for _, messages in reader.feed(data):
                    self._take(messages)
        except GONE as error:
            log.debug("connection lost address=%s error=%r", self.address, error)
        except ProtocolError as error:
            log.warning("address=%s does not speak the protocol: %s", self.address, error)

    def _take(self, messages: list[Any]) -> None:
        waiting = self._waiting
        for message in messages:
            number = message[0]
            if number:
                task = waiting.pop(number, None)
                if task is not None and len(message) > 1:
                    trio.lowlevel.reschedule(task, outcome.Value(message[1]))
            elif len(message) >= 4:
                self._pushed(message)
            else:
                log.warning("address=%s said: %s", self.address, message[1:])

    def _pushed(self, message: list[Any]) -> None:
        """Hand a push to its watches; they share what is in it."""
        _, ids, kind, content, *rows = message
        known = map(self.watches.get, ids if type(ids) is list else (ids,))
        watches = [watch for watch in known if watch is not None]
        if kind == EVENTS and rows:
            batch = WatchBatch(content, [event(row) for row in rows[0]])
            for watch in watches:
                watch.happened(batch)
        elif kind == PROGRESS_PUSH:
            for watch in watches:
                watch.progressed(content)
        elif kind == CANCELED:
            error = error_of(content)
            for watch in watches:
                watch.canceled(error)

    async def _guard(self, scope: trio.CancelScope) -> None:
        """Notice a connection that has gone silent."""
        while True:
            await trio.sleep(SILENCE_SECONDS)
            if not self._waiting and not self.watches:
                continue
            if trio.current_time() - self._heard_at < SILENCE_SECONDS:
                continue
            asked_at = trio.current_time()
            self.post("hello", VERSION)
            await trio.sleep(SILENCE_SECONDS)
            if self._heard_at < asked_at:
                log.info("address=%s is silent, closing the connection", self.address)
                scope.cancel()
