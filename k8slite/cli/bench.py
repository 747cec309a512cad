"""`k8slite bench quorum | startup`: the figures that this house promises, on your machine."""

from __future__ import annotations

import argparse
from typing import Any

__all__ = ["add_commands"]


def add_commands(commands: Any) -> None:
    from bench import quorum, startup

    parser = commands.add_parser(
        "bench",
        help="measure quorum sizes and start-up",
        description="Measure on this machine; nothing else should run beside it.",
    )
    benches = parser.add_subparsers(metavar="BENCH", required=True)
    for name, module, words in (
        ("quorum", quorum, "writes per second and latency by the store's quorum size"),
        ("startup", startup, "time until a cluster is ready, and its memory"),
    ):
        each = benches.add_parser(name, help=words, description=f"{words[0].upper()}{words[1:]}.")
        module.add_arguments(each)
        each.set_defaults(run=_runner(module))


def _runner(module: Any) -> Any:
    def run(arguments: argparse.Namespace) -> int:
        code: int = module.run(arguments)
        return code

    return run
