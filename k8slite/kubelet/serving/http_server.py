"""A small HTTP/1.1 server over any listener, for the kubelet's few endpoints.

Reads requests without bodies worth keeping, hands them to one handler, and writes the answer,
whole or chunked as it comes, or gives the connection away to one that has left HTTP. A connection
that sends nonsense is closed, also one that sends more than PIPELINED_MAX requests ahead while it
is being answered in pieces. At most CONNECTIONS_MAX connections are served; further ones wait to be
accepted.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

import attrs
import httptools
import trio

from k8slite.streaming.bytes import ByteStream
from raftkv.host import Listener

log = logging.getLogger(__name__)

CONNECTIONS_MAX = 256
RECEIVE_BYTES = 16 * 1024
HEAD_BYTES_MAX = 64 * 1024
PIPELINED_MAX = 16
IDLE_SECONDS = 120.0
HANDSHAKE_SECONDS = 10.0
REASONS = {
    101: "Switching Protocols",
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    500: "Internal Server Error",
    502: "Bad Gateway",
}
STREAM_ERRORS = (trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError, OSError)

NONSENSE = (httptools.HttpParserError, ValueError)


class Identity(NamedTuple):
    """Whom a certificate names: its common name, and its organisations."""

    user: str
    groups: tuple[str, ...] = ()


@attrs.frozen
class Request:
    """`identity` is that of the client's certificate; None: it showed none.

    Header names are lower case; several values of a header are joined with commas. `values` are the
    query's parameters in order, of which `query` has the last of each name.
    """

    method: str
    path: str
    query: dict[str, str]
    identity: Identity | None
    headers: dict[bytes, bytes] = attrs.field(factory=dict)
    values: tuple[tuple[str, str], ...] = ()

    def all(self, name: str) -> tuple[str, ...]:
        """Every value of a parameter."""
        return tuple(value for key, value in self.values if key == name)


@attrs.frozen
class Answer:
    """`body` whole, or a generator of pieces."""

    status: int = 200
    body: bytes | AsyncGenerator[bytes] = b""
    content_type: str = "text/plain; charset=utf-8"


@attrs.frozen
class Takeover:
    """The connection leaves HTTP with a 101 answer, and is `run`'s from then on.

    `abandon` is called instead when the client went before that.
    """

    headers: tuple[tuple[bytes, bytes], ...]
    run: Callable[[ByteStream], Awaitable[None]]
    abandon: Callable[[], Awaitable[None]] | None = None


Handler = Callable[[Request], Awaitable[Answer | Takeover]]


class _Connection:
    """One connection: the parser's callbacks, and the loop that answers."""

    def __init__(
        self, stream: trio.abc.Stream, handler: Handler, identity: Identity | None
    ) -> None:
        self._stream = stream
        self._handler = handler
        self._identity = identity
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._size = 0
        self._early: bytes | None = None  # what came after a request to upgrade
        self._ready: list[tuple[Request, bool]] = []
        self._over = False  # the client went, or no longer makes sense, during an answer

    def on_message_begin(self) -> None:
        self._url, self._size = b"", 0
        self._headers = {}

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        known = self._headers.get(name)
        self._headers[name] = value if known is None else known + b", " + value

    def on_message_complete(self) -> None:
        parts = urlsplit(self._url.decode("latin-1"))
        values = tuple(parse_qsl(parts.query, keep_blank_values=True))
        request = Request(
            self._parser.get_method().decode(),
            unquote(parts.path),
            dict(values),
            self._identity,
            self._headers,
            values,
        )
        self._ready.append((request, bool(self._parser.should_keep_alive())))

    async def serve(self) -> None:
        while True:
            with trio.move_on_after(IDLE_SECONDS) as scope:
                data = await self._stream.receive_some(RECEIVE_BYTES)
            if scope.cancelled_caught or not data:
                return
            self._size += len(data)
            if self._size > HEAD_BYTES_MAX:
                return
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                self._early = bytes(data[upgrade.args[0] :])
            except NONSENSE:
                await self._write(Answer(400, b"bad request"), keep=False)
                return
            while self._ready:
                request, keep = self._ready.pop(0)
                answer = await self._handler(request)
                if isinstance(answer, Takeover):
                    await self._hand_over(answer)
                    return
                keep = keep and self._early is None
                await self._write(answer, keep=keep)
                if not keep or self._over:
                    return

    async def _hand_over(self, answer: Takeover) -> None:
        lines = [b"HTTP/1.1 101 Switching Protocols"]
        lines += [b"%b: %b" % header for header in answer.headers]
        try:
            await self._stream.send_all(b"\r\n".join([*lines, b"", b""]))
        except BaseException:
            if answer.abandon is not None:
                with trio.CancelScope(shield=True):
                    await answer.abandon()
            raise
        await answer.run(ByteStream.over(self._stream, self._early or b""))

    async def _write(self, answer: Answer, *, keep: bool) -> None:
        head = [
            f"HTTP/1.1 {answer.status} {REASONS.get(answer.status, 'Status')}",
            f"Content-Type: {answer.content_type}",
            f"Connection: {'keep-alive' if keep else 'close'}",
        ]
        if isinstance(answer.body, bytes):
            head.append(f"Content-Length: {len(answer.body)}")
            await self._stream.send_all("\r\n".join([*head, "", ""]).encode() + answer.body)
            return
        head.append("Transfer-Encoding: chunked")
        await self._stream.send_all("\r\n".join([*head, "", ""]).encode())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_hangup, nursery.cancel_scope)
            async with aclosing(answer.body) as pieces:
                async for piece in pieces:
                    if piece:
                        await self._stream.send_all(b"%x\r\n%b\r\n" % (len(piece), piece))
            await self._stream.send_all(b"0\r\n\r\n")
            nursery.cancel_scope.cancel()

    async def _watch_hangup(self, scope: trio.CancelScope) -> None:
        """A reader who is gone must not leave us following a log for ever.

        Requests that come meanwhile are answered when this answer is done.
        """
        try:
            while data := await self._stream.receive_some(RECEIVE_BYTES):
                self._size += len(data)
                if self._early is None:  # else this connection ends with this answer
                    self._parser.feed_data(data)
                if self._size > HEAD_BYTES_MAX or len(self._ready) > PIPELINED_MAX:
                    break
        except (*STREAM_ERRORS, *NONSENSE, httptools.HttpParserUpgrade):
            pass
        self._over = True
        scope.cancel()


