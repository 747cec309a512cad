"""A progress bar with the time that is left; silent where nobody looks at a terminal."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import AsyncIterator, Iterator
from typing import TextIO

import trio

from raftkv.streams import only_error

__all__ = ["Progress", "bar", "open_progress"]

WIDTH = 24
REDRAW_SECONDS = 0.25


class Progress:
    """Steps of a planned length; the estimate learns what starting and stopping cost."""

    def __init__(self, planned_seconds: float, stream: TextIO) -> None:
        self._stream = stream
        self._planned = max(planned_seconds, 0.001)
        self._done = 0.0
        self._began = time.monotonic()
        self._step = ("", 0.0, self._began)

    @contextlib.contextmanager
    def step(self, what: str, seconds: float) -> Iterator[None]:
        """What is being done; it counts as so many of the planned seconds."""
        self._step = (what, seconds, time.monotonic())
        try:
            yield
        finally:
            self._done += seconds
            self._step = ("", 0.0, time.monotonic())

    def draw(self) -> None:
        what, seconds, since = self._step
        now = time.monotonic()
        share = (self._done + min(now - since, seconds)) / self._planned
        line = f"{bar(share, now - self._began, self._planned)}  {what}"
        self._stream.write(f"\r\x1b[K{line[: shutil.get_terminal_size().columns - 1]}")
        self._stream.flush()

    async def run(self) -> None:
        """Draw now and then, until cancelled."""
        try:
            while True:
                self.draw()
                await trio.sleep(REDRAW_SECONDS)
        finally:
            self._stream.write("\r\x1b[K")
            self._stream.flush()


@contextlib.asynccontextmanager
async def open_progress(
    planned_seconds: float, stream: TextIO | None = None
) -> AsyncIterator[Progress]:
    """`planned_seconds`: all steps together; `stream`: standard error, if not given."""
    stream = sys.stderr if stream is None else stream
    progress = Progress(planned_seconds, stream)
    try:
        async with trio.open_nursery() as nursery:
            if stream.isatty():
                nursery.start_soon(progress.run)
            yield progress
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise only_error(group) from None


def bar(share: float, spent: float, planned: float) -> str:
    """`[######------]  50 %, 1:05 left`, where the plan holds until there is experience."""
    share = min(max(share, 0.0), 1.0)
    left = spent / share * (1 - share) if share > 0.05 else max(planned * (1 - share), 0.0)
    full = round(share * WIDTH)
    drawn = "#" * full + "-" * (WIDTH - full)
    minutes, seconds = divmod(round(left), 60)
    return f"[{drawn}] {share:4.0%}, {minutes}:{seconds:02} left"
