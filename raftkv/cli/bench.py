"""`raftkv bench`: hands over to the package `bench`, which is built upon this one.

The store knows nothing of its benchmarks, so they are another program: this process becomes
`python -m bench` with the same words.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from typing import Any

from raftkv.cli.output import UsageError

__all__ = ["add_command"]

NOTHING_IS_A_FLAG = "\0"
"""All words are the other program's, `--help` too."""


def add_command(commands: Any) -> None:
    parser = commands.add_parser(
        "bench",
        help="measure quorum sizes, reads, watches, starts and failovers on this machine",
        prefix_chars=NOTHING_IS_A_FLAG,
        add_help=False,
    )
    parser.add_argument("words", nargs="*")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    if importlib.util.find_spec("bench") is None:
        raise UsageError("the package `bench` is not installed: it comes with k8slite")
    os.execv(sys.executable, [sys.executable, "-m", "bench", *arguments.words])