def identity_of(stream: trio.SSLStream[trio.abc.Stream]) -> Identity | None:
    """Of the peer's certificate, which has been verified; None when it showed none."""
    certificate = stream.getpeercert()
    if not certificate:
        return None
    fields = [pair for group in certificate.get("subject", ()) for pair in group]
    user = next((text for key, text in fields if key == "commonName"), "")
    return Identity(user, tuple(text for key, text in fields if key == "organizationName"))


async def _serve_stream(
    stream: trio.abc.Stream, handler: Handler, tls: ssl.SSLContext | None
) -> None:
    identity: Identity | None = None
    try:
        if tls is not None:
            secured = trio.SSLStream(stream, tls, server_side=True, https_compatible=True)
            with trio.fail_after(HANDSHAKE_SECONDS):
                await secured.do_handshake()
            identity = identity_of(secured)
            stream = secured
        await _Connection(stream, handler, identity).serve()
    except* (trio.TooSlowError, *STREAM_ERRORS) as group:
        log.debug("connection ended: %r", group.exceptions[0])
    finally:
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(stream)


async def serve(listener: Listener, handler: Handler, tls: ssl.SSLContext | None) -> None:
    """Accept and serve until cancelled. `tls` None: plain, and nobody has an identity."""
    limit = trio.CapacityLimiter(CONNECTIONS_MAX)

    async def one(stream: trio.abc.Stream) -> None:
        try:
            await _serve_stream(stream, handler, tls)
        finally:
            limit.release_on_behalf_of(stream)

    async with trio.open_nursery() as nursery:
        while True:
            try:
                stream = await listener.accept()
            except OSError as error:
                log.warning("accept failed: %s", error)
                await trio.sleep(0.1)
                continue
            await limit.acquire_on_behalf_of(stream)
            nursery.start_soon(one, stream)
