"""One connection: read, parse, hand to the handler, write; answers leave in request order.

Owns: the stream, from the handshake to its end. One task a connection; a streamed answer gets
a second one, which reads, so that a client that leaves is noticed at once.
Nobody holds a connection by doing nothing: how long a client may take to shake hands, to send a
request it has begun, to read an answer, or to be idle is limited.
Assumes: the handler answers every request and raises nothing that the client caused.
"""

from __future__ import annotations

import ssl
import zlib

import trio

from k8slite.api.status import ApiError
from k8slite.apiserver.http.crowd import Crowd
from k8slite.apiserver.http.message import (
    Handler,
    Peer,
    Request,
    Response,
    StreamResponse,
    UpgradeResponse,
    head,
    json_response,
    peer_of,
)
from k8slite.apiserver.http.parser import BadRequest, RequestParser
from k8slite.apiserver.http.tls import WRITE_BYTES, TlsStream
from raftkv.host import Address

__all__ = ["serve_connection"]

READ_BYTES = 64 * 1024
HANDSHAKE_SECONDS = 10.0
IDLE_SECONDS = 90.0  # between requests; kube-apiserver's limit
RECEIVE_SECONDS = 60.0  # from a request's first byte to its last
SEND_SECONDS = 60.0  # for one piece of an answer, and more for a long one:
SEND_BYTES_PER_SECOND = 64 * 1024
GZIP_BYTES_MIN = 128 * 1024  # the size from which kube-apiserver compresses
GZIP_STEP_BYTES = 256 * 1024  # compress so much, then let other tasks run
PENDING_BYTES_MAX = 64 * 1024  # what a client may send ahead while an answer streams

BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError, OSError)


class ChunkWriter:
    """The Writer of a streamed answer."""

    __slots__ = ("_stream",)

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    def send_now(self, framed: bytes) -> bytes | None:
        stream = self._stream
        if not isinstance(stream, TlsStream):
            return framed
        return None if stream.try_send(framed) else b""

    async def send(self, framed: bytes) -> None:
        await _send_all(self._stream, framed)


async def _send_all(stream: trio.abc.Stream, data: bytes) -> None:
    """Send, as long as the client reads. Raises BrokenResourceError if it does not."""
    if isinstance(stream, TlsStream) and len(data) <= WRITE_BYTES:
        if stream.try_send(data):
            await trio.lowlevel.checkpoint_if_cancelled()
            return
        data = b""
    with trio.move_on_after(SEND_SECONDS + len(data) / SEND_BYTES_PER_SECOND) as scope:
        await stream.send_all(data)
    if scope.cancelled_caught:
        raise trio.BrokenResourceError("the client does not read its answer")


async def serve_connection(
    transport: trio.abc.Stream,
    handler: Handler,
    *,
    tls: ssl.SSLContext | None,
    body_bytes_max: int,
    address: Address | None = None,
    crowd: Crowd | None = None,
) -> None:
    """Serve until the client leaves or sends what is not HTTP. Never raises for a client."""
    stream: trio.abc.Stream = transport
    crowd = crowd or Crowd(1)
    try:
        if tls is not None:
            stream = secure = TlsStream(transport, tls)
            with trio.move_on_after(HANDSHAKE_SECONDS) as scope:
                number = crowd.quiet(scope)
                try:
                    await secure.do_handshake()
                finally:
                    crowd.busy(number)
            if scope.cancelled_caught:
                return
        peer = peer_of(stream, address)
        await _Connection(stream, handler, peer, body_bytes_max, crowd).serve()
    except BROKEN:
        return
    finally:
        await trio.aclose_forcefully(stream)


