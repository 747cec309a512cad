"""What both ends of a connection need: TLS around a stream, and bytes gathered for one send.

Owns: `Outbox`, the messages not sent yet, which anyone adds to and one task drains in one call a
batch; `Wakeup`, the one-task alarm clock under it. When an outbox is full nothing is refused:
whoever produces asks `crowded` first and holds back (a session stops reading requests, a watch
falls behind and catches up from history later).
"""

from __future__ import annotations

import ssl
from typing import Any

import trio

from raftkv.wire.framing import encode, join_messages, pack

__all__ = ["GONE", "Outbox", "Wakeup", "only_error", "secured"]

GONE = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)
"""A connection that is over, from whichever side and by whatever cause."""

CROWDED_BYTES = 4 * 1024 * 1024
CROWDED_MESSAGES = 8_192


def secured(
    stream: trio.abc.Stream, context: ssl.SSLContext | None, server_name: str | None = None
) -> trio.abc.Stream:
    """The stream inside TLS, or as it is where there's no context.

    The side that gives a `server_name` is the client. The handshake comes with the first bytes;
    when it fails, sending and receiving raise trio.BrokenResourceError.
    """
    if context is None:
        return stream
    return trio.SSLStream(
        stream,
        context,
        server_hostname=server_name,
        server_side=server_name is None,
        https_compatible=True,
    )


class Wakeup:
    """One task sleeps, others wake it; waking one who is awake makes its next sleep end at once."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = trio.Event()

    def set(self) -> None:
        self._event.set()

    async def wait(self) -> None:
        await self._event.wait()
        self._event = trio.Event()


class Outbox:
    __slots__ = ("_drained", "_items", "_packed", "_packed_bytes", "_wakeup", "sent")

    def __init__(self) -> None:
        self._items: list[Any] = []
        self._packed = False
        self._packed_bytes = 0  # of what is queued and of what is being sent now
        self._wakeup = Wakeup()
        self._drained = trio.Event()
        self.sent = 0  # frames

    @property
    def crowded(self) -> bool:
        return self._packed_bytes > CROWDED_BYTES or len(self._items) > CROWDED_MESSAGES

    @property
    def idle(self) -> bool:
        return not self._items and not self._packed_bytes

    def add(self, message: list[Any]) -> None:
        """A message to be packed with its neighbours when it leaves."""
        if not self._items:
            self._wakeup.set()
        self._items.append(message)

    def add_packed(self, message: bytes) -> None:
        """A message in msgpack, typically shared with other connections."""
        if not self._items:
            self._wakeup.set()
        self._items.append(message)
        self._packed = True
        self._packed_bytes += len(message)

    def clear(self) -> int:
        """Forget what is queued; the number of messages forgotten."""
        count = len(self._items)
        self._items = []
        self._packed = False
        self._packed_bytes = 0
        return count

    async def wait_room(self) -> None:
        """Until `crowded` no longer holds."""
        while self.crowded:
            await self._drained.wait()

    def take(self) -> bytes:
        items = self._items
        self._items = []
        if not self._packed:
            return encode(items)
        self._packed = False
        return join_messages([item if type(item) is bytes else pack(item) for item in items])

    async def drain(self, stream: trio.abc.SendStream) -> None:
        """Send for ever. Raises what the stream raises."""
        while True:
            if not self._items:
                await self._wakeup.wait()
                continue
            queued = self._packed_bytes
            await stream.send_all(self.take())
            self.sent += 1
            self._packed_bytes -= min(queued, self._packed_bytes)
            if self._drained.statistics().tasks_waiting:
                self._drained.set()
                self._drained = trio.Event()


def only_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one error in a group that holds only that one; else the group."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
