"""Read a container's log: CRI's line format, the options of `kubectl logs`, following.

`parse_line` and `LogFilter` are pure; `follow_log` reads the file as it grows. The file is written
by the container's shim alone, and rotated by it: then the path names another file, and reading
goes on there once the old one is read to its end.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

import attrs
import trio

CHUNK_BYTES = 64 * 1024
POLL_SECONDS = 0.2  # the kernel gives trio no event for a growing file


class Line(NamedTuple):
    """`time` as written (RFC 3339, so that text order is time order); `partial`: more follows."""

    time: bytes
    stream: bytes
    partial: bool
    text: bytes


def parse_line(line: bytes) -> Line | None:
    """One line of CRI's format, without its newline; None for anything else."""
    parts = line.split(b" ", 3)
    if len(parts) != 4 or parts[1] not in (b"stdout", b"stderr"):
        return None
    tag = parts[2].split(b":")[0]
    return None if tag not in (b"F", b"P") else Line(parts[0], parts[1], tag == b"P", parts[3])


@attrs.frozen
class LogOptions:
    """As PodLogOptions; `since` is an RFC 3339 time in UTC, or empty."""

    follow: bool = False
    tail_lines: int | None = None
    since: str = ""
    timestamps: bool = False
    limit_bytes: int | None = None
    stream: str = "All"


class LogFilter:
    """Turns the file's bytes into what the reader asked for."""

    def __init__(self, options: LogOptions) -> None:
        self._options = options
        self._rest = b""
        self._left = options.limit_bytes
        self._since = options.since.encode().removesuffix(b"Z")
        self._stream = options.stream.lower().encode()
        self._inside = False
        self.full = options.limit_bytes == 0

    def feed(self, data: bytes) -> bytes:
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        out = b"".join(self._show(line) for line in lines)
        if self._left is not None:
            out = out[: self._left]
            self._left -= len(out)
            self.full = self._left == 0
        return out

    def _show(self, raw: bytes) -> bytes:
        line = parse_line(raw)
        if line is None or line.time.removesuffix(b"Z") < self._since:
            return b""
        if self._stream not in (b"all", line.stream):
            return b""
        # The parts of one long line get one time in front and one end.
        start = line.time + b" " if self._options.timestamps and not self._inside else b""
        self._inside = line.partial
        return start + line.text + (b"" if line.partial else b"\n")


def tail_offset(file: BinaryIO, lines: int) -> int:
    """Where the last `lines` lines begin."""
    end = file.seek(0, os.SEEK_END)
    if lines <= 0:
        return end
    position, missing = end, lines + 1
    while position > 0:
        size = min(CHUNK_BYTES, position)
        position -= size
        file.seek(position)
        block = file.read(size)
        if position + size == end and not block.endswith(b"\n"):
            missing -= 1  # a line that is being written counts
        count = block.count(b"\n")
        if count >= missing:
            at = len(block)
            for _ in range(missing):
                at = block.rfind(b"\n", 0, at)
            return position + at + 1
        missing -= count
    return 0


async def follow_log(
    path: Path, options: LogOptions, is_running: Callable[[], Awaitable[bool]]
) -> AsyncGenerator[bytes]:
    """The log in pieces; with `follow`, until the container has ended and all is read.

    Holds no nursery or scope: it may be left at any point by closing it. Raises FileNotFoundError.
    """
    shown = LogFilter(options)
    file = path.open("rb")
    try:
        if options.tail_lines is not None:
            file.seek(tail_offset(file, options.tail_lines))
        while not shown.full:
            # Asked before reading: what ends in between is read in the next round.
            running = options.follow and await is_running()
            data = file.read(CHUNK_BYTES)
            if data:
                out = shown.feed(data)
                if out:
                    yield out
                continue
            if _rotated(path, file):
                rest = file.read()
                file.close()
                file = path.open("rb")
                yield shown.feed(rest)
                continue
            if not running:
                return
            await trio.sleep(POLL_SECONDS)
    finally:
        file.close()


def _rotated(path: Path, file: BinaryIO) -> bool:
    try:
        return path.stat().st_ino != os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return False
