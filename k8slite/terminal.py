"""What a terminal adds to text: colours, where it may be coloured."""

from __future__ import annotations

import os
import sys
from typing import Final, TextIO

__all__ = ["colour"]

CODES: Final = {"red": "31", "green": "32", "yellow": "33", "dim": "2", "bold": "1"}


def colour(text: str, name: str, stream: TextIO = sys.stdout) -> str:
    """The text in a colour where the stream is a terminal that may be coloured."""
    if not stream.isatty() or "NO_COLOR" in os.environ:
        return text
    return f"\x1b[{CODES[name]}m{text}\x1b[0m"
