"""`raftkv snapshot` and `raftkv wal`: backups, what is made of them, and the check of a log.

Owns: the files that these commands write; none is ever left behind half made. Only `save` talks to
a running store.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import zlib
from pathlib import Path
from typing import Any

import trio

from raftkv.cli.flags import member_id, peers_of
from raftkv.cli.output import UsageError, write, write_json
from raftkv.cli.requests import add_request
from raftkv.client import KvClient
from raftkv.errors import Corrupt
from raftkv.os_host import OsDisk, OsHost

__all__ = ["add_commands"]

BUMP_REVISION = 1_000_000_000

RESTORE = """\
Make a data directory from a backup, for a new cluster with the backup's keys. The old members must
not be started again; should one still run, it is refused. What `etcdctl snapshot save` has written
is a backup as well, whether it was etcd or `raftkv serve --etcd-listen` that was asked.

A cluster of one:
  raftkv snapshot restore backup --data-dir D --name m1
  raftkv serve --name m1 --data-dir D
A cluster of several: restore each member from the same file with the same --peers and the same
--bump-revision, then start them all with these --peers.

Revisions jump ahead by --bump-revision, and everything before is compacted: no revision is used
twice, and whoever watched the old cluster is told to begin anew instead of waiting in silence.
"""


def add_commands(commands: Any) -> None:
    snapshot = commands.add_parser("snapshot", help="backups").add_subparsers(
        title="commands", metavar="COMMAND", required=True
    )
    save = add_request(snapshot, "save", "write a backup of the running store to a file", _save)
    save.add_argument("file", metavar="FILE")
    status = snapshot.add_parser("status", help="check a backup and show what it holds")
    status.set_defaults(run=_status)
    status.add_argument("file", metavar="FILE")
    status.add_argument("-o", "--output", choices=("table", "json"), default="table")
    restore = snapshot.add_parser(
        "restore",
        help="make a data directory from a backup",
        description=RESTORE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    restore.set_defaults(run=_restore)
    add = restore.add_argument
    add("file", metavar="FILE")
    add("--data-dir", required=True, metavar="DIR", help="must not exist, or be empty")
    add("--name", default="member-1", metavar="NAME", help="the member's name (default member-1)")
    add("--peers", default="", metavar="NAME=HOST:PORT,...", help="all members of the new cluster")
    add("--cluster", default="raftkv", metavar="NAME", help="as for `raftkv serve`")
    add(
        "--bump-revision",
        type=int,
        default=BUMP_REVISION,
        metavar="N",
        help="how far revisions jump ahead; 0 keeps them, and the history (default: %(default)s)",
    )
    export = snapshot.add_parser(
        "export",
        help="write a backup as a snapshot of etcd's, which `etcdctl snapshot restore` takes",
    )
    export.set_defaults(run=_export)
    export.add_argument("file", metavar="FILE", help="the backup; -: standard input")
    export.add_argument("target", metavar="TARGET", help="the file to write; -: standard output")
    wal = commands.add_parser("wal", help="the log on a member's disk").add_subparsers(
        title="commands", metavar="COMMAND", required=True
    )
    verify = wal.add_parser("verify", help="check every record of a stopped member's log")
    verify.set_defaults(run=_verify)
    verify.add_argument("--data-dir", required=True, metavar="DIR")


# --- save ----------------------------------------------------------------------------------------


async def _save(kv: KvClient, arguments: argparse.Namespace) -> int:
    from raftkv.storage.backup import describe  # here, so that other commands start quickly

    path = Path(arguments.file)
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            await kv.save_snapshot(file.write)
            file.flush()
            os.fsync(file.fileno())
        found = describe(partial.read_bytes())
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)
    if arguments.output == "json":
        write_json({"file": str(path), "revision": found.revision, "keys": found.keys})
    else:
        write(f"{path}: revision {found.revision}, {found.keys} keys")
    return 0


# --- status --------------------------------------------------------------------------------------


def _status(arguments: argparse.Namespace) -> int:
    from raftkv.storage.backup import describe

    found = describe(_read(arguments.file))
    fields: dict[str, Any] = {
        "revision": found.revision,
        "compact_revision": found.compact_revision,
        "keys": found.keys,
        "bytes": found.bytes,
        "leases": found.leases,
        "hash": f"{found.hash:08x}",
        "members": [info.name or str(info.id) for info in found.members],
    }
    if arguments.output == "json":
        write_json(fields)
    else:
        fields["members"] = ", ".join(fields["members"]) or "none"
        for name, value in fields.items():
            write(f"{name.replace('_', ' '):17}{value}")
    return 0


def _read(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise UsageError(f"{file} can't be read: {error.strerror}") from error


# --- export --------------------------------------------------------------------------------------


def _export(arguments: argparse.Namespace) -> int:
    from raftkv.storage.backup import machine_of
    from raftkv.storage.etcd_backup import to_etcd

    data = sys.stdin.buffer.read() if arguments.file == "-" else _read(arguments.file)
    machine = machine_of(data)
    exported = to_etcd(machine)
    if arguments.target == "-":
        sys.stdout.buffer.write(exported)
        return 0
    path = Path(arguments.target)
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            file.write(exported)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)
    write(f"{path}: revision {machine.revision}, {len(machine.store.index.live)} keys")
    return 0


# --- restore -------------------------------------------------------------------------------------


def _restore(arguments: argparse.Namespace) -> int:
    peers = peers_of(arguments.peers)
    if peers and arguments.name not in peers:
        raise UsageError(f"--name {arguments.name} is not in --peers ({', '.join(peers)})")
    if arguments.bump_revision < 0:
        raise UsageError("--bump-revision can't be below 0")
    target = Path(arguments.data_dir).absolute()
    with contextlib.suppress(FileNotFoundError):
        if any(target.iterdir()):
            raise UsageError(f"{target} is not empty: restore makes a new data directory")
    data = _read(arguments.file)
    voters = tuple(sorted(member_id(name) for name in peers)) or (member_id(arguments.name),)
    beside = target.with_name(target.name + ".restoring")
    if beside.exists():
        raise UsageError(f"{beside} is the leftover of a restore that was interrupted: delete it")
    try:
        revision = trio.run(_make, arguments, data, beside, voters)
        beside.replace(target)
        _sync(target.parent)
    finally:
        _delete(beside)
    write(f"{target}: member {arguments.name}, revision {revision}")
    return 0


async def _make(
    arguments: argparse.Namespace, data: bytes, directory: Path, voters: tuple[int, ...]
) -> int:
    from raftkv.storage.backup import restore
    from raftkv.storage.replay import Identity

    cluster = zlib.crc32(arguments.cluster.encode())
    incarnation = OsHost().rng.getrandbits(62) | 1
    identity = Identity(cluster, member_id(arguments.name), incarnation)
    machine = await restore(OsDisk(directory), data, identity, voters, arguments.bump_revision)
    return machine.revision


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _delete(directory: Path) -> None:
    """What is left of a restore that failed: plain files."""
    if directory.exists():
        for file in directory.iterdir():
            file.unlink()
        directory.rmdir()


# --- wal -----------------------------------------------------------------------------------------


def _verify(arguments: argparse.Namespace) -> int:
    from raftkv.storage.verify import verify

    directory = Path(arguments.data_dir)
    if not directory.is_dir():
        raise UsageError(f"{directory} does not exist")
    report = verify(OsDisk(directory))
    if isinstance(report.problem, Corrupt):
        raise report.problem
    for line in report.lines:
        write(line)
    write("the log is sound")
    return 0
