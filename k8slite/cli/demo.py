"""`k8slite demo`: see it all once, from `up` to `down`."""

from __future__ import annotations

import argparse
from typing import Any

__all__ = ["add_commands"]

DESCRIPTION = """\
Start a cluster of its own, use it with the real kubectl, kill its leaders under load, check that no
acknowledged write is lost, and leave nothing behind. Exit code 0 only if all of it held.
"""


def add_commands(commands: Any) -> None:
    parser = commands.add_parser(
        "demo",
        help="a cluster from birth to death, its leaders killed under load",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--control-planes", default="3", metavar="N", help="default: %(default)s")
    add("--nodes", default="2", metavar="N", help="default: %(default)s")
    add("--runtime", default="auto", help="as for `up` (default: %(default)s)")
    add("--proxy", default="auto", help="as for `up` (default: %(default)s)")
    add(
        "--default-timings",
        action="store_true",
        help="Kubernetes' own: leases of 15 s instead of the 2 s of `up --fast`",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from k8slite.demo.story import tell

    up = ["--control-planes", arguments.control_planes, "--nodes", arguments.nodes]
    up += ["--runtime", arguments.runtime, "--proxy", arguments.proxy]
    return tell(up if arguments.default_timings else [*up, "--fast"])
