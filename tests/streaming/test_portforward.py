"""Port-forward in its three forms, to servers in memory."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from k8slite.streaming.bytes import ByteStream
from k8slite.streaming.portforward import TUNNEL, negotiate, serve_port_forward
from k8slite.streaming.websocket import Tunnel, WebSocket
from tests.streaming.clients import Channels, SpdyClient, spdy_headers, websocket_headers

_Memory = trio.StapledStream[trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream]


class Echo:
    """Servers at every port but 9: they answer in capitals, and end when their client does."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.open = 0

    async def connect(self, port: int) -> trio.abc.Stream:
        if port == 9:
            raise OSError("failed to connect to localhost:9: connection refused")
        ours, theirs = trio.testing.memory_stream_pair()
        self._nursery.start_soon(self._serve, theirs)
        return ours

    async def _serve(
        self,
        stream: trio.StapledStream[trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream],
    ) -> None:
        self.open += 1
        try:
            async with stream:
                async for data in stream:
                    await stream.send_all(bytes(data).upper())
                await stream.send_all(b"bye")
        except trio.BrokenResourceError:
            pass
        finally:
            self.open -= 1


@asynccontextmanager
async def served(
    headers: dict[bytes, bytes], ports: tuple[int, ...] = (), idle: float = 3600.0
) -> AsyncIterator[tuple[trio.abc.Stream, Echo]]:
    ours, theirs = trio.testing.memory_stream_pair()
    protocol = negotiate(headers).protocol
    with trio.fail_after(3600):
        async with trio.open_nursery() as nursery:
            echo = Echo(nursery)

            async def serve() -> None:
                stream = ByteStream.over(theirs)
                await serve_port_forward(stream, headers, protocol, ports, idle, echo.connect)
                await theirs.aclose()

            nursery.start_soon(serve)
            yield ours, echo
            await ours.aclose()


def spdy_over(stream: trio.abc.Stream, tunnel: bool) -> SpdyClient:
    plain = ByteStream.over(stream)
    return SpdyClient(Tunnel(WebSocket(plain, client=True)) if tunnel else plain)


FORMS = pytest.mark.parametrize(
    ("headers", "tunnel"),
    [(spdy_headers("portforward.k8s.io"), False), (websocket_headers(TUNNEL), True)],
)


@FORMS
async def test_connections_side_by_side(
    headers: dict[bytes, bytes], tunnel: bool, autojump_clock: object
) -> None:
    async with served(headers) as (stream, echo):
        client = spdy_over(stream, tunnel)
        opened = []
        for request in range(5):
            named = {"port": "80", "requestid": str(request)}
            error = await client.open(streamtype="error", **named)
            data = await client.open(streamtype="data", **named)
            await client.send(error, b"", fin=True)
            opened.append((error, data))
        for error, data in opened:
            await client.send(data, b"hello ")
            await client.send(data, b"%d" % data, fin=True)
            await client.until_ended(error, data)
            assert client.output[data] == b"HELLO %dbye" % data
            assert client.output[error] == b""
        await stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert echo.open == 0


@FORMS
async def test_a_port_where_nobody_listens(
    headers: dict[bytes, bytes], tunnel: bool, autojump_clock: object
) -> None:
    async with served(headers) as (stream, _):
        client = spdy_over(stream, tunnel)
        error = await client.open(streamtype="error", port="9")
        data = await client.open(streamtype="data", port="9")  # without ids, as old clients
        await client.until_ended(error, data)
        assert client.output[error].startswith(b"error forwarding port 9: failed to connect")
        error = await client.open(streamtype="error", port="80")
        data = await client.open(streamtype="data", port="80")
        await client.send(data, b"still here", fin=True)
        await client.until_ended(data)
        assert client.output[data] == b"STILL HEREbye"


async def test_a_client_who_leaves_closes_the_ports(autojump_clock: object) -> None:
    async with served(spdy_headers("portforward.k8s.io")) as (stream, echo):
        client = spdy_over(stream, False)
        for request in "ab":
            await client.open(streamtype="error", port="80", requestid=request)
            data = await client.open(streamtype="data", port="80", requestid=request)
        await client.send(data, b"x")
        await client.until(data, b"X")
        assert echo.open == 2
        await client.stream.send(client.writer.reset(data, 5))  # one of them only
        await trio.testing.wait_all_tasks_blocked()
        await stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert echo.open == 0


async def test_what_is_refused(autojump_clock: object) -> None:
    async with served(spdy_headers("portforward.k8s.io")) as (stream, _):
        client = spdy_over(stream, False)
        wrong = [
            await client.open(streamtype="data", port=port)
            for port in ("", "0", "65536", "x", "٣")
            if port.isascii()
        ]
        wrong.append(await client.open(streamtype="other", port="80"))
        lonely = await client.open(streamtype="data", port="80", requestid="7")
        while not client.reset.issuperset({*wrong, lonely}):
            assert await client.receive()
        assert trio.current_time() >= 30  # the lonely one was waited for
        await client.stream.send(client.writer.ping(1))
        while client.pings != [1]:
            await client.receive()
        await client.stream.send(client.writer.syn_stream(2, {}))  # the server's numbers
        while await client.receive():
            pass


@pytest.mark.parametrize("protocol", ["v4.channel.k8s.io", "v4.base64.channel.k8s.io", ""])
async def test_plain_channels(protocol: str, autojump_clock: object) -> None:
    headers = websocket_headers(protocol) if protocol else websocket_headers()
    async with served(headers, (80, 9)) as (stream, _):
        client = Channels(stream, base64="base64" in protocol)
        await client.send(0, b"hello")
        await client.until(0, b"HELLO")
        await client.until(3, b"refused")
        assert client.output[0] == struct.pack("<H", 80) + b"HELLO"
        assert client.output[1] == struct.pack("<H", 80)
        assert client.output[2] == struct.pack("<H", 9)
        await client.send(77, b"a channel that is not there")
        await client.send(0, b" more")
        await client.until(0, b" MORE")


async def test_idle_connections_are_cut(autojump_clock: object) -> None:
    async with served(websocket_headers(TUNNEL), idle=60) as (stream, _):
        client = spdy_over(stream, True)
        while await client.receive():
            pass
        assert 59 <= trio.current_time() <= 65
