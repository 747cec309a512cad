"""Clients of exec, attach and port-forward as kubectl and others are: WebSocket and SPDY."""

from __future__ import annotations

import base64
import json
from typing import Any

import httptools
import trio

from k8slite.streaming import spdy
from k8slite.streaming.bytes import ByteStream
from k8slite.streaming.websocket import WebSocket

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255


def websocket_headers(*protocols: str) -> dict[bytes, bytes]:
    headers = {
        b"connection": b"Upgrade",
        b"upgrade": b"websocket",
        b"sec-websocket-version": b"13",
        b"sec-websocket-key": KEY.encode(),
    }
    if protocols:
        headers[b"sec-websocket-protocol"] = ", ".join(protocols).encode()
    return headers


def spdy_headers(*protocols: str) -> dict[bytes, bytes]:
    return {
        b"connection": b"Upgrade",
        b"upgrade": b"SPDY/3.1",
        b"x-stream-protocol-version": ", ".join(protocols).encode(),
    }


class Handshake:
    """The answer to a request to upgrade."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.headers: dict[str, str] = {}
        self.status = 0
        self.body = b""
        self.early = b""
        self.done = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode().lower()] = value.decode()

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.done = True

    def feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self.early = data[upgrade.args[0] :]
            self.done = True


async def shake_hands(
    stream: trio.abc.Stream,
    path: str,
    headers: dict[bytes, bytes],
    *,
    method: str = "GET",
    token: str = "",
) -> Handshake:
    lines = [f"{method} {path} HTTP/1.1".encode(), b"Host: test"]
    lines += [b"%b: %b" % pair for pair in headers.items()]
    if token:
        lines.append(f"Authorization: Bearer {token}".encode())
    if method == "POST":
        lines.append(b"Content-Length: 0")
    await stream.send_all(b"\r\n".join([*lines, b"", b""]))
    answer = Handshake()
    while not answer.done:
        data = bytes(await stream.receive_some(65536))
        if not data:
            break
        answer.feed(data)
    return answer


class Channels:
    """The client's end of a WebSocket with channels."""

    def __init__(self, stream: trio.abc.Stream, early: bytes = b"", *, base64: bool = False):
        self.websocket = WebSocket(ByteStream.over(stream, early), client=True)
        self.base64 = base64
        self.output: dict[int, bytes] = {}
        self.messages = 0

    async def send(self, channel: int, data: bytes) -> None:
        if self.base64:
            text = bytes((0x30 + channel,)) + base64.b64encode(data)
            await self.websocket.send(text, text=True)
        else:
            await self.websocket.send(bytes((channel,)) + data)

    async def receive(self) -> bool:
        """One message into `output`; False at the end."""
        message = b""
        while True:
            piece = await self.websocket.receive()
            if piece is None:
                return False
            message += piece.data
            if piece.last:
                break
        self.messages += 1
        channel, data = message[0], message[1:]
        if self.base64:
            channel, data = channel - 0x30, base64.b64decode(data)
        self.output[channel] = self.output.get(channel, b"") + data
        return True

    async def receive_all(self) -> dict[int, bytes]:
        while await self.receive():
            pass
        return self.output

    async def until(self, channel: int, end: bytes) -> bytes:
        while end not in self.output.get(channel, b""):
            assert await self.receive(), f"closed; got {self.output}"
        return self.output[channel]

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.output[ERROR])
        return found


class SpdyClient:
    """The client's end of a SPDY connection."""

    def __init__(self, stream: ByteStream) -> None:
        self.stream = stream
        self.parser = spdy.Parser()
        self.writer = spdy.Writer()
        self.output: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self.replied: set[int] = set()
        self.reset: set[int] = set()
        self.pings: list[int] = []
        self._next = 1

    async def open(self, **headers: str) -> int:
        number, self._next = self._next, self._next + 2
        self.output[number] = b""
        await self.stream.send(self.writer.syn_stream(number, headers))
        return number

    async def send(self, number: int, data: bytes, *, fin: bool = False) -> None:
        await self.stream.send(self.writer.data(number, data, fin=fin))

    async def receive(self) -> bool:
        """Some frames; False at the end."""
        data = await self.stream.receive()
        for frame in self.parser.feed(data):
            if isinstance(frame, spdy.Data):
                self.output[frame.stream_id] += frame.data
                if frame.fin:
                    self.ended.add(frame.stream_id)
            elif isinstance(frame, spdy.SynReply):
                self.replied.add(frame.stream_id)
            elif isinstance(frame, spdy.Reset):
                self.reset.add(frame.stream_id)
            elif isinstance(frame, spdy.Ping):
                self.pings.append(frame.ping_id)
        return bool(data)

    async def until_ended(self, *numbers: int) -> None:
        while not self.ended.issuperset(numbers):
            assert await self.receive(), f"closed; got {self.output}"

    async def until(self, number: int, end: bytes) -> None:
        while end not in self.output[number]:
            assert await self.receive(), f"closed; got {self.output}"
