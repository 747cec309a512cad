"""A container's log file in CRI's format, as its shim writes it. Standard library alone."""

from __future__ import annotations

import errno
import os
import time

LINE_MAX = 16 * 1024  # CRI's: longer lines are cut into partial ones


class Log:
    """A CRI log file: `TIME STREAM F|P LINE`, rotated by size, `PATH.1` the newest old one."""

    def __init__(self, path: str, size_max: int, files_max: int) -> None:
        self.path, self.size_max, self.files_max = path, size_max, files_max
        self.rest: dict[str, bytes] = {"stdout": b"", "stderr": b""}
        self.open()

    def open(self) -> None:
        self.fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self.size = os.fstat(self.fd).st_size

    def feed(self, stream: str, data: bytes) -> None:
        lines = (self.rest[stream] + data).split(b"\n")
        rest = lines.pop()
        now = time.time_ns()
        out = [self.format(now, stream, part, tag) for line in lines for part, tag in cut(line)]
        while len(rest) >= LINE_MAX:
            out.append(self.format(now, stream, rest[:LINE_MAX], b"P"))
            rest = rest[LINE_MAX:]
        self.rest[stream] = rest
        if out:
            self.write(b"".join(out))

    def end(self, stream: str) -> None:
        if self.rest[stream]:
            self.write(self.format(time.time_ns(), stream, self.rest[stream], b"F"))
            self.rest[stream] = b""

    def format(self, now: int, stream: str, line: bytes, tag: bytes) -> bytes:
        seconds, nanos = divmod(now, 1_000_000_000)
        day = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
        return f"{day}.{nanos:09d}Z {stream} ".encode() + tag + b" " + line + b"\n"

    def write(self, data: bytes) -> None:
        if self.size + len(data) > self.size_max and self.size:
            self.rotate()
        try:
            os.write(self.fd, data)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
                raise
            return  # a full disk costs log lines, not the container
        self.size += len(data)

    def rotate(self) -> None:
        os.close(self.fd)
        for number in range(self.files_max - 1, 0, -1):
            old = self.path if number == 1 else f"{self.path}.{number - 1}"
            try:
                os.rename(old, f"{self.path}.{number}")
            except FileNotFoundError:
                continue
        self.open()


def cut(line: bytes) -> list[tuple[bytes, bytes]]:
    """A line as parts of at most LINE_MAX bytes: partial ones, then a full one."""
    parts = [line[i : i + LINE_MAX] for i in range(0, len(line), LINE_MAX)] or [b""]
    return [(part, b"P") for part in parts[:-1]] + [(parts[-1], b"F")]
