"""A connection that has left HTTP: bytes in, bytes out, and nothing raised that a peer caused.

Owns: the stream, the bytes that came with the request, the time of the last traffic. Reading gives
b"" when the peer is gone; writing then raises HangUp, the one error of this room that a lost peer
makes. Writers may be many; each send goes out whole.
"""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Awaitable, Callable

import trio

__all__ = ["BROKEN", "ByteStream", "LINGER_SECONDS", "HangUp", "relay", "watch_idle", "why"]

READ_BYTES = 64 * 1024
LINGER_SECONDS = 3.0
"""How long a finished connection waits for its peer's end. Closing one with unread bytes resets
it, and the peer could lose our last ones."""
BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError, OSError)


def why(error: BaseException) -> str:
    """The reason at the bottom of a failed connection, in a few words."""
    if isinstance(error, BaseExceptionGroup):
        return why(error.exceptions[0])
    if isinstance(error.__cause__, (OSError, BaseExceptionGroup)):
        return why(error.__cause__)
    if isinstance(error, OSError) and error.errno and not isinstance(error, ssl.SSLError):
        return os.strerror(error.errno).lower()
    return str(error) or type(error).__name__


class HangUp(Exception):
    """The peer is gone."""


class ByteStream:
    """Over a pair of calls: `receive()` gives bytes, empty at the end; `send(data)` writes."""

    def __init__(
        self,
        receive: Callable[[], Awaitable[bytes]],
        send: Callable[[bytes], Awaitable[None]],
    ) -> None:
        self._receive = receive
        self._send = send
        self._turn = trio.StrictFIFOLock()
        self.used_at = trio.current_time()

    @staticmethod
    def over(stream: trio.abc.Stream, early: bytes = b"") -> ByteStream:
        """Over a stream of which `early` has been read already. Closing stays the caller's."""

        async def receive() -> bytes:
            nonlocal early
            if early:
                data, early = early, b""
                return data
            return bytes(await stream.receive_some(READ_BYTES))

        return ByteStream(receive, stream.send_all)

    async def receive(self) -> bytes:
        """Some bytes; b"" when the peer has ended or is gone."""
        try:
            return await self._receive()
        except BROKEN:
            return b""

    async def send(self, data: bytes) -> None:
        """Raises HangUp."""
        async with self._turn:
            try:
                await self._send(data)
            except BROKEN as error:
                raise HangUp(str(error)) from None

    def touch(self) -> None:
        """Something that counts against idleness has happened (keep-alives do not)."""
        self.used_at = trio.current_time()


async def watch_idle(stream: ByteStream, seconds: float, scope: trio.CancelScope) -> None:
    """Cancel `scope` when nothing has been sent for so long."""
    while True:
        left = stream.used_at + seconds - trio.current_time()
        if left <= 0:
            scope.cancel()
            return
        await trio.sleep(left)


async def relay(client: ByteStream, server: ByteStream) -> None:
    """Pass bytes both ways until the client is gone, or the server has ended and the client had a
    moment to take note.

    Each direction holds one piece of at most READ_BYTES: who does not read stops who sends.
    """

    async def to_server() -> None:
        with contextlib.suppress(HangUp):
            while data := await client.receive():
                await server.send(data)
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(to_server)
        try:
            while data := await server.receive():
                await client.send(data)
            nursery.cancel_scope.deadline = trio.current_time() + LINGER_SECONDS
        except HangUp:
            nursery.cancel_scope.cancel()
