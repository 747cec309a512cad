"""Port-forward: a client's connections to ports of a pod, each carried by one connection.

Three forms: SPDY (a pair of streams a connection, told apart by headers), the same SPDY tunnelled
in a WebSocket's messages, and plain WebSocket channels (two a port: data and errors). How a port is
reached is the caller's `connect`, which raises OSError with words for users.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Awaitable, Callable, Mapping, Sequence

import trio
from attrs import define

from k8slite.streaming.bytes import BROKEN, LINGER_SECONDS, ByteStream, HangUp, watch_idle
from k8slite.streaming.pace import Queue
from k8slite.streaming.spdy_session import SpdySession, SpdyStream
from k8slite.streaming.upgrade import (
    Upgrade,
    UpgradeRefused,
    choose_spdy,
    choose_websocket,
    is_spdy,
    is_websocket,
)
from k8slite.streaming.websocket import Tunnel, WebSocket

__all__ = ["needs_ports", "negotiate", "serve_port_forward"]

TUNNEL = "SPDY/3.1+portforward.k8s.io"
WEBSOCKET_PROTOCOLS = (TUNNEL, "v4.channel.k8s.io", "v4.base64.channel.k8s.io", "")
SPDY_PROTOCOLS = ("portforward.k8s.io",)
READ_BYTES = 32 * 1024
PAIR_SECONDS = 30.0  # Kubernetes' streamCreationTimeout
PAIRS_MAX = 256  # half-open ones

Connect = Callable[[int], Awaitable[trio.abc.Stream]]


def negotiate(headers: Mapping[bytes, bytes]) -> Upgrade:
    """What to answer to the request. Raises UpgradeRefused."""
    if is_websocket(headers):
        return choose_websocket(headers, WEBSOCKET_PROTOCOLS)
    if is_spdy(headers):
        return choose_spdy(headers, SPDY_PROTOCOLS)
    raise UpgradeRefused(
        400, "Upgrade request required: ports are forwarded by WebSocket or SPDY/3.1"
    )


def needs_ports(headers: Mapping[bytes, bytes], protocol: str) -> bool:
    """Whether the request itself must say which ports: with SPDY each stream does."""
    return is_websocket(headers) and protocol != TUNNEL


async def serve_port_forward(
    stream: ByteStream,
    headers: Mapping[bytes, bytes],
    protocol: str,
    ports: Sequence[int],
    idle_seconds: float,
    connect: Connect,
) -> None:
    """Serve a client after the handshake, until it leaves or is idle for so long.

    `ports` are those of the request; only plain WebSocket needs them there.
    """
    async with trio.open_nursery() as nursery:
        watched = stream
        if not is_websocket(headers):
            nursery.start_soon(_serve_spdy, stream, connect, nursery.cancel_scope)
        elif protocol == TUNNEL:
            websocket = WebSocket(stream)
            watched = Tunnel(websocket)
            nursery.start_soon(_serve_spdy, watched, connect, nursery.cancel_scope)
        else:
            channels = _Channels(WebSocket(stream), "base64" in protocol, connect)
            nursery.start_soon(channels.serve, ports, nursery.cancel_scope)
        nursery.start_soon(watch_idle, watched, idle_seconds, nursery.cancel_scope)


@define
class _Pair:
    data: SpdyStream | None = None
    error: SpdyStream | None = None


async def _serve_spdy(stream: ByteStream, connect: Connect, scope: trio.CancelScope) -> None:
    session = SpdySession(stream)
    pairs: dict[str, _Pair] = {}

    async def expire(key: str, pair: _Pair) -> None:
        await trio.sleep(PAIR_SECONDS)
        if pairs.get(key) is pair:
            del pairs[key]
            for half in (pair.data, pair.error):
                if half is not None:
                    await _quietly(half.reset)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.run)
        while (opened := await session.accept()) is not None:
            kind = opened.headers.get("streamtype", "")
            port = opened.headers.get("port", "")
            if kind not in ("data", "error") or not _is_port(port) or len(pairs) >= PAIRS_MAX:
                await _quietly(opened.reset)
                continue
            key = _request_id(opened, kind)
            pair = pairs.get(key)
            if pair is None:
                pair = pairs[key] = _Pair()
                nursery.start_soon(expire, key, pair)
            if getattr(pair, kind) is not None:
                await _quietly(opened.reset)
                continue
            setattr(pair, kind, opened)
            if pair.data is not None and pair.error is not None:
                del pairs[key]
                nursery.start_soon(_forward, int(port), pair.data, pair.error, connect)
        scope.cancel()


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) < 65536


def _request_id(stream: SpdyStream, kind: str) -> str:
    """Old clients send none: there the data stream is opened right after its error stream."""
    given = stream.headers.get("requestid", "")
    return given or str(stream.stream_id - (2 if kind == "data" else 0))


async def _quietly(call: Callable[[], Awaitable[None]]) -> None:
    try:
        await call()
    except HangUp:
        return


async def _forward(port: int, data: SpdyStream, error: SpdyStream, connect: Connect) -> None:
    """One connection, from its opening to the end of both directions."""
    try:
        try:
            target = await connect(port)
        except OSError as problem:
            await error.send(f"error forwarding port {port}: {problem}".encode())
        else:
            async with target:
                await _join(target, data.receive, data.send, data.send_eof)
        await data.send_eof()
        await error.send_eof()
    except HangUp:
        pass
    finally:
        for half in (data, error):
            half.queue.refuse()


async def _join(
    target: trio.abc.Stream,
    receive: Callable[[], Awaitable[bytes]],
    send: Callable[[bytes], Awaitable[None]],
    send_eof: Callable[[], Awaitable[None]],
) -> None:
    """Pass bytes between a client and a target until the target has ended or is broken.

    Raises HangUp when the client is gone.
    """

    async def outward() -> None:
        try:
            while piece := await receive():
                await target.send_all(piece)
            if isinstance(target, trio.abc.HalfCloseableStream):
                await target.send_eof()
        except BROKEN:
            nursery.cancel_scope.cancel()

    gone = False
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outward)
            try:
                while piece := bytes(await target.receive_some(READ_BYTES)):
                    await send(piece)
                await send_eof()
            except BROKEN:
                pass
            nursery.cancel_scope.cancel()
    except* HangUp:
        gone = True
    if gone:  # raised in there it would come out in a group
        raise HangUp("the client is gone")


class _Channels:
    """Plain WebSocket: channel 2i carries the data of port i, channel 2i + 1 its errors."""

    def __init__(self, websocket: WebSocket, in_base64: bool, connect: Connect) -> None:
        self._websocket = websocket
        self._base64 = in_base64
        self._connect = connect
        self._queues: list[Queue] = []
        self._ended = trio.Event()

    async def serve(self, ports: Sequence[int], scope: trio.CancelScope) -> None:
        self._queues = [Queue() for _ in ports]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read)
            async with trio.open_nursery() as forwards:
                nursery.start_soon(self._cancel_at_end, forwards.cancel_scope)
                for index, port in enumerate(ports):
                    forwards.start_soon(self._forward, index, port)
            await self._websocket.close()
            with trio.move_on_after(LINGER_SECONDS):
                await self._ended.wait()
            scope.cancel()

    async def _cancel_at_end(self, scope: trio.CancelScope) -> None:
        await self._ended.wait()
        scope.cancel()

    async def _read(self) -> None:
        channel = -1
        message = bytearray()
        while (piece := await self._websocket.receive()) is not None:
            data = piece.data
            if piece.first:
                channel = -1
                message.clear()
            if channel < 0 and data:
                channel = data[0] - (0x30 if self._base64 else 0)
                data = data[1:]
            if self._base64:
                message += data
                if len(message) > 1024 * 1024:
                    break
                if not piece.last:
                    continue
                try:
                    data = base64.b64decode(bytes(message), validate=True)
                except ValueError:
                    continue
            if data and channel >= 0 and channel % 2 == 0 and channel // 2 < len(self._queues):
                self._websocket.stream.touch()
                try:
                    await self._queues[channel // 2].put(data, self._websocket.ping)
                except HangUp:
                    break
        for queue in self._queues:
            queue.close()
        self._ended.set()

    async def _send(self, channel: int, data: bytes) -> None:
        await self._websocket.send_on(channel, data, base64=self._base64)

    async def _forward(self, index: int, port: int) -> None:
        queue = self._queues[index]
        number = struct.pack("<H", port)

        async def send(data: bytes) -> None:
            await self._send(2 * index, data)

        async def nothing() -> None:
            """These protocols cannot end one channel alone."""

        try:
            await self._send(2 * index, number)
            await self._send(2 * index + 1, number)
            target = await self._connect(port)
            async with target:
                await _join(target, queue.get, send, nothing)
        except OSError as problem:
            text = f"error forwarding port {port}: {problem}"
            await _quietly(lambda: self._send(2 * index + 1, text.encode()))
        except HangUp:
            pass
        finally:
            queue.refuse()
