"""What commands print: tables for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from k8slite.terminal import colour

__all__ = ["CommandFailed", "UsageError", "age", "bytes_of", "print_json", "print_table", "several"]

GAP: Final = 3


class CommandFailed(Exception):
    """The command could not do it; the message is for the user. Exit code 1."""


class UsageError(Exception):
    """The command line makes no sense. Exit code 2."""


def print_table(
    headings: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    colours: Mapping[int, Mapping[str, str]] | None = None,
) -> None:
    """Columns as wide as they must be, as kubectl prints them; `colours`: of a column's words."""
    lines = [list(headings), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(headings))]
    for line in lines:
        cells = [cell.ljust(width + GAP) for cell, width in zip(line, widths, strict=True)]
        cells[-1] = line[-1]
        for column, of_words in (colours or {}).items():
            if line[column] in of_words:
                cells[column] = colour(cells[column], of_words[line[column]])
        print("".join(cells).rstrip())


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, allow_nan=False))


def age(seconds: float) -> str:
    """As kubectl's: 45s, 3m20s, 2h5m, 3d."""
    whole = int(seconds)
    if whole < 120:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    if minutes < 10:
        return f"{minutes}m{rest}s" if rest else f"{minutes}m"
    hours, minutes_left = divmod(minutes, 60)
    if hours < 3:
        return f"{minutes}m"
    if hours < 48:
        return f"{hours}h{minutes_left}m" if hours < 8 and minutes_left else f"{hours}h"
    return f"{hours // 24}d"


def several(count: int, noun: str) -> str:
    """1 node, 2 nodes."""
    return f"{count} {noun}" + ("" if count == 1 else "s")


def bytes_of(count: float) -> str:
    """37 MB, as sizes of processes are read best."""
    return f"{count / 1e6:.0f} MB" if count else "-"