class _Connection:
    def __init__(
        self,
        stream: trio.abc.Stream,
        handler: Handler,
        peer: Peer,
        body_bytes_max: int,
        crowd: Crowd,
    ) -> None:
        self._stream = stream
        self._crowd = crowd
        self._handler = handler
        self._parser = RequestParser(peer, body_bytes_max)
        self._ended = False

    async def serve(self) -> None:
        parser = self._parser
        while True:
            if not parser.ready and not await self._receive():
                return
            request = parser.ready.popleft()
            answer = await self._handler(request)
            close = (
                parser.upgraded is not None
                or not (parser.keep_alive or parser.ready)
                or self._crowd.closing
            )
            if isinstance(answer, Response):
                await self._send(request, answer, close)
            elif isinstance(answer, StreamResponse):
                await self._stream_answer(answer, close)
            else:
                await self._upgrade(answer)
                return
            if close or self._ended:
                return

    async def _receive(self) -> bool:
        """Read until a request is complete; False when none comes (in time)."""
        parser, crowd = self._parser, self._crowd
        limit = RECEIVE_SECONDS if parser.begun else IDLE_SECONDS
        with trio.move_on_after(limit) as scope:
            number = crowd.quiet(scope)
            try:
                while not parser.ready:
                    was_begun = parser.begun
                    if not await self._read():
                        return False
                    if parser.begun and not was_begun:
                        scope.deadline = trio.current_time() + RECEIVE_SECONDS
            finally:
                crowd.busy(number)
        return bool(parser.ready)

    async def _read(self) -> bool:
        """Read once into the parser; False at the end of the connection."""
        data = await self._stream.receive_some(READ_BYTES)
        if not data:
            return False
        try:
            self._parser.feed(bytes(data))
        except BadRequest as error:
            await self._refuse(error)
            return False
        if self._parser.wants_continue:
            self._parser.wants_continue = False
            await self._stream.send_all(b"HTTP/1.1 100 Continue\r\n\r\n")
        return True

    async def _refuse(self, error: BadRequest) -> None:
        if error.status == 413:
            status = ApiError(413, "RequestEntityTooLarge", error.message).to_status()
            answer = json_response(413, status)
        else:
            answer = Response(error.status, error.message.encode(), b"text/plain; charset=utf-8")
        data = head(answer.status, answer.content_type, (), len(answer.body), close=True)
        await _send_all(self._stream, data + answer.body)

    async def _send(self, request: Request, answer: Response, close: bool) -> None:
        body = answer.body
        if len(body) >= GZIP_BYTES_MIN and b"gzip" in request.headers.get(b"accept-encoding", b""):
            await self._send_compressed(answer, close)
            return
        data = head(answer.status, answer.content_type, answer.headers, len(body), close=close)
        if request.method != "HEAD":
            data += body
        await _send_all(self._stream, data)

    async def _send_compressed(self, answer: Response, close: bool) -> None:
        packer = zlib.compressobj(1, zlib.DEFLATED, 31)
        packed: list[bytes] = []
        view = memoryview(answer.body)
        for start in range(0, len(view), GZIP_STEP_BYTES):
            packed.append(packer.compress(view[start : start + GZIP_STEP_BYTES]))
            await trio.lowlevel.checkpoint()
        packed.append(packer.flush())
        body = b"".join(packed)
        headers = (*answer.headers, (b"Content-Encoding", b"gzip"), (b"Vary", b"Accept-Encoding"))
        data = head(answer.status, answer.content_type, headers, len(body), close=close)
        await _send_all(self._stream, data + body)

    async def _stream_answer(self, answer: StreamResponse, close: bool) -> None:
        begun = False
        try:
            await _send_all(
                self._stream,
                head(answer.status, answer.content_type, answer.headers, None, close=close),
            )
            begun = True
        finally:
            if not begun and answer.abandon is not None:
                with trio.CancelScope(shield=True):
                    await answer.abandon()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_for_end, nursery.cancel_scope)
            try:
                await answer.run(ChunkWriter(self._stream))
            except BROKEN:
                self._ended = True
            nursery.cancel_scope.cancel()
        if not self._ended:
            await _send_all(self._stream, b"0\r\n\r\n")

    async def _watch_for_end(self, scope: trio.CancelScope) -> None:
        """Cancel the answer when the client leaves; keep what it sends ahead."""
        received = 0
        while received < PENDING_BYTES_MAX:
            try:
                data = await self._stream.receive_some(READ_BYTES)
                if data:
                    self._parser.feed(bytes(data))
                    received += len(data)
                    continue
            except (*BROKEN, BadRequest):
                pass
            self._ended = True
            scope.cancel()
            return

    async def _upgrade(self, answer: UpgradeResponse) -> None:
        lines = [b"HTTP/1.1 101 Switching Protocols\r\n"]
        lines.extend(b"%b: %b\r\n" % header for header in answer.headers)
        begun = False
        try:
            await self._stream.send_all(b"".join(lines) + b"\r\n")
            begun = True
        finally:
            if not begun and answer.abandon is not None:
                with trio.CancelScope(shield=True):
                    await answer.abandon()
        early = self._parser.upgraded or b""

        async def receive() -> bytes:
            nonlocal early
            if early:
                data, early = early, b""
                return data
            return bytes(await self._stream.receive_some(READ_BYTES))

        await answer.run(receive, self._stream.send_all)
