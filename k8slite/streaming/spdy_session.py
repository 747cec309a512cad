"""The server's end of a SPDY connection: streams that clients open, each with bytes both ways.

Owns: the connection's frames in both directions and the table of streams. One task, `run`, reads.
SPDY as Kubernetes uses it has no flow control: a stream that is not read holds up the connection
once PIECES_MAX (`pace`) pieces wait in it. While held up we ping, so that a lost peer is seen.
"""

from __future__ import annotations

import trio

from k8slite.streaming import spdy
from k8slite.streaming.bytes import ByteStream, HangUp
from k8slite.streaming.pace import Queue

__all__ = ["SpdySession", "SpdyStream"]

STREAMS_MAX = 1000
INCOMING_MAX = 64
SEND_BYTES = 32 * 1024


class SpdyStream:
    """One stream. Made by the session when the client opens it."""

    def __init__(self, session: SpdySession, stream_id: int, headers: dict[str, str]) -> None:
        self.stream_id = stream_id
        self.headers = headers
        self.queue = Queue()
        self._session = session
        self.is_sent = False  # we have ended our direction

    async def receive(self) -> bytes:
        """Some bytes; b"" when the client has ended its direction, or all."""
        return await self.queue.get()

    async def send(self, data: bytes) -> None:
        """Raises HangUp when the stream or the connection is gone."""
        for start in range(0, len(data), SEND_BYTES):
            if self.is_sent:
                raise HangUp("the stream is closed")
            piece = data[start : start + SEND_BYTES]
            self._session.touch()
            await self._session.write(self._session.writer.data(self.stream_id, piece))

    async def send_eof(self) -> None:
        """End our direction. Raises HangUp."""
        if not self.is_sent:
            self.is_sent = True
            data = self._session.writer.data(self.stream_id, b"", fin=True)
            self._session.forget(self)
            await self._session.write(data)

    async def reset(self, status: int = spdy.CANCEL) -> None:
        """End both directions at once. Raises HangUp."""
        if self.stream_id in self._session.streams:
            self.end()
            await self._session.write(self._session.writer.reset(self.stream_id, status))

    def end(self) -> None:
        """Both directions are over."""
        self.is_sent = True
        self.queue.close()
        self._session.forget(self)


class SpdySession:
    """Use: start `run` in a nursery; take streams with `accept`; `close` at last."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._parser = spdy.Parser()
        self.writer = spdy.Writer()
        self.streams: dict[int, SpdyStream] = {}
        self._incoming, self._accepted = trio.open_memory_channel[SpdyStream](INCOMING_MAX)
        self._last_id = 0
        self._pings = 0

    async def write(self, frame: bytes) -> None:
        """Frames made by `writer`, without a pause between making and writing. Raises HangUp."""
        await self._stream.send(frame)

    def touch(self) -> None:
        """Data has gone through."""
        self._stream.touch()

    async def run(self) -> None:
        """Read until the client is gone or talks nonsense; then all streams have ended."""
        try:
            while data := await self._stream.receive():
                for frame in self._parser.feed(data):
                    await self._take(frame)
        except (spdy.SpdyError, HangUp):
            pass
        finally:
            for stream in list(self.streams.values()):
                stream.end()
            self._incoming.close()

    async def accept(self) -> SpdyStream | None:
        """The next stream that the client opens; None when it opens no more."""
        try:
            return await self._accepted.receive()
        except trio.EndOfChannel:
            return None

    async def ping(self) -> None:
        """Raises HangUp."""
        self._pings += 2  # the server's have even numbers
        await self.write(self.writer.ping(self._pings))

    async def close(self) -> None:
        """Say that no stream will be answered any more. Never raises for the client."""
        try:
            await self.write(self.writer.go_away(self._last_id))
        except HangUp:
            return

    async def _take(self, frame: spdy.Frame) -> None:
        if isinstance(frame, spdy.Data):
            await self._data(frame)
        elif isinstance(frame, spdy.SynStream):
            await self._open(frame)
        elif isinstance(frame, spdy.Reset):
            stream = self.streams.get(frame.stream_id)
            if stream is not None:
                stream.end()
        elif isinstance(frame, spdy.Ping) and frame.ping_id % 2 == 1:
            await self.write(self.writer.ping(frame.ping_id))

    async def _data(self, frame: spdy.Data) -> None:
        stream = self.streams.get(frame.stream_id)
        if stream is None:
            return  # of a stream that has been reset: bytes were on their way
        if frame.data:
            self._stream.touch()
            await stream.queue.put(frame.data, self.ping)
        if frame.fin:
            stream.queue.close()
            self.forget(stream)

    async def _open(self, frame: spdy.SynStream) -> None:
        if frame.stream_id % 2 == 0 or frame.stream_id <= self._last_id:
            raise spdy.SpdyError(f"stream {frame.stream_id} after {self._last_id}")
        self._last_id = frame.stream_id
        stream = SpdyStream(self, frame.stream_id, frame.headers)
        if frame.fin:
            stream.queue.close()
        try:
            if len(self.streams) >= STREAMS_MAX:
                raise trio.WouldBlock
            self._incoming.send_nowait(stream)
        except trio.WouldBlock:  # the bound's rule: refused
            await self.write(self.writer.reset(frame.stream_id, spdy.REFUSED))
            return
        self.streams[frame.stream_id] = stream
        await self.write(self.writer.syn_reply(frame.stream_id, {}))

    def forget(self, stream: SpdyStream) -> None:
        """Drop a stream from the table when both directions are over."""
        if stream.is_sent and stream.queue.is_closed:
            self.streams.pop(stream.stream_id, None)
