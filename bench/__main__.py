"""`python -m bench`, which is `raftkv bench`: the benchmarks of the store.

Without the name of a benchmark it is the one of quorum sizes.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import Final

__all__ = ["main"]

BENCHES: Final = {
    "quorum": "writes per second and latency by quorum size; the default",
    "gets": "linearizable reads per second",
    "watch": "events per second delivered to many watchers",
    "start": "time to start on the keys that are there, and memory",
    "catchup": "what a follower that was away costs the others while it catches up",
    "promises": "all of these, each with its bar, beside etcd",
    "failover": "time without a leader after a kill, as a distribution",
}
"""Modules of this package: each adds its own flags and runs."""


def main(words: list[str]) -> int:
    """The command line; the exit code."""
    parser = argparse.ArgumentParser(
        prog="raftkv bench",
        description="Measure the store on this machine; nothing else should run beside it.",
    )
    benches = parser.add_subparsers(metavar="BENCH", required=True)
    for name, purpose in BENCHES.items():
        module = importlib.import_module(f"bench.{name}")
        each = benches.add_parser(name, help=purpose, description=module.__doc__)
        module.add_arguments(each)
        each.set_defaults(run=module.run)
    if not words or (words[0].startswith("-") and words[0] not in ("-h", "--help")):
        words = ["quorum", *words]
    arguments = parser.parse_args(words)
    code: int = arguments.run(arguments)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
