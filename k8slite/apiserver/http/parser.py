"""HTTP/1.1 requests out of bytes: httptools' callbacks gathered into Request values.

Pure: no I/O. Feed it chunks as they come; complete requests stand in `ready`, in order.
Limits are kept here, so that a client can make us hold no more than a head and a body.
"""

from __future__ import annotations

from collections import deque
from urllib.parse import unquote

import httptools

from k8slite.apiserver.http.message import Peer, Request

__all__ = ["HEAD_BYTES_MAX", "BadRequest", "RequestParser"]

HEAD_BYTES_MAX = 256 * 1024
PIPELINE_MAX = 64


class BadRequest(Exception):
    """These bytes cannot be answered but by closing the connection.

    `status` is 400 (not HTTP), 413 (body too large) or 431 (head too large).
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class RequestParser:
    """One connection's parser. `keep_alive` says whether the last request allows another."""

    def __init__(self, peer: Peer, body_bytes_max: int) -> None:
        self.ready: deque[Request] = deque()
        self.begun = False
        """Has a request begun that is not complete?"""
        self.keep_alive = True
        self.wants_continue = False
        self.upgraded: bytes | None = None
        self._peer = peer
        self._body_bytes_max = body_bytes_max
        self._parser = httptools.HttpRequestParser(self)
        self._url: list[bytes] = []
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._head_bytes = 0
        self._problem: BadRequest | None = None

    def feed(self, data: bytes) -> None:
        """Take bytes of the connection. Raises BadRequest; the parser is of no use then."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self.upgraded = data[upgrade.args[0] :]
        except httptools.HttpParserError as error:
            raise self._problem or BadRequest(400, "400 Bad Request") from error
        if self._problem is not None:
            raise self._problem
        if len(self.ready) > PIPELINE_MAX:
            raise BadRequest(400, "too many pipelined requests")

    # callbacks of httptools

    def on_message_begin(self) -> None:
        self.begun = True
        self._url = []
        self._headers = {}
        self._body = []
        self._body_bytes = 0
        self._head_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._url.append(url)
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value))
        name = name.lower()
        known = self._headers.get(name)
        self._headers[name] = value if known is None else known + b", " + value

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > HEAD_BYTES_MAX:
            self._refuse(431, "431 Request Header Fields Too Large")

    def on_headers_complete(self) -> None:
        length = self._headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._body_bytes_max:
            self._refuse(413, f"Request entity too large: limit is {self._body_bytes_max}")
        self.wants_continue = self._headers.get(b"expect", b"").lower() == b"100-continue"

    def on_body(self, body: bytes) -> None:
        self.wants_continue = False
        self._body_bytes += len(body)
        if self._body_bytes > self._body_bytes_max:
            self._refuse(413, f"Request entity too large: limit is {self._body_bytes_max}")
        else:
            self._body.append(body)

    def on_message_complete(self) -> None:
        self.begun = False
        self.wants_continue = False
        self.keep_alive = self._parser.should_keep_alive()
        target = httptools.parse_url(b"".join(self._url))
        self.ready.append(
            Request(
                self._parser.get_method().decode(),
                _decode_path(target.path or b"/"),
                (target.query or b"").decode("latin-1"),
                self._headers,
                self._body[0] if len(self._body) == 1 else b"".join(self._body),
                self._peer,
            )
        )

    def _refuse(self, status: int, message: str) -> None:
        if self._problem is None:
            self._problem = BadRequest(status, message)


def _decode_path(path: bytes) -> str:
    if b"%" not in path:
        return path.decode("latin-1")
    return unquote(path.decode("latin-1"))
