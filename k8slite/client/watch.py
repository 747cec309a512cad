"""Responses that do not end: watches and followed logs.

Owns the cutting of a watch stream into events. The end of the stream is normal and ends the
iteration; the one who watches then goes on from the last resourceVersion. Never reconnects.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import orjson
import trio

from k8slite.api.meta import Obj
from k8slite.api.status import from_status
from k8slite.client.errors import Unreachable
from k8slite.client.http import Connection, ConnectionLost, ResponseHead

__all__ = ["LineBuffer", "Stream", "Watch"]

LINE_BYTES_MAX = 16 * 1024 * 1024
"""More than any object may have; a longer line is no watch."""


class LineBuffer:
    """Cuts chunks into lines (pure); bytes after the last newline wait for the next chunk."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        self._rest_bytes = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are complete now, without newlines, empty ones left out.

        Raises ValueError for a line longer than LINE_BYTES_MAX.
        """
        head, newline, tail = data.rpartition(b"\n")
        if not newline:
            self._keep(data)
            return []
        lines = b"".join([*self._rest, head]).split(b"\n")
        self._rest.clear()
        self._rest_bytes = 0
        if tail:
            self._keep(tail)
        return [line for line in lines if line]

    def _keep(self, data: bytes) -> None:
        self._rest.append(data)
        self._rest_bytes += len(data)
        if self._rest_bytes > LINE_BYTES_MAX:
            raise ValueError(f"a line of more than {LINE_BYTES_MAX} bytes")


class Stream:
    """The body of a streaming response, as it arrives.

    The stream counts as dead when nothing arrived for `silence_seconds_max` (None: never).
    """

    def __init__(
        self, head: ResponseHead, connection: Connection, silence_seconds_max: float | None
    ) -> None:
        self.status = head.status
        self.headers = head.headers
        self._connection = connection
        self._silence = float("inf") if silence_seconds_max is None else silence_seconds_max
        self.failed = False

    async def receive_some(self) -> bytes:
        """The next bytes, b"" at the end. Raises Unreachable when the connection breaks."""
        with trio.move_on_after(self._silence):
            try:
                return await self._connection.receive()
            except ConnectionLost as error:
                raise self._failure(str(error)) from error
        raise self._failure(f"silent for {self._silence:g} s")

    def _failure(self, reason: str) -> Unreachable:
        self.failed = True
        return Unreachable(f"stream from {self._connection.address}: {reason}")


class Watch:
    """The events of one watch: `async for type, obj in watch`.

    Types are ADDED, MODIFIED, DELETED and BOOKMARK. An ERROR event is raised as the ApiError it
    carries (410: list again). Raises Unreachable when the connection breaks.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._lines = LineBuffer()
        self._events: deque[tuple[str, Obj]] = deque()

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> tuple[str, Obj]:
        while not self._events:
            data = await self._stream.receive_some()
            if not data:
                raise StopAsyncIteration
            self._events.extend(map(_event, self._lines.feed(data)))
        event_type, obj = self._events.popleft()
        if event_type == "ERROR":
            raise from_status(obj)
        return event_type, obj


def _event(line: bytes) -> tuple[str, Obj]:
    event: dict[str, Any] = orjson.loads(line)
    return event["type"], event["object"]
