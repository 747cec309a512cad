"""What the commands of all benchmarks share: lists of numbers, tables, and how they end.

Exit codes: 0 measured; 1 it could not be, in one line on stderr; 2 the command line is wrong; 130
interrupted. Whatever was started is gone in each case.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import trio

from bench import etcd
from bench.processes import BenchFailed
from raftkv.streams import only_error

__all__ = ["TOLD", "add_output", "conclude", "machine", "numbers", "table"]

Results = dict[str, Any]
TOLD = (BenchFailed, OSError, trio.TooSlowError)
"""What can go wrong without being a mistake of ours: one line, no stack."""


def add_output(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--dir", default=None, metavar="DIR", help="where the members' data goes meanwhile")
    add("-o", "--output", choices=("table", "json"), default="table", help="default: table")


def numbers(text: str, least: int = 1) -> list[int]:
    """`1,3,5` as a list. Raises ValueError, for a user to read."""
    parts = text.split(",")
    found = [int(each) for each in parts if each.strip().isdigit()]
    if len(found) != len(parts) or min(found) < least:
        raise ValueError(f"{text!r} is not a list of numbers like 1,3,5")
    return found


def conclude(
    name: str,
    measure: Callable[[], Awaitable[Results]],
    show: Callable[[Results], str],
    output: str,
    verdict: Callable[[Results], int] = lambda results: 0,
) -> int:
    """Measure, print the results as a table or as JSON, and tell how it went: the exit code, which
    is the `verdict`'s where it could be measured."""
    try:
        with _terminated_like_interrupted():
            results = trio.run(measure)
    except (*TOLD, KeyboardInterrupt, BaseExceptionGroup) as raised:
        error = only_error(raised) if isinstance(raised, BaseExceptionGroup) else raised
        if isinstance(error, KeyboardInterrupt):
            return 130
        if not isinstance(error, TOLD):
            raise
        words = str(error) or "it took too long: is the machine busy?"
        sys.stderr.write(f"bench {name}: {words}\n")
        return 1
    results = {"bench": name, "machine": machine(), **results}
    sys.stdout.write(json.dumps(results) + "\n" if output == "json" else show(results))
    return verdict(results)


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM cleans up as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def machine() -> dict[str, Any]:
    """What a figure depends on, as far as a program can see it."""
    found: dict[str, Any] = {
        "cpus": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }
    try:
        found["etcd"] = etcd.version()
    except (BenchFailed, OSError):
        found["etcd"] = None
    return found


def table(columns: Mapping[str, str], results: Sequence[Mapping[str, Any]]) -> str:
    """Lines of these results; `columns`: headings and the fields below them."""
    lines = [list(columns)]
    lines += [[_cell(result.get(field)) for field in columns.values()] for result in results]
    widths = [max(len(line[column]) for line in lines) for column in range(len(columns))]
    shown = ["  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) for line in lines]
    return "\n".join(shown) + "\n"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if isinstance(value, float) and value >= 1000 else str(value)
