"""SPDY/3.1 frames, from bytes and to bytes: kubectl falls back to it, and port-forward tunnels it.

Pure: no I/O. The draft (mbelshe-httpbis-spdy-00 with 3.1's changes) is followed as far as clients
of Kubernetes go: they use no flow control, no priorities, no settings, so those frames are passed
over. Header blocks of one direction share one compression context: every block must be decoded,
in order, also of streams that are refused.

Limits: a control frame of CONTROL_BYTES_MAX, a header block of HEADER_BYTES_MAX. Data frames are
handed on piece by piece as they come, whatever their length.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from typing import NamedTuple

__all__ = [
    "CANCEL",
    "INTERNAL_ERROR",
    "PROTOCOL_ERROR",
    "REFUSED",
    "Data",
    "Frame",
    "GoAway",
    "Headers",
    "Parser",
    "Ping",
    "Reset",
    "SpdyError",
    "SynReply",
    "SynStream",
    "Writer",
]

CONTROL_BYTES_MAX = 64 * 1024
HEADER_BYTES_MAX = 64 * 1024
DATA_BYTES_MAX = 0xFFFFFF

PROTOCOL_ERROR, REFUSED, CANCEL, INTERNAL_ERROR = 1, 3, 5, 6

_VERSION = 3
_SYN_STREAM, _SYN_REPLY, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _HEADERS, _WINDOW = (
    1,
    2,
    3,
    4,
    6,
    7,
    8,
    9,
)
_FIN = 1
_ID = 0x7FFFFFFF

_WORDS = (
    "options|head|post|put|delete|trace|accept|accept-charset|accept-encoding|accept-language|"
    "accept-ranges|age|allow|authorization|cache-control|connection|content-base|"
    "content-encoding|content-language|content-length|content-location|content-md5|"
    "content-range|content-type|date|etag|expect|expires|from|host|if-match|if-modified-since|"
    "if-none-match|if-range|if-unmodified-since|last-modified|location|max-forwards|pragma|"
    "proxy-authenticate|proxy-authorization|range|referer|retry-after|server|te|trailer|"
    "transfer-encoding|upgrade|user-agent|vary|via|warning|www-authenticate|method|get|status|"
    "200 OK|version|HTTP/1.1|url|public|set-cookie|keep-alive|origin"
)
_TEXT = (
    "1001012012022052063003023033043053063074024054064074084094104114124134144154164175025045052"
    "03 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request"
    "401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented"
    "503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, "
    "Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,"
    "application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age="
    "gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
DICTIONARY = b"".join(
    (*(struct.pack(">I", len(w)) + w.encode() for w in _WORDS.split("|")), _TEXT.encode())
)
"""The fixed dictionary of header compression (section 2.6.10.1)."""


class SpdyError(Exception):
    """These bytes are not SPDY, or too much of it: the connection must end."""


class SynStream(NamedTuple):
    stream_id: int
    fin: bool
    headers: dict[str, str]


class SynReply(NamedTuple):
    stream_id: int
    fin: bool
    headers: dict[str, str]


class Headers(NamedTuple):
    stream_id: int
    fin: bool
    headers: dict[str, str]


class Reset(NamedTuple):
    stream_id: int
    status: int


class Ping(NamedTuple):
    ping_id: int


class GoAway(NamedTuple):
    last_stream_id: int


class Data(NamedTuple):
    """A piece of a data frame; `fin` comes with the last piece of the last frame."""

    stream_id: int
    fin: bool
    data: bytes


Frame = SynStream | SynReply | Headers | Reset | Ping | GoAway | Data


class Parser:
    """One direction's bytes into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._data_id = 0
        self._data_fin = False
        self._data_left = -1  # of the data frame at hand; -1: a header is next

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that these bytes complete. Raises SpdyError."""
        self._buffer += data
        frames: list[Frame] = []
        while True:
            if self._data_left >= 0:
                if not self._buffer and self._data_left:
                    return frames
                piece = bytes(self._buffer[: self._data_left])
                del self._buffer[: len(piece)]
                self._data_left -= len(piece)
                done = self._data_left == 0
                frames.append(Data(self._data_id, self._data_fin and done, piece))
                if not done:
                    return frames
                self._data_left = -1
            if len(self._buffer) < 8:
                return frames
            word, flags_length = struct.unpack_from(">II", self._buffer)
            flags, length = flags_length >> 24, flags_length & 0xFFFFFF
            if not word >> 31:
                del self._buffer[:8]
                self._data_id, self._data_fin = word & _ID, bool(flags & _FIN)
                self._data_left = length
                continue
            if word >> 16 & 0x7FFF != _VERSION or length > CONTROL_BYTES_MAX:
                raise SpdyError(f"unexpected control frame 0x{word:08x} of {length} bytes")
            if len(self._buffer) < 8 + length:
                return frames
            body = bytes(self._buffer[8 : 8 + length])
            del self._buffer[: 8 + length]
            frame = self._control(word & 0xFFFF, flags, body)
            if frame is not None:
                frames.append(frame)

    def _control(self, kind: int, flags: int, body: bytes) -> Frame | None:
        fin = bool(flags & _FIN)
        if kind == _SYN_STREAM:
            (number,) = _unpack(">I", body)
            return SynStream(number & _ID, fin, self._headers(body[10:]))
        if kind in (_SYN_REPLY, _HEADERS):
            (number,) = _unpack(">I", body)
            made = SynReply if kind == _SYN_REPLY else Headers
            return made(number & _ID, fin, self._headers(body[4:]))
        if kind == _RST_STREAM:
            number, status = _unpack(">II", body)
            return Reset(number & _ID, status)
        if kind == _PING:
            return Ping(*_unpack(">I", body))
        if kind == _GOAWAY:
            return GoAway(_unpack(">I", body)[0] & _ID)
        if kind in (_SETTINGS, _WINDOW):
            return None
        raise SpdyError(f"unknown control frame {kind}")

    def _headers(self, block: bytes) -> dict[str, str]:
        try:
            plain = self._inflate.decompress(block, HEADER_BYTES_MAX)
        except zlib.error as error:
            raise SpdyError(f"headers cannot be decompressed: {error}") from None
        if self._inflate.unconsumed_tail:
            raise SpdyError(f"more than {HEADER_BYTES_MAX} bytes of headers")
        headers: dict[str, str] = {}
        (count,) = _unpack(">I", plain)
        position = 4
        for _ in range(count):
            name, position = _text(plain, position)
            value, position = _text(plain, position)
            headers[name.lower()] = value
        return headers


def _unpack(form: str, data: bytes) -> tuple[int, ...]:
    try:
        return struct.unpack_from(form, data)
    except struct.error:
        raise SpdyError("a frame is cut short") from None


def _text(data: bytes, position: int) -> tuple[str, int]:
    (length,) = _unpack(">I", data[position : position + 4])
    end = position + 4 + length
    if end > len(data):
        raise SpdyError("a header is cut short")
    return data[position + 4 : end].decode("latin-1"), end


class Writer:
    """One direction's frames into bytes. What it gives must be sent in that order."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(zdict=DICTIONARY)

    def _block(self, headers: Mapping[str, str]) -> bytes:
        parts = [struct.pack(">I", len(headers))]
        for name, value in headers.items():
            for text in (name.lower().encode("latin-1"), value.encode("latin-1")):
                parts += (struct.pack(">I", len(text)), text)
        return self._deflate.compress(b"".join(parts)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)

    def syn_stream(self, stream_id: int, headers: Mapping[str, str], *, fin: bool = False) -> bytes:
        body = struct.pack(">IIBB", stream_id, 0, 0, 0) + self._block(headers)
        return _control_frame(_SYN_STREAM, body, _FIN if fin else 0)

    def syn_reply(self, stream_id: int, headers: Mapping[str, str], *, fin: bool = False) -> bytes:
        body = struct.pack(">I", stream_id) + self._block(headers)
        return _control_frame(_SYN_REPLY, body, _FIN if fin else 0)

    def reset(self, stream_id: int, status: int) -> bytes:
        return _control_frame(_RST_STREAM, struct.pack(">II", stream_id, status))

    def ping(self, ping_id: int) -> bytes:
        return _control_frame(_PING, struct.pack(">I", ping_id))

    def go_away(self, last_stream_id: int) -> bytes:
        return _control_frame(_GOAWAY, struct.pack(">II", last_stream_id, 0))

    def data(self, stream_id: int, data: bytes, *, fin: bool = False) -> bytes:
        assert len(data) <= DATA_BYTES_MAX, "a data frame's length has 24 bits"
        return struct.pack(">II", stream_id, (_FIN if fin else 0) << 24 | len(data)) + data


def _control_frame(kind: int, body: bytes, flags: int = 0) -> bytes:
    return struct.pack(">HHI", 0x8000 | _VERSION, kind, flags << 24 | len(body)) + body
