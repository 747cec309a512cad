"""What both ends of a connection need: TLS around a stream, and bytes gathered for one send.

Owns: `Outbox`, the messages not sent yet, which anyone adds to and one task drains in one call a
batch; `Wakeup`, the one-task alarm clock under it. An outbox takes all that it is given: whoever
produces asks `crowded` first and holds back (a session stops reading requests, a watch falls
behind and catches up from history later), or `unsent_bytes` and refuses.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence
from typing import Any

import trio

from raftkv.wire.framing import encode, join_messages, pack

__all__ = ["GONE", "Flusher", "Outbox", "Wakeup", "only_error", "receive", "secured"]

GONE = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)
"""A connection that is over, from whichever side and by whatever cause."""

CROWDED_BYTES = 4 * 1024 * 1024
CROWDED_MESSAGES = 8_192
TURN_FLUSHES = 32


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
    """One task sleeps, others wake it; waking one who is awake makes its next sleep end at once.

    Without an Event, of which each sleep would need a new one: it's what the hot path does most.
    """

    __slots__ = ("_rung", "_sleeper")

    def __init__(self) -> None:
        self._rung = False
        self._sleeper: trio.lowlevel.Task | None = None

    def set(self) -> None:
        if not self._rung:
            self._rung = True
            if self._sleeper is not None:
                trio.lowlevel.reschedule(self._sleeper)
                self._sleeper = None

    def clear(self) -> None:
        """Whoever is awake has seen everything so far: no need to wake for it."""
        self._rung = False

    async def wait(self) -> None:
        if self._rung:
            await trio.lowlevel.checkpoint()
        else:
            assert self._sleeper is None, "one task sleeps here"
            self._sleeper = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._abort)
        self._rung = False

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self._sleeper = None
        return trio.lowlevel.Abort.SUCCEEDED


class Flusher:
    """Sends for many connections: one task is woken once for all that a turn gave them.

    With a task for each connection, waking them would cost more than what they send. Their own
    tasks (`Outbox.drain`) only help where a socket is full, or no plain socket. A write to a
    socket takes some microseconds, so with many of them others get their turn in between.

    Whoever is about to give many replies may hold it, and send these himself with `release`.
    """

    __slots__ = ("_held", "_marked", "_wakeup")

    def __init__(self) -> None:
        self._marked: list[Outbox] = []
        self._held: list[Outbox] | None = None
        self._wakeup = Wakeup()

    def mark(self, outbox: Outbox) -> None:
        if self._held is not None:
            self._held.append(outbox)
            return
        if not self._marked:
            self._wakeup.set()
        self._marked.append(outbox)

    def hold(self) -> None:
        self._held = []

    def release(self) -> None:
        held, self._held = self._held or (), None
        for outbox in held:
            outbox.flush()

    async def run(self) -> None:
        while True:
            await self._wakeup.wait()
            while self._marked:
                turn, self._marked = self._marked[:TURN_FLUSHES], self._marked[TURN_FLUSHES:]
                for outbox in turn:
                    outbox.flush()
                if self._marked:
                    await trio.lowlevel.checkpoint()


class Outbox:
    """Messages on their way out of one connection, gathered by anyone, sent by `drain`.

    What was added leaves when `flush` is called: by the given flusher, by the owner where `manual`
    is set, else by `drain` itself, which must run in any case as long as the connection lasts.
    """

    __slots__ = (
        "_drained",
        "_fd",
        "_flusher",
        "_flying_bytes",
        "_items",
        "_manual",
        "_packed",
        "_packed_bytes",
        "_rest",
        "_sending",
        "_waiting",
        "_wakeup",
    )

    def __init__(self, flusher: Flusher | None = None, *, manual: bool = False) -> None:
        self._flusher = flusher
        self._manual = manual
        self._items: list[Any] = []
        self._packed = False
        self._packed_bytes = 0  # of what is queued and of what is being sent now
        self._flying_bytes = 0  # those of them that are being sent
        self._rest = b""  # what the socket did not take at once
        self._sending = False
        self._fd = -1  # a plain socket, as long as `drain` runs
        self._wakeup = Wakeup()
        self._drained = trio.Event()
        self._waiting = 0  # for room

    def __len__(self) -> int:
        return len(self._items)

    @property
    def crowded(self) -> bool:
        return self._packed_bytes > CROWDED_BYTES or len(self._items) > CROWDED_MESSAGES

    @property
    def unsent_bytes(self) -> int:
        """Those of the packed messages; the others are small, and counted one by one."""
        return self._packed_bytes

    @property
    def idle(self) -> bool:
        return not (self._items or self._rest or self._sending)

    def add(self, message: Sequence[Any]) -> None:
        """A message to be packed with its neighbours when it leaves."""
        if not self._items:
            self._notify()
        self._items.append(message)

    def add_packed(self, message: bytes) -> None:
        """A message in msgpack, typically shared with other connections."""
        if not self._items:
            self._notify()
        self._items.append(message)
        self._packed = True
        self._packed_bytes += len(message)

    def _notify(self) -> None:
        if self._flusher is not None:
            self._flusher.mark(self)
        elif not self._manual:
            self._wakeup.set()

    def clear(self) -> int:
        """Forget what is queued; the number of messages forgotten."""
        count = len(self._items)
        self._items = []
        self._rest = b""
        self._packed = False
        self._packed_bytes = self._flying_bytes = 0
        return count

    async def wait_room(self) -> None:
        """Until `crowded` no longer holds."""
        while self.crowded:
            self._waiting += 1
            try:
                await self._drained.wait()
            finally:
                self._waiting -= 1

    def flush(self) -> None:
        """Send now what a plain socket takes; the rest, and all else, is left to `drain`."""
        if not self._items:
            return
        if self._fd < 0 or self._rest or self._sending:
            self._wakeup.set()
            return
        data = self._take()
        try:
            sent = os.write(self._fd, data)
        except OSError:  # full, or gone: `drain` will see
            sent = 0
        if sent == len(data):
            self._sent()
        else:
            self._rest = data[sent:]
            self._wakeup.set()

    def _take(self) -> bytes:
        """All that is queued, as one frame."""
        items = self._items
        self._items = []
        self._flying_bytes = self._packed_bytes
        if not self._packed:
            return encode(items)
        self._packed = False
        return join_messages([item if type(item) is bytes else pack(item) for item in items])

    def _sent(self) -> None:
        self._packed_bytes -= self._flying_bytes
        self._flying_bytes = 0
        if self._waiting:
            self._drained.set()
            self._drained = trio.Event()

    async def drain(self, stream: trio.abc.SendStream) -> None:
        """Send for ever. Raises what the stream raises."""
        self._fd = plain_socket(stream)
        try:
            while True:
                if self._rest:
                    data, self._rest = self._rest, b""
                elif self._items:
                    data = self._take()
                else:
                    await self._wakeup.wait()
                    continue
                self._sending = True
                await stream.send_all(data)
                self._sending = False
                self._sent()
        finally:
            self._fd = -1
            self._sending = False


def plain_socket(stream: object) -> int:
    """The file descriptor of a stream that is nothing but a socket, else -1."""
    return stream.socket.fileno() if type(stream) is trio.SocketStream else -1


async def receive(stream: trio.abc.ReceiveStream, max_bytes: int) -> bytes | bytearray:
    """As `receive_some`; a plain socket is asked only once it has something."""
    fd = plain_socket(stream)
    if fd < 0:
        return await stream.receive_some(max_bytes)
    while True:
        await trio.lowlevel.wait_readable(fd)
        try:
            return os.read(fd, max_bytes)
        except BlockingIOError:
            continue


def only_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one error in a group that holds only that one; else the group."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
