"""The small HTTP server: what a client may send while an answer is still being written."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from k8slite.kubelet.serving.http_server import PIPELINED_MAX, Answer, Request, serve
from raftkv.host import Address
from tests.client.world import MemoryNet

GET = b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n"


class Served:
    """A server whose /follow says a piece each second; `ended` is set when it stops to."""

    def __init__(self) -> None:
        self.ended = trio.Event()

    async def handle(self, request: Request) -> Answer:
        if request.path == "/follow":
            return Answer(body=self._follow())
        return Answer(body=request.path.encode())

    async def _follow(self) -> AsyncGenerator[bytes]:
        try:
            for _ in range(20):
                yield b"x"
                await trio.sleep(1)
        finally:
            self.ended.set()


@asynccontextmanager
async def following() -> AsyncIterator[tuple[Served, trio.abc.Stream]]:
    """A connection whose first answer has begun."""
    served, net = Served(), MemoryNet()
    listener = await net.listen(Address("127.0.0.1", 80))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, listener, served.handle, None)
        stream = await net.open_stream(Address("127.0.0.1", 80))
        await stream.send_all(GET % b"follow")
        assert (await stream.receive_some(17)).startswith(b"HTTP/1.1 200")
        yield served, stream
        nursery.cancel_scope.cancel()


async def test_pipelined_requests_are_answered_afterwards(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with following() as (_, stream):
        for name in (b"a", b"b"):
            await trio.sleep(1.5)
            await stream.send_all(GET % name)
        data = b""
        while not data.endswith(b"/b"):
            data += await stream.receive_some(1000)
        assert data.count(b"1\r\nx\r\n") == 20
        assert data.index(b"0\r\n\r\n") < data.index(b"/a") < data.index(b"/b")


async def test_who_leaves_after_pipelining_is_noticed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with following() as (served, stream):
        await stream.send_all(GET % b"a")
        await trio.sleep(1.5)
        await stream.aclose()
        with trio.fail_after(2):
            await served.ended.wait()


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        (GET % b"a") * (PIPELINED_MAX + 1),
        b"GET / HTTP/1.1\r\nA: " + b"a" * 100_000,
    ],
)
async def test_who_sends_nonsense_meanwhile_is_closed(
    autojump_clock: trio.testing.MockClock, sent: bytes
) -> None:
    async with following() as (served, stream):
        await stream.send_all(sent)
        with trio.fail_after(2):
            await served.ended.wait()
            while data := await stream.receive_some(1000):
                assert b"/a" not in data
