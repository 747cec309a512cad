"""`k8slite bench quorum | gets | watch | startup | api | ...`: figures that this house promises."""

from __future__ import annotations

import argparse
import importlib
from typing import Any, Final

__all__ = ["add_commands"]

BENCHES: Final = {
    "quorum": "writes per second and latency by the store's quorum size",
    "gets": "linearizable reads per second of the store",
    "watch": "events per second that the store delivers to many watchers",
    "start": "time in which the store starts on the keys that are there, and its memory",
    "catchup": "what a follower of the store that was away costs the others",
    "failover": "time without a leader of the store after a kill",
    "startup": "time until a cluster is ready, and its memory",
    "api": "requests, lists and watches of one apiserver",
    "scheduler": "pods bound per second, and the time of a decision",
    "proxy": "time until services are rules on a node",
}
"""Modules of the package `bench`: each adds its own flags and runs."""


def add_commands(commands: Any, *, called: bool) -> None:
    """`called`: the flags of the benchmarks are wanted too, whose modules take long to import."""
    parser = commands.add_parser(
        "bench",
        help="measure quorum sizes, start-up, the API, the scheduler, the proxy",
        description="Measure on this machine; nothing else should run beside it.",
    )
    if not called:
        return
    benches = parser.add_subparsers(metavar="BENCH", required=True)
    for name, words in BENCHES.items():
        module = importlib.import_module(f"bench.{name}")
        each = benches.add_parser(name, help=words, description=f"{words[0].upper()}{words[1:]}.")
        module.add_arguments(each)
        each.set_defaults(run=_runner(module))


def _runner(module: Any) -> Any:
    def run(arguments: argparse.Namespace) -> int:
        code: int = module.run(arguments)
        return code

    return run
