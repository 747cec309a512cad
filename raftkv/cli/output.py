"""Results for people and for programs: tables, JSON, and bytes that may not be text."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["UsageError", "json_bytes", "text", "write", "write_json", "write_table"]


class UsageError(Exception):
    """The command line makes no sense; the message says what to do."""


def text(data: bytes) -> str:
    """Bytes for a terminal: UTF-8, with escapes for what is not."""
    return data.decode("utf-8", "backslashreplace")


def json_bytes(data: bytes) -> str | dict[str, str]:
    """A string where the bytes are UTF-8, else `{"base64": ...}`."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def write(line: str) -> None:
    sys.stdout.write(line + "\n")


def write_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def write_table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Columns as wide as their contents, two spaces apart."""
    lines = [list(headings), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        write("  ".join(cells).rstrip())
