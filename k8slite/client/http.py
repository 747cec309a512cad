"""One HTTP/1.1 connection, client side, over any trio stream.

Owns the framing of requests and responses and the knowledge of whether a failed request may
have reached the server. Assumes one request at a time. Never retries, never picks an endpoint,
never interprets a body.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import httptools
import trio

from raftkv.host import Address

__all__ = ["Connection", "ConnectionLost", "Response", "ResponseHead", "encode_request"]

RECEIVE_BYTES = 64 * 1024
STREAM_ERRORS = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)


class ConnectionLost(Exception):
    """The stream failed. `sent`: the whole request had left, so it may have been executed."""

    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.sent = sent


class ResponseHead(NamedTuple):
    """Status and headers (names in lower case; of repeated ones the last)."""

    status: int
    headers: dict[str, str]


class Response(NamedTuple):
    """A response read to its end."""

    status: int
    headers: dict[str, str]
    body: bytes


def encode_request(
    method: str,
    target: str,
    host: str,
    headers: Sequence[tuple[str, str]],
    body: bytes | None,
) -> bytes:
    """The request as bytes; `target` is the path with its query, already percent-encoded."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in headers]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
    return head + body if body else head


class Connection:
    """A connection that takes requests in turn.

    `reusable` tells, once a response is read to its end, whether another request may follow;
    `lost` that the stream has failed or ended.
    After any exception the connection must be closed.
    """

    def __init__(self, stream: trio.abc.Stream, address: Address) -> None:
        self.address = address
        self.idle_since = 0.0
        self._stream = stream
        self._parser = httptools.HttpResponseParser(self)
        self._chunks: deque[bytes] = deque()
        self._headers: dict[str, str] = {}
        self._head: ResponseHead | None = None
        self._complete = True
        self._keep_alive = False
        self._closed = False
        self.lost = False

    @property
    def reusable(self) -> bool:
        return self._complete and not self._closed and not self.lost and self._keep_alive

    def looks_closed(self) -> bool:
        """True if an idle connection has something to read: the server's farewell, most likely.

        Only real sockets can tell; simulated streams answer False.
        """
        inner = getattr(self._stream, "transport_stream", self._stream)
        sock = getattr(inner, "socket", None)
        return sock is not None and bool(sock.is_readable())

    async def request(self, data: bytes) -> ResponseHead:
        """Send an encoded request and return the response's head.

        Raises ConnectionLost.
        """
        assert self._complete, "a response is still being read"
        self._complete = False
        self._head = None
        self._headers = {}
        self._chunks.clear()
        try:
            await self._stream.send_all(data)
        except STREAM_ERRORS as error:
            # A request of known length whose last byte did not leave cannot be executed.
            raise self._lose(f"send: {error!r}", sent=False) from error
        return await self._read_head()

    async def receive(self) -> bytes:
        """The next piece of the body; b"" at its end. Raises ConnectionLost."""
        while not self._chunks and not self._complete:
            await self._feed()
        if not self._chunks:
            return b""
        data = b"".join(self._chunks) if len(self._chunks) > 1 else self._chunks[0]
        self._chunks.clear()
        return data

    async def receive_all(self) -> bytes:
        """The rest of the body. Raises ConnectionLost."""
        while not self._complete:
            await self._feed()
        data = b"".join(self._chunks)
        self._chunks.clear()
        return data

    async def aclose(self) -> None:
        """Close at once; nothing is flushed, a half-read response is dropped."""
        if not self._closed:
            self._closed = True
            await trio.aclose_forcefully(self._stream)

    async def _read_head(self) -> ResponseHead:
        while self._head is None:
            await self._feed()
        return self._head

    async def _feed(self) -> None:
        try:
            data = await self._stream.receive_some(RECEIVE_BYTES)
        except STREAM_ERRORS as error:
            raise self._lose(f"receive: {error!r}", sent=True) from error
        if not data:
            self._end_of_stream()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as error:
            raise self._lose("the server left HTTP unasked", sent=True) from error
        except httptools.HttpParserError as error:
            raise self._lose(f"not HTTP: {error}", sent=True) from error

    def _end_of_stream(self) -> None:
        framed = "content-length" in self._headers or "transfer-encoding" in self._headers
        if self._head is None or framed:
            raise self._lose("the server closed the connection", sent=True)
        self.lost = True  # a body that ends with its connection: complete, but not to be reused
        self._complete = True

    def _lose(self, reason: str, *, sent: bool) -> ConnectionLost:
        self.lost = True
        return ConnectionLost(reason, sent=sent)

    # Called by the parser.

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200:
            self._head = ResponseHead(status, self._headers)
        else:
            self._headers = {}

    def on_body(self, data: bytes) -> None:
        self._chunks.append(data)

    def on_message_complete(self) -> None:
        if self._head is not None:
            self._complete = True
            # Only now does the parser know; a moment later it has forgotten.
            self._keep_alive = bool(self._parser.should_keep_alive())
