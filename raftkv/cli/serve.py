"""`raftkv serve`: its flags and their explanation; `raftkv.cli.member` does the work."""

from __future__ import annotations

import argparse
from typing import Any

from raftkv.cli.flags import add_tls

__all__ = ["add_command"]

DESCRIPTION = """\
Run one member of the store until SIGTERM or SIGINT. Without --peers it's the only one.

Every member of a cluster gets the same --peers: name=host:port of each, where the others reach it.
A member whose name ends with a number has that number as its id (m2: 2), any other name has an id
made from it. The data directory belongs to one member for ever; a member that lost it must join
again under a new name.

A member that was added to a running cluster (`raftkv member add`) is started with --join and the
client addresses of some members; the cluster tells it the rest.
"""


def add_command(commands: Any) -> None:
    parser = commands.add_parser(
        "serve",
        help="run one member",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    add = parser.add_argument
    add("--data-dir", required=True, metavar="DIR", help="where the log and snapshots live")
    add("--name", default="", metavar="NAME", help="this member's name (default: member-1)")
    add("--peers", default="", metavar="NAME=HOST:PORT,...", help="all members, this one included")
    add(
        "--join",
        default="",
        metavar="HOST:PORT,...",
        help="join the cluster whose members serve clients there, after `raftkv member add`",
    )
    add(
        "--client-listen",
        default="127.0.0.1:2379",
        metavar="HOST:PORT",
        help="serve clients here; port 0: a free one (default: %(default)s)",
    )
    add(
        "--peer-listen",
        default="",
        metavar="HOST:PORT",
        help="serve peers here (default: this member's address in the list of members)",
    )
    add("--peer-advertise", default="", metavar="HOST:PORT", help="where peers reach this member")
    add("--advertise", default="", metavar="HOST:PORT", help="where clients reach this member")
    add(
        "--etcd-listen",
        default="",
        metavar="HOST:PORT",
        help="serve etcd's v3 API over gRPC here as well: for etcdctl, kube-apiserver and the like",
    )
    add("--etcd-advertise", default="", metavar="HOST:PORT", help="where etcd's clients reach that")
    add("--cluster", default="raftkv", metavar="NAME", help="members of other clusters are refused")
    add_tls(parser, "--tls", "for clients")
    add_tls(parser, "--peer-tls", "between members (default: as for clients)")
    add("--tick", type=float, default=0.1, metavar="SECONDS", help="length of a tick (default 0.1)")
    add(
        "--election-ticks",
        type=int,
        default=10,
        metavar="N",
        help="without a leader's word for so long, stand for election (default 10)",
    )
    add("--snapshot-entries", type=int, default=10_000, metavar="N", help="between two snapshots")
    add("--quota", type=int, default=2 << 30, metavar="BYTES", help="refuse growth beyond it")
    add(
        "--unsafe-no-fsync",
        action="store_true",
        help="acknowledge writes that no disk has: a power failure loses them (for measurements)",
    )
    add("--campaign", action="store_true", help="stand for election at once: a quick first start")
    add("--verbose", action="store_true", help="log more")


def run(arguments: argparse.Namespace) -> int:
    from raftkv.cli import member  # here, so that `raftkv get` does not wait for the server's code

    return member.run(arguments)
