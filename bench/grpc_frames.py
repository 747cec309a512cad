"""The client's side of gRPC over HTTP/2, no more than a load generator needs. Pure: bytes in, out.

Owns one connection's streams, windows and header table. Unary calls without compression or
deadlines; a call that the server refuses ends the load. Written by hand because a full gRPC
library in Python costs more processor time per call than the server that is to be measured.
(RFC 9113 for frames, RFC 7541 for headers, gRPC's "PROTOCOL-HTTP2" for the messages in them.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from struct import Struct

__all__ = ["Broken", "Connection"]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 0x1, 0x1, 0x4
INITIAL_WINDOW_SIZE = 4
WINDOW_BYTES_MAX = (1 << 31) - 1
DEFAULT_WINDOW_BYTES = 65535
FRAME_HEADER_BYTES = 9

FRAME = Struct(">HBBBI")  # length in two parts, kind, flags, stream
PREFIX = Struct(">BI")  # of a gRPC message: compressed?, length
DYNAMIC = 62  # the newest entry of the table of headers


class Broken(Exception):
    """The server ended the connection, or refused a call."""


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    size = len(payload)
    return FRAME.pack(size >> 8, size & 255, kind, flags, stream) + payload


class Connection:
    """Calls by the caller's own numbers; answers as `(number, path, bytes of the answer)`."""

    def __init__(self) -> None:
        self._buffer = b""
        self._next_stream = 1
        self._calls: dict[int, tuple[int, bytes]] = {}
        self._sizes: dict[int, int] = {}
        self._headers = _HeaderTable()
        self._window = DEFAULT_WINDOW_BYTES  # what the server lets us send
        self._waiting: deque[tuple[int, bytes, bytes]] = deque()
        self._received = 0  # since we widened the server's window

    def begin(self) -> bytes:
        """Preface and settings; windows so wide that the server never waits for us."""
        setting = INITIAL_WINDOW_SIZE.to_bytes(2, "big") + WINDOW_BYTES_MAX.to_bytes(4, "big")
        widen = WINDOW_BYTES_MAX - DEFAULT_WINDOW_BYTES
        return (
            PREFACE
            + frame(SETTINGS, 0, 0, setting)
            + frame(WINDOW_UPDATE, 0, 0, widen.to_bytes(4, "big"))
        )

    def call(self, calls: Iterable[tuple[int, bytes, bytes]]) -> bytes:
        """`(number, path, message)` each, as bytes to be sent; some may wait for room."""
        self._waiting.extend(calls)
        return b"".join(self._sendable())

    def _sendable(self) -> list[bytes]:
        parts = []
        while self._waiting and self._window >= len(self._waiting[0][2]) + PREFIX.size:
            number, path, message = self._waiting.popleft()
            stream = self._next_stream
            self._next_stream += 2
            self._calls[stream] = (number, path)
            self._sizes[stream] = 0
            self._window -= len(message) + PREFIX.size
            body = PREFIX.pack(0, len(message)) + message
            parts.append(frame(HEADERS, END_HEADERS, stream, self._headers.encode(path)))
            parts.append(frame(DATA, END_STREAM, stream, body))
        return parts

    def take(self, data: bytes) -> tuple[list[tuple[int, bytes, int]], bytes]:
        """Calls that were answered, and bytes that must be sent. Raises Broken."""
        buffer = self._buffer + data if self._buffer else data
        answers: list[tuple[int, bytes, int]] = []
        back: list[bytes] = []
        position, end = 0, len(buffer)
        while position + FRAME_HEADER_BYTES <= end:
            high, low, kind, flags, stream = FRAME.unpack_from(buffer, position)
            start = position + FRAME_HEADER_BYTES
            after = start + (high << 8 | low)
            if after > end:
                break
            position = after
            if kind == DATA:
                self._sizes[stream] += after - start
                self._received += after - start
            elif kind != HEADERS:
                self._control(kind, flags, stream, buffer[start:after], back)
            if flags & END_STREAM and kind <= HEADERS:
                answers.append(self._answered(stream))
        self._buffer = buffer[position:]
        if self._received > WINDOW_BYTES_MAX // 2:
            back.append(frame(WINDOW_UPDATE, 0, 0, self._received.to_bytes(4, "big")))
            self._received = 0
        if self._waiting:
            back += self._sendable()
        return answers, b"".join(back)

    def _answered(self, stream: int) -> tuple[int, bytes, int]:
        number, path = self._calls.pop(stream)
        size = self._sizes.pop(stream)
        if not size:  # trailers alone: only an error comes without a message
            raise Broken(f"{path.decode()} was refused")
        return number, path, size

    def _control(self, kind: int, flags: int, stream: int, body: bytes, back: list[bytes]) -> None:
        if kind == WINDOW_UPDATE and stream == 0:
            self._window += int.from_bytes(body, "big")
        elif kind in (SETTINGS, PING) and not flags & ACK:
            back.append(frame(kind, ACK, 0, body if kind == PING else b""))
        elif kind == RST_STREAM:
            raise Broken(f"a call was reset, code {int.from_bytes(body, 'big')}")
        elif kind == GOAWAY:
            raise Broken(f"the server goes away: {body[8:].decode(errors='replace')}")


class _HeaderTable:
    """Headers are told in full once a connection and by their place in the table from then on."""

    COMMON = (
        (b":authority", b"bench"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    )
    METHOD_POST, SCHEME_HTTP = b"\x83", b"\x86"

    def __init__(self) -> None:
        self._told: list[tuple[bytes, bytes]] = []
        self._blocks: dict[bytes, bytes] = {}

    def encode(self, path: bytes) -> bytes:
        block = self._blocks.get(path)
        if block is None:
            block = self._block(path)
            self._blocks = {path: self._block(path)}  # only places now; those of others have moved
        return block

    def _block(self, path: bytes) -> bytes:
        fields = ((b":path", path), *self.COMMON)
        return self.METHOD_POST + self.SCHEME_HTTP + b"".join(map(self._tell, fields))

    def _tell(self, field: tuple[bytes, bytes]) -> bytes:
        if field in self._told:
            return bytes((0x80 | DYNAMIC + len(self._told) - 1 - self._told.index(field),))
        self._told.append(field)
        name, value = field
        return b"\x40" + bytes((len(name),)) + name + bytes((len(value),)) + value
