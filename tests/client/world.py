"""A host whose network is in memory, and an HTTP server that answers as a test tells it to."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

import httptools
import orjson
import trio
import trio.testing

from raftkv.host import Address, Disk, Listener

EPOCH = 1_700_000_000.0


class MemoryListener:
    def __init__(self, net: MemoryNet, address: Address) -> None:
        self._net = net
        self._address = address
        self.send, self.receive = trio.open_memory_channel[trio.abc.Stream](100)

    @property
    def address(self) -> Address:
        return self._address

    async def accept(self) -> trio.abc.Stream:
        return await self.receive.receive()

    async def aclose(self) -> None:
        self._net.listeners.pop(self._address, None)
        await self.receive.aclose()


class MemoryNet:
    def __init__(self) -> None:
        self.listeners: dict[Address, MemoryListener] = {}
        self.opened = 0

    async def open_stream(self, address: Address) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        listener = self.listeners.get(address)
        if listener is None:
            raise ConnectionRefusedError(f"nobody listens at {address}")
        ours, theirs = trio.testing.memory_stream_pair()
        listener.send.send_nowait(self.wrap(theirs))
        self.opened += 1
        return ours

    def wrap(self, stream: trio.abc.Stream) -> trio.abc.Stream:
        """What a server gets of a new connection."""
        return stream

    async def listen(self, address: Address) -> Listener:
        listener = MemoryListener(self, address)
        self.listeners[address] = listener
        return listener


class MemoryHost:
    """Virtual time (under a mock clock), a seeded generator, a network in memory, no disk."""

    def __init__(self, seed: int = 0, net: MemoryNet | None = None) -> None:
        self.name = "memory"
        self.net = net or MemoryNet()
        self.rng = random.Random(seed)

    def now(self) -> float:
        return EPOCH + trio.current_time()

    def disk(self, directory: str) -> Disk:
        raise AssertionError(f"nobody here has a disk: {directory}")


class Request(NamedTuple):
    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class Reply(NamedTuple):
    """`then`: what follows the body: "keep" the connection, "close" it, or "hang"."""

    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    chunks: tuple[bytes, ...] | None = None
    then: str = "keep"


DROP = Reply(status=0, then="close")
HANG = Reply(status=0, then="hang")


def json_reply(value: object, status: int = 200) -> Reply:
    return Reply(status, orjson.dumps(value))


Handler = Callable[[Request], Awaitable[Reply]]


class _Parsed:
    def __init__(self) -> None:
        self.requests: list[Request] = []
        self._target = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self.parser = httptools.HttpRequestParser(self)

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode().lower()] = value.decode()

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        method = self.parser.get_method().decode()
        self.requests.append(
            Request(method, self._target.decode(), self._headers, b"".join(self._body))
        )
        self._target, self._headers, self._body = b"", {}, []


@asynccontextmanager
async def open_fake_server(
    net: MemoryNet, address: Address, handler: Handler
) -> AsyncIterator[list[Request]]:
    """A server at the address; yields the list of requests it has got."""
    listener = await net.listen(address)
    seen: list[Request] = []

    async def serve(stream: trio.abc.Stream) -> None:
        parsed = _Parsed()
        async with stream:
            while True:
                data = await stream.receive_some(65536)
                if not data:
                    return
                parsed.parser.feed_data(data)
                for request in parsed.requests:
                    seen.append(request)
                    reply = await handler(request)
                    if not await send(stream, reply):
                        return
                parsed.requests.clear()

    async def send(stream: trio.abc.Stream, reply: Reply) -> bool:
        if reply.status:
            await stream.send_all(_encode(reply))
            for chunk in reply.chunks or ():
                await stream.send_all(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            if reply.chunks is not None and reply.then == "keep":
                await stream.send_all(b"0\r\n\r\n")
        if reply.then == "hang":
            await trio.sleep_forever()
        return reply.then == "keep"

    async def accept(nursery: trio.Nursery) -> None:
        while True:
            nursery.start_soon(serve, await listener.accept())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept, nursery)
        yield seen
        nursery.cancel_scope.cancel()
    await listener.aclose()


def _encode(reply: Reply) -> bytes:
    lines = [f"HTTP/1.1 {reply.status} Whatever", "Content-Type: application/json"]
    lines += [f"{name}: {value}" for name, value in reply.headers]
    if reply.chunks is None:
        lines.append(f"Content-Length: {len(reply.body)}")
    else:
        lines.append("Transfer-Encoding: chunked")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + (reply.body if reply.chunks is None else b"")
