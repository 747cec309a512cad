"""A command's client: what exec and attach speak, over WebSocket channels or SPDY streams.

Owns: the client's streams (stdin, stdout, stderr, error, resize), whichever protocol carries them.
`serve_command` ends the body when the client goes away, for then nobody is left to run for.
Bounds: stdin waits in a `Queue`; output waits for the client's connection, nowhere else.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, Protocol

import trio

from k8slite.streaming.bytes import LINGER_SECONDS, ByteStream, HangUp, watch_idle
from k8slite.streaming.pace import Latest, Queue
from k8slite.streaming.spdy_session import SpdySession, SpdyStream
from k8slite.streaming.upgrade import (
    Upgrade,
    UpgradeRefused,
    choose_spdy,
    choose_websocket,
    is_spdy,
    is_websocket,
)
from k8slite.streaming.websocket import TOO_BIG, WebSocket

__all__ = ["Command", "Wants", "negotiate", "serve_command"]

WEBSOCKET_PROTOCOLS = (
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
    "",
)
SPDY_PROTOCOLS = ("v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io")
STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
MESSAGE_BYTES_MAX = 1024 * 1024  # of messages that must be whole to be understood
SIZE_BYTES_MAX = 4096
STREAMS_SECONDS = 30.0  # Kubernetes' streamCreationTimeout


class Wants(NamedTuple):
    """Which streams the client asks for. With a terminal there is no stderr."""

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool


class _Carrier(Protocol):
    """What differs between WebSocket and SPDY."""

    async def begin(self, wants: Wants) -> None:
        """Show that all is well, before there is any output. Raises HangUp."""
        ...

    async def run(self, command: Command) -> None:
        """Read until the client is gone."""
        ...

    async def send(self, channel: int, data: bytes) -> None:
        """Raises HangUp."""
        ...

    async def finish(self, status: Mapping[str, Any]) -> None:
        """Tell the end, and say goodbye. Raises HangUp."""
        ...


class Command:
    """The client's end. Made by `serve_command`."""

    def __init__(self, carrier: _Carrier, wants: Wants) -> None:
        self._carrier = carrier
        self.wants = wants
        self.stdin = Queue()
        self.size = Latest()
        self._size_text = b""
        if not wants.stdin:
            self.stdin.close()

    async def read_stdin(self) -> bytes:
        """The next of it; b"" when it has ended."""
        return await self.stdin.get()

    def refuse_stdin(self) -> None:
        """The command reads no more: what comes is dropped."""
        self.stdin.refuse()

    async def write(self, name: str, data: bytes) -> None:
        """To "stdout" or "stderr", dropped if the client did not ask for it. Raises HangUp."""
        if data and (self.wants.stdout if name == "stdout" else self.wants.stderr):
            await self._carrier.send(STDOUT if name == "stdout" else STDERR, data)

    async def next_size(self) -> tuple[int, int]:
        """Columns and rows of the client's terminal, when they have changed."""
        return await self.size.next()

    async def finish(self, status: Mapping[str, Any]) -> None:
        """Tell how it ended. Never raises for the client."""
        try:
            await self._carrier.finish(status)
        except HangUp:
            return

    def take_size(self, data: bytes) -> None:
        """Bytes of the resize stream: JSON objects, one after the other."""
        self._size_text += data
        text = self._size_text.decode("utf-8", "replace").lstrip()
        while text:
            try:
                value, end = json.JSONDecoder().raw_decode(text)
                width, height = int(value["Width"]), int(value["Height"])
            except json.JSONDecodeError:
                break
            except (TypeError, KeyError, ValueError, OverflowError):
                text = ""
                break
            if 0 < width < 65536 and 0 < height < 65536:
                self.size.put((width, height))
            text = text[end:].lstrip()
        self._size_text = text.encode() if len(text) < SIZE_BYTES_MAX else b""


class WebSocketCarrier:
    """One message a piece of a channel: its number, then the bytes (or both in base64)."""

    def __init__(self, websocket: WebSocket, protocol: str) -> None:
        self._websocket = websocket
        self._base64 = "base64" in protocol
        self._old = not protocol.startswith(("v4.", "v5."))
        self._closes = protocol.startswith("v5.")
        self._channel = -1  # of the message at hand; -1: not known yet
        self._message = bytearray()

    async def begin(self, wants: Wants) -> None:
        """An empty message on the lowest channel that we write to."""
        await self.send(STDOUT if wants.stdout else STDERR if wants.stderr else ERROR, b"")

    async def run(self, command: Command) -> None:
        while (piece := await self._websocket.receive()) is not None:
            if piece.first:
                self._channel = -1
                self._message.clear()
            data = piece.data
            if not data and not piece.last:
                continue
            if self._channel < 0 and data:
                self._channel = data[0] - (0x30 if self._base64 else 0)
                data = data[1:]
            if self._channel == STDIN and not self._base64:
                await self._stdin(command, data)
                continue
            self._message += data
            if len(self._message) > MESSAGE_BYTES_MAX:
                await self._websocket.close(TOO_BIG, "message too big")
                return
            if piece.last and self._channel >= 0:
                await self._whole(command, bytes(self._message))

    async def _stdin(self, command: Command, data: bytes) -> None:
        if data:
            self._websocket.stream.touch()
            if not command.stdin.is_closed:
                await command.stdin.put(data, self._websocket.ping)

    async def _whole(self, command: Command, data: bytes) -> None:
        if self._base64:
            try:
                data = base64.b64decode(data, validate=True)
            except (binascii.Error, ValueError):
                return  # as Kubernetes: what cannot be decoded is passed over
        if self._channel == STDIN:
            await self._stdin(command, data)
        elif self._channel == RESIZE:
            command.take_size(data)
        elif self._channel == CLOSE and self._closes and data[:1] == bytes((STDIN,)):
            command.stdin.close()

    async def send(self, channel: int, data: bytes) -> None:
        await self._websocket.send_on(channel, data, base64=self._base64)

    async def finish(self, status: Mapping[str, Any]) -> None:
        if not self._old:
            await self.send(ERROR, json.dumps(status).encode())
        elif status["status"] != "Success":
            await self.send(ERROR, status["message"].encode())
        await self._websocket.close()


