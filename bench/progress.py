"""A progress bar with the time that is left; silent where nobody looks at a terminal."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Iterator
from typing import TextIO

__all__ = ["Progress", "bar"]

WIDTH = 24
REDRAW_SECONDS = 0.25


class Progress:
    """Steps of a known length. Between them the estimate learns what starting and stopping cost."""

    def __init__(self, planned_seconds: float, stream: TextIO | None = None) -> None:
        """`planned_seconds`: all steps together; `stream`: standard error, if not given."""
        self._stream = sys.stderr if stream is None else stream
        self._shown = self._stream.isatty()
        self._planned = max(planned_seconds, 0.001)
        self._done = 0.0
        self._began = time.monotonic()

    @contextlib.contextmanager
    def step(self, what: str, seconds: float) -> Iterator[None]:
        """Show what is being done; it counts as so many of the planned seconds."""
        self._draw(what)
        try:
            yield
        finally:
            self._done += seconds

    def _draw(self, what: str) -> None:
        if self._shown:
            spent = time.monotonic() - self._began
            columns = shutil.get_terminal_size().columns
            line = bar(self._done / self._planned, spent, self._planned) + "  " + what
            self._stream.write(f"\r\x1b[K{line[: columns - 1]}")
            self._stream.flush()

    def close(self) -> None:
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()


def bar(share: float, spent: float, planned: float) -> str:
    """`[######------]  50 %, 1:05 left`, where the plan holds until there is experience."""
    share = min(max(share, 0.0), 1.0)
    left = spent / share * (1 - share) if share > 0.05 else max(planned * (1 - share), 0.0)
    full = round(share * WIDTH)
    drawn = "#" * full + "-" * (WIDTH - full)
    minutes, seconds = divmod(round(left), 60)
    return f"[{drawn}] {share:4.0%}, {minutes}:{seconds:02} left"
