"""Requests and answers as the handlers see them; the bytes are `connection`'s business.

Owns: the shapes of a request, a plain answer, a streamed answer and a taken-over connection,
and how an answer's head looks on the wire. Never does I/O.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol
from urllib.parse import parse_qsl

import orjson
import trio

from k8slite.apiserver.http.tls import TlsStream
from raftkv.host import Address

if TYPE_CHECKING:
    from k8slite.apiserver.audit.record import Record

__all__ = [
    "REASONS",
    "Handler",
    "Peer",
    "Request",
    "Response",
    "StreamResponse",
    "UpgradeResponse",
    "Writer",
    "chunk",
    "head",
    "json_response",
    "peer_of",
]

REASONS: dict[int, bytes] = {
    100: b"Continue",
    101: b"Switching Protocols",
    200: b"OK",
    201: b"Created",
    202: b"Accepted",
    204: b"No Content",
    301: b"Moved Permanently",
    304: b"Not Modified",
    400: b"Bad Request",
    401: b"Unauthorized",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    406: b"Not Acceptable",
    409: b"Conflict",
    410: b"Gone",
    413: b"Request Entity Too Large",
    415: b"Unsupported Media Type",
    422: b"Unprocessable Entity",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    501: b"Not Implemented",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
}


class Peer(NamedTuple):
    """Who is at the other end: the address and, under TLS, the verified certificate (DER)."""

    address: Address | None
    certificate: bytes | None


class Request:
    """One parsed request. Header names are lower case; the body is complete.

    `received_at` (seconds since 1970) and `audit` are set where requests are audited.
    """

    __slots__ = (
        "_query", "audit", "body", "headers", "method", "path", "peer", "query_string",
        "received_at",
    )  # fmt: skip

    def __init__(
        self,
        method: str,
        path: str,
        query_string: str,
        headers: dict[bytes, bytes],
        body: bytes,
        peer: Peer,
    ) -> None:
        self.method = method
        self.path = path
        self.query_string = query_string
        self.headers = headers
        self.body = body
        self.peer = peer
        self._query: dict[str, list[str]] | None = None
        self.audit: Record | None = None
        self.received_at = 0.0

    def header(self, name: bytes) -> str:
        """A header's value as text, empty if absent."""
        return self.headers.get(name, b"").decode("latin-1")

    @property
    def query(self) -> dict[str, list[str]]:
        """All parameters, each with its values in order."""
        if self._query is None:
            query: dict[str, list[str]] = {}
            if self.query_string:
                for key, value in parse_qsl(self.query_string, keep_blank_values=True):
                    query.setdefault(key, []).append(value)
            self._query = query
        return self._query

    def param(self, name: str) -> str:
        """A parameter's first value, empty if absent."""
        if not self.query_string:
            return ""
        values = self.query.get(name)
        return values[0] if values else ""


class Response:
    """A complete answer."""

    __slots__ = ("body", "content_type", "headers", "status")

    def __init__(
        self,
        status: int,
        body: bytes,
        content_type: bytes = b"application/json",
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        self.status = status
        self.body = body
        self.content_type = content_type
        self.headers = headers


class Writer(Protocol):
    """The open end of a streamed answer."""

    def send_now(self, framed: bytes) -> bytes | None:
        """Write without waiting; None when all has left, else what `send` must be called with."""
        ...

    async def send(self, framed: bytes) -> None:
        """Write bytes that already are HTTP chunks (see `chunk`)."""
        ...


class StreamResponse:
    """An answer whose body is produced while it is sent, in HTTP chunks.

    `run` is cancelled when the client goes away, and the body ends when it returns. `abandon` is
    called instead when the client went before it began.
    """

    __slots__ = ("abandon", "content_type", "headers", "run", "status")

    def __init__(
        self,
        status: int,
        run: Callable[[Writer], Awaitable[None]],
        content_type: bytes = b"application/json",
        headers: tuple[tuple[bytes, bytes], ...] = (),
        abandon: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.abandon = abandon
        self.status = status
        self.run = run
        self.content_type = content_type
        self.headers = headers


class UpgradeResponse:
    """A 101 answer after which `run` owns the raw connection.

    `run(receive, send)`: receive() gives bytes, empty at the end; send(data) writes. `abandon` is
    called instead when the client went before it began.
    """

    __slots__ = ("abandon", "headers", "run")

    def __init__(
        self,
        run: Callable[
            [Callable[[], Awaitable[bytes]], Callable[[bytes], Awaitable[None]]], Awaitable[None]
        ],
        headers: tuple[tuple[bytes, bytes], ...],
        abandon: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.run = run
        self.headers = headers
        self.abandon = abandon


Handler = Callable[[Request], Awaitable[Response | StreamResponse | UpgradeResponse]]


def chunk(data: bytes) -> bytes:
    """One HTTP/1.1 chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def head(
    status: int,
    content_type: bytes,
    headers: tuple[tuple[bytes, bytes], ...],
    length: int | None,
    *,
    close: bool,
) -> bytes:
    """Status line and headers; a length of None announces chunks, no content type none."""
    lines = [
        b"HTTP/1.1 %d %b\r\nCache-Control: no-cache, private\r\n"
        % (status, REASONS.get(status, b"Status"))
    ]
    if content_type:
        lines.append(b"Content-Type: %b\r\n" % content_type)
    lines.extend(b"%b: %b\r\n" % header for header in headers)
    if close:
        lines.append(b"Connection: close\r\n")
    if length is None:
        lines.append(b"Transfer-Encoding: chunked\r\n\r\n")
    else:
        lines.append(b"Content-Length: %d\r\n\r\n" % length)
    return b"".join(lines)


def json_response(
    status: int, obj: object, headers: tuple[tuple[bytes, bytes], ...] = ()
) -> Response:
    """An object as JSON."""
    return Response(status, orjson.dumps(obj), headers=headers)


def peer_of(stream: trio.abc.Stream, address: Address | None = None) -> Peer:
    """The peer of a stream after its handshake."""
    certificate: bytes | None = None
    if isinstance(stream, TlsStream):
        certificate = stream.certificate()
    return Peer(address, certificate)