class SpdyCarrier:
    """One SPDY stream each, told apart by the header `streamtype`."""

    def __init__(self, stream: ByteStream, protocol: str) -> None:
        self._stream = stream
        self._session = SpdySession(stream)
        self._protocol = protocol
        self._streams: dict[str, SpdyStream] = {}

    def _expected(self, wants: Wants) -> set[str]:
        names = {"error"}
        names |= {"stdin"} if wants.stdin else set()
        names |= {"stdout"} if wants.stdout else set()
        names |= {"stderr"} if wants.stderr and not wants.tty else set()
        if wants.tty and self._protocol in SPDY_PROTOCOLS[:2]:
            names |= {"resize"}
        return names

    async def gather(self, wants: Wants, nursery: trio.Nursery) -> bool:
        """Start reading, and wait for the streams that the client is to open."""
        nursery.start_soon(self._session.run)
        expected = self._expected(wants)
        with trio.move_on_after(STREAMS_SECONDS):
            while expected - set(self._streams):
                stream = await self._session.accept()
                if stream is None:
                    return False
                name = stream.headers.get("streamtype", "")
                if name not in expected or name in self._streams:
                    await stream.reset()
                    continue
                self._streams[name] = stream
            return True
        return False

    async def begin(self, wants: Wants) -> None:
        """The replies to the streams have said it."""

    async def run(self, command: Command) -> None:
        async with trio.open_nursery() as nursery:
            if "stdin" in self._streams:
                nursery.start_soon(self._read_stdin, command, self._streams["stdin"])
            if "resize" in self._streams:
                nursery.start_soon(self._read_sizes, command, self._streams["resize"])
            while (stream := await self._session.accept()) is not None:
                await stream.reset()
            nursery.cancel_scope.cancel()

    async def _read_stdin(self, command: Command, stream: SpdyStream) -> None:
        while data := await stream.receive():
            await command.stdin.put(data, self._session.ping)
        command.stdin.close()

    async def _read_sizes(self, command: Command, stream: SpdyStream) -> None:
        while data := await stream.receive():
            command.take_size(data)

    async def send(self, channel: int, data: bytes) -> None:
        stream = self._streams.get("stdout" if channel == STDOUT else "stderr")
        if stream is not None:
            await stream.send(data)

    async def finish(self, status: Mapping[str, Any]) -> None:
        error = self._streams["error"]
        if self._protocol == "v4.channel.k8s.io":
            await error.send(json.dumps(status).encode())
        elif status["status"] != "Success":
            await error.send(status["message"].encode())
        for name in ("stdout", "stderr", "error", "stdin", "resize"):
            if name in self._streams:
                await self._streams[name].send_eof()
        await self._session.close()


def negotiate(headers: Mapping[bytes, bytes]) -> Upgrade:
    """What to answer to a request for exec or attach. Raises UpgradeRefused."""
    if is_websocket(headers):
        return choose_websocket(headers, WEBSOCKET_PROTOCOLS)
    if is_spdy(headers):
        return choose_spdy(headers, SPDY_PROTOCOLS)
    raise UpgradeRefused(
        400, "Upgrade request required: a connection to a command is made by WebSocket or SPDY/3.1"
    )


async def serve_command(
    stream: ByteStream,
    headers: Mapping[bytes, bytes],
    protocol: str,
    wants: Wants,
    idle_seconds: float,
    body: Callable[[Command], Awaitable[None]],
) -> None:
    """Serve a client after the handshake: `body` runs the command and calls `finish`.

    The body is cancelled when the client leaves, or when nothing has moved for `idle_seconds`.
    """
    ended = trio.Event()

    async def read(carrier: _Carrier, command: Command) -> None:
        with contextlib.suppress(HangUp):
            await carrier.run(command)
        ended.set()
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch_idle, stream, idle_seconds, nursery.cancel_scope)
        carrier = await _open_carrier(stream, headers, protocol, wants, nursery)
        if carrier is not None:
            command = Command(carrier, wants)
            nursery.start_soon(read, carrier, command)
            try:
                await carrier.begin(wants)
                await body(command)
            except* HangUp:
                pass
            command.refuse_stdin()
            with trio.move_on_after(LINGER_SECONDS):  # the last bytes are on their way
                await ended.wait()
        nursery.cancel_scope.cancel()


async def _open_carrier(
    stream: ByteStream,
    headers: Mapping[bytes, bytes],
    protocol: str,
    wants: Wants,
    nursery: trio.Nursery,
) -> _Carrier | None:
    if is_websocket(headers):
        return WebSocketCarrier(WebSocket(stream), protocol)
    carrier = SpdyCarrier(stream, protocol)
    return carrier if await carrier.gather(wants, nursery) else None
