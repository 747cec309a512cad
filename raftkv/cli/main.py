"""`raftkv`: the parser, the exit codes, and the one place where errors become sentences.

Owns: argv and the exit code. Never shows a stack trace for what a user can cause; a broken
invariant still shows one, for it is a bug that we want to hear of.

Exit codes: 0 done; 1 refused, or the key isn't there; 2 wrong usage; 3 no member could serve in
time; 4 a write's outcome is unknown; 5 a lock may be lost; 130 interrupted.
"""

from __future__ import annotations

import argparse
import errno
import os
import ssl
import sys
from collections.abc import Sequence

import trio

from raftkv.cli import bench, data, hashing, locks, members, serve, snapshots, transactions
from raftkv.cli.output import UsageError
from raftkv.errors import (
    Corrupt,
    KvError,
    MemberRemoved,
    NotApplied,
    StorageFailed,
    UnknownOutcome,
    WrongCluster,
)

__all__ = ["build_parser", "main"]

REFUSED, USAGE, UNAVAILABLE, UNKNOWN, INTERRUPTED = 1, 2, 3, 4, 130

DESCRIPTION = """\
A small replicated key-value store with etcd's semantics: revisions, transactions, watches,
leases. A write is answered when a majority of the members has it on disk.
"""

EPILOG = """\
start one member, and use it from a second terminal:
  raftkv serve --data-dir /tmp/kv
  raftkv put greeting hello
  raftkv get greeting
  raftkv watch greet --prefix

start three members (each in its own terminal, with the same --peers):
  PEERS=m1=127.0.0.1:2380,m2=127.0.0.1:2381,m3=127.0.0.1:2382
  raftkv serve --name m1 --data-dir /tmp/m1 --peers $PEERS --client-listen 127.0.0.1:2379
  raftkv serve --name m2 --data-dir /tmp/m2 --peers $PEERS --client-listen 127.0.0.1:2479
  raftkv serve --name m3 --data-dir /tmp/m3 --peers $PEERS --client-listen 127.0.0.1:2579
  export RAFTKV_ENDPOINTS=127.0.0.1:2379,127.0.0.1:2479,127.0.0.1:2579

exit codes: 0 done, 1 refused or not found, 2 wrong usage, 3 no member could serve in time,
4 the outcome of a write is unknown, 5 a lock may be lost, 130 interrupted
"""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="raftkv",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    serve.add_command(commands)
    data.add_commands(commands)
    transactions.add_commands(commands)
    locks.add_commands(commands)
    members.add_commands(commands)
    hashing.add_commands(commands)
    snapshots.add_commands(commands)
    bench.add_command(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    arguments = build_parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()
        return code
    except UsageError as error:
        return _complain(str(error), USAGE)
    except trio.TooSlowError as error:
        return _complain(str(error) or "no answer in time", UNAVAILABLE)
    except NotApplied as error:
        return _complain(str(error), UNAVAILABLE)
    except UnknownOutcome as error:
        return _complain(str(error), UNKNOWN)
    except (Corrupt, MemberRemoved, WrongCluster, StorageFailed) as error:
        return _complain(_about_data(arguments, error), REFUSED)
    except KvError as error:
        return _complain(str(error), REFUSED)
    except ssl.SSLError as error:
        return _complain(f"TLS: {error}", REFUSED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return REFUSED
    except OSError as error:
        return _complain(_about_system(arguments, error), REFUSED)
    except KeyboardInterrupt:
        return INTERRUPTED


def _complain(message: str, code: int) -> int:
    sys.stderr.write(f"raftkv: {message}\n")
    return code


def _about_data(arguments: argparse.Namespace, error: KvError) -> str:
    directory = getattr(arguments, "data_dir", "")
    return f"data directory {directory}: {error}" if directory else str(error)


def _about_system(arguments: argparse.Namespace, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE and hasattr(arguments, "client_listen"):
        return (
            f"an address is in use already ({arguments.client_listen} for clients, "
            f"{arguments.peer_listen or 'none'} for peers, {arguments.etcd_listen or 'none'} for "
            "etcd's clients): is another member running? Choose others with --client-listen, "
            "--peers and --etcd-listen"
        )
    if error.errno == errno.ENOSPC:
        return f"the disk is full: {error}"
    return str(error)
