"""The commands that talk to a running store: get, put, del, watch, compact, lease, member, status.

Owns: how each asks and shows. Every command but `watch` and `lease keep-alive` gives up after
--timeout seconds and says what the last obstacle was.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from raftkv.cli.flags import add_tls, address_of, tls_of
from raftkv.cli.output import (
    UsageError,
    json_bytes,
    text,
    write,
    write_json,
    write_table,
)
from raftkv.client import KeyValue, KvClient, open_client, prefix_end
from raftkv.client.client import UNREACHABLE
from raftkv.client.types import FROM_KEY, Event
from raftkv.os_host import OsHost

__all__ = ["add_commands"]

Command = Callable[[KvClient, argparse.Namespace], Awaitable[int]]
ENDPOINTS = "RAFTKV_ENDPOINTS"


def add_commands(commands: Any) -> None:
    get = _add(commands, "get", "read a key or a range", _get)
    _add_range(get)
    get.add_argument("--limit", type=int, default=0, metavar="N", help="at most so many")
    get.add_argument("--revision", type=int, default=0, metavar="R", help="as it was then")
    get.add_argument("--keys-only", action="store_true", help="no values")
    get.add_argument("--count", action="store_true", help="only how many there are")
    get.add_argument(
        "--serializable", action="store_true", help="from any member, perhaps an older state"
    )
    put = _add(commands, "put", "write a key", _put)
    put.add_argument("key")
    put.add_argument("value", help="the value; - reads it from standard input")
    put.add_argument("--lease", type=_lease_id, default=0, metavar="ID", help="lives with it")
    delete = _add(commands, "del", "delete a key or a range", _delete)
    _add_range(delete)
    watch = _add(commands, "watch", "show changes as they happen, until interrupted", _watch)
    _add_range(watch)
    watch.add_argument("--revision", type=int, default=0, metavar="R", help="begin there")
    watch.add_argument("--prev", action="store_true", help="show the value before, too")
    compact = _add(commands, "compact", "give up the history before a revision", _compact)
    compact.add_argument("revision", type=int)
    _add(commands, "status", "every member's role, term, revision and sizes", _status)
    member = commands.add_parser("member", help="the members of the cluster").add_subparsers(
        title="commands", metavar="COMMAND", required=True
    )
    _add(member, "list", "list the members", _member_list)
    move = _add(member, "lead", "hand leadership to a member", _member_lead)
    move.add_argument("id", type=int, help="the member's id, see `raftkv member list`")
    lease = commands.add_parser("lease", help="keys that end with their author").add_subparsers(
        title="commands", metavar="COMMAND", required=True
    )
    grant = _add(lease, "grant", "a new lease", _lease_grant)
    grant.add_argument("ttl", type=int, help="seconds")
    _add(lease, "list", "list the leases", _lease_list)
    for name, what, function in (
        ("revoke", "end a lease and delete its keys", _lease_revoke),
        ("keep-alive", "renew a lease until interrupted", _lease_keep_alive),
        ("ttl", "how long a lease lasts, and its keys", _lease_ttl),
    ):
        parser = _add(lease, name, what, function)
        parser.add_argument("id", type=_lease_id, help="the lease's id, as `grant` printed it")
        if name == "keep-alive":
            parser.add_argument("--once", action="store_true", help="renew once")


def _add(commands: Any, name: str, what: str, function: Command) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=what, description=what)
    parser.set_defaults(run=lambda arguments: trio.run(_run, function, arguments))
    add = parser.add_argument
    add("--endpoints", metavar="HOST:PORT,...", help=f"members to ask (default: ${ENDPOINTS})")
    add("--timeout", type=float, default=5.0, metavar="SECONDS", help="give up (default 5)")
    add("-o", "--output", choices=("table", "json"), default="table", help="default: table")
    add_tls(parser, "--tls", "")
    return parser


def _add_range(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("key")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--prefix", action="store_true", help="all keys that begin with KEY")
    group.add_argument("--from-key", action="store_true", help="KEY and all keys behind it")
    group.add_argument("--end", metavar="KEY", help="all keys from KEY up to, not including, END")


def _range(arguments: argparse.Namespace) -> tuple[bytes, bytes | None]:
    key = os.fsencode(arguments.key)
    if arguments.prefix:
        return (key, prefix_end(key)) if key else (b"\0", FROM_KEY)
    if arguments.from_key:
        return key or b"\0", FROM_KEY
    return key, os.fsencode(arguments.end) if arguments.end else None


def _lease_id(value: str) -> int:
    """Leases are written in hexadecimal, as etcdctl does."""
    return int(value, 16)


async def _run(function: Command, arguments: argparse.Namespace) -> int:
    given = arguments.endpoints or os.environ.get(ENDPOINTS) or "127.0.0.1:2379"
    endpoints = [address_of(each, "--endpoints") for each in given.split(",") if each]
    if not endpoints:
        raise UsageError("--endpoints names no member")
    host = OsHost()
    tls = tls_of(arguments, "tls")
    async with open_client(endpoints, host.net, tls=tls, rng=host.rng) as kv:
        arguments.endless = function is _watch or (
            function is _lease_keep_alive and not arguments.once
        )
        try:
            if arguments.endless:
                return await function(kv, arguments)
            with trio.fail_after(arguments.timeout):
                return await function(kv, arguments)
        except trio.TooSlowError:
            why = kv.last_problem or "the members answer, but no leader could confirm"
            raise trio.TooSlowError(
                f"no answer within {arguments.timeout:g} s from {given}; last problem: {why}"
            ) from None


# --- keys ----------------------------------------------------------------------------------------


async def _get(kv: KvClient, arguments: argparse.Namespace) -> int:
    key, end = _range(arguments)
    found = await kv.range(
        key,
        end,
        limit=arguments.limit,
        revision=arguments.revision,
        keys_only=arguments.keys_only,
        count_only=arguments.count,
        serializable=arguments.serializable,
    )
    if arguments.output == "json":
        pairs = [_json_pair(pair) for pair in found.kvs]
        fields = {"revision": found.revision, "count": found.count, "more": found.more}
        write_json({**fields, "kvs": pairs})
    elif arguments.count:
        write(str(found.count))
    elif end is None and found.kvs:
        write(text(found.kvs[0].key if arguments.keys_only else found.kvs[0].value))
    elif end is not None:
        for pair in found.kvs:
            write(
                text(pair.key) if arguments.keys_only else f"{text(pair.key)}\t{text(pair.value)}"
            )
    if end is None and not found.count:
        sys.stderr.write(f"raftkv: {text(key)} is not there\n")
        return 1
    return 0


async def _put(kv: KvClient, arguments: argparse.Namespace) -> int:
    if arguments.value == "-":
        value = sys.stdin.buffer.read()
    else:
        value = os.fsencode(arguments.value)
    revision = await kv.put(os.fsencode(arguments.key), value, arguments.lease)
    _write_revision(arguments, revision)
    return 0


async def _delete(kv: KvClient, arguments: argparse.Namespace) -> int:
    deleted = await kv.delete(*_range(arguments))
    if arguments.output == "json":
        write_json({"deleted": deleted})
    else:
        write(f"deleted {deleted}")
    return 0 if deleted else 1


async def _watch(kv: KvClient, arguments: argparse.Namespace) -> int:
    key, end = _range(arguments)
    async with kv.watch(
        key, end, start_revision=arguments.revision, prev_kv=arguments.prev
    ) as watch:
        async for batch in watch:
            for event in batch.events:
                _write_event(arguments, event)
            sys.stdout.flush()
    return 0


def _write_event(arguments: argparse.Namespace, event: Event) -> None:
    if arguments.output == "json":
        previous = _json_pair(event.prev_kv) if event.prev_kv else None
        write_json({"type": event.type, "kv": _json_pair(event.kv), "prev_kv": previous})
        return
    before = f"\twas {text(event.prev_kv.value)}" if event.prev_kv and arguments.prev else ""
    kv = event.kv
    write(f"{kv.mod_revision}\t{event.type}\t{text(kv.key)}\t{text(kv.value)}{before}")


async def _compact(kv: KvClient, arguments: argparse.Namespace) -> int:
    await kv.compact(arguments.revision)
    _write_revision(arguments, arguments.revision)
    return 0


def _write_revision(arguments: argparse.Namespace, revision: int) -> None:
    if arguments.output == "json":
        write_json({"revision": revision})
    else:
        write(f"revision {revision}")


def _json_pair(pair: KeyValue) -> dict[str, Any]:
    fields = pair._asdict()
    return {**fields, "key": json_bytes(pair.key), "value": json_bytes(pair.value)}


# --- members -------------------------------------------------------------------------------------


async def _status(kv: KvClient, arguments: argparse.Namespace) -> int:
    """Every member that the endpoints know of, also those that do not answer."""
    addresses = dict.fromkeys(kv.endpoints)
    for member in await kv.members():
        if member["client_address"]:
            addresses[address_of(member["client_address"], "member")] = None
    found: dict[Any, dict[str, Any] | None] = dict.fromkeys(addresses)

    async def ask(address: Any) -> None:
        with trio.move_on_after(arguments.timeout / 2):
            with contextlib.suppress(*UNREACHABLE):
                found[address] = await kv.status(address)

    async with trio.open_nursery() as nursery:
        for address in addresses:
            nursery.start_soon(ask, address)
    if arguments.output == "json":
        write_json({str(address): status for address, status in found.items()})
    else:
        rows = [_status_row(str(address), status) for address, status in found.items()]
        write_table(STATUS_HEADINGS, rows)
    return 0 if all(found.values()) else 3


STATUS_HEADINGS = (
    "ADDRESS",
    "NAME",
    "ROLE",
    "TERM",
    "REVISION",
    "COMPACTED",
    "INDEX",
    "APPLIED",
    "SIZE",
    "MEMORY",
    "WATCHES",
)


def _status_row(address: str, status: dict[str, Any] | None) -> list[Any]:
    if status is None:
        return [address, "-", "does not answer", *["-"] * (len(STATUS_HEADINGS) - 3)]
    return [
        address,
        status["name"],
        status["role"],
        status["term"],
        status["revision"],
        status["compact_revision"],
        status["raft_index"],
        status["raft_applied"],
        _size(status["db_size"]),
        _size(status["memory"]),
        status["watches"],
    ]


def _size(count: int) -> str:
    if count < 1024:
        return f"{count} B"
    scaled, unit = count / 1024, "KiB"
    for larger in ("MiB", "GiB"):
        if scaled >= 1024:
            scaled, unit = scaled / 1024, larger
    return f"{scaled:.1f} {unit}"


async def _member_list(kv: KvClient, arguments: argparse.Namespace) -> int:
    members = await kv.members()
    if arguments.output == "json":
        write_json(members)
        return 0
    rows = [
        (
            member["id"],
            member["name"] or "-",
            member["peer_address"] or "-",
            member["client_address"] or "-",
            "leader" if member["leader"] else "",
        )
        for member in members
    ]
    write_table(("ID", "NAME", "PEER ADDRESS", "CLIENT ADDRESS", ""), rows)
    return 0


async def _member_lead(kv: KvClient, arguments: argparse.Namespace) -> int:
    await kv.move_leader(arguments.id)
    return 0


# --- leases --------------------------------------------------------------------------------------


async def _lease_grant(kv: KvClient, arguments: argparse.Namespace) -> int:
    lease = await kv.lease_grant(arguments.ttl)
    if arguments.output == "json":
        write_json({"id": f"{lease:x}", "ttl": arguments.ttl})
    else:
        write(f"{lease:x}")
    return 0


async def _lease_revoke(kv: KvClient, arguments: argparse.Namespace) -> int:
    await kv.lease_revoke(arguments.id)
    return 0


async def _lease_keep_alive(kv: KvClient, arguments: argparse.Namespace) -> int:
    while True:
        ttl = await kv.lease_keep_alive(arguments.id)
        if arguments.output == "json":
            write_json({"id": f"{arguments.id:x}", "ttl": ttl})
        else:
            write(f"{arguments.id:x} lives for {ttl} s")
            sys.stdout.flush()
        if arguments.once:
            return 0
        await trio.sleep(ttl / 3)


async def _lease_list(kv: KvClient, arguments: argparse.Namespace) -> int:
    leases = [f"{lease:x}" for lease in await kv.leases()]
    if arguments.output == "json":
        write_json(leases)
    else:
        for lease in leases:
            write(lease)
    return 0


async def _lease_ttl(kv: KvClient, arguments: argparse.Namespace) -> int:
    left, granted, keys = await kv.lease_time_to_live(arguments.id)
    if arguments.output == "json":
        named = [json_bytes(key) for key in keys]
        write_json({"id": f"{arguments.id:x}", "left": left, "ttl": granted, "keys": named})
    elif left >= 0:
        write(f"{left} s of {granted} s left, keys: {' '.join(map(text, keys)) or 'none'}")
    if left < 0:
        sys.stderr.write(f"raftkv: lease {arguments.id:x} does not exist\n")
        return 1
    return 0
