"""Keys and leases: get, put, del, watch, compact, lease. Owns: how each asks and shows."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

import trio

from raftkv.cli.output import (
    json_bytes,
    text,
    write,
    write_json,
)
from raftkv.cli.requests import add_range, add_request, lease_id, range_of
from raftkv.client import KeyValue, KvClient
from raftkv.client.types import Event

__all__ = ["add_commands"]


def add_commands(commands: Any) -> None:
    get = add_request(commands, "get", "read a key or a range", _get)
    add_range(get)
    get.add_argument("--limit", type=int, default=0, metavar="N", help="at most so many")
    get.add_argument("--revision", type=int, default=0, metavar="R", help="as it was then")
    get.add_argument("--keys-only", action="store_true", help="no values")
    get.add_argument("--count", action="store_true", help="only how many there are")
    get.add_argument(
        "--serializable", action="store_true", help="from any member, perhaps an older state"
    )
    put = add_request(commands, "put", "write a key", _put)
    put.add_argument("key")
    put.add_argument("value", help="the value; - reads it from standard input")
    put.add_argument("--lease", type=lease_id, default=0, metavar="ID", help="lives with it")
    delete = add_request(commands, "del", "delete a key or a range", _delete)
    add_range(delete)
    watch = add_request(
        commands, "watch", "show changes as they happen, until interrupted", _watch, endless=True
    )
    add_range(watch)
    watch.add_argument("--revision", type=int, default=0, metavar="R", help="begin there")
    watch.add_argument("--prev", action="store_true", help="show the value before, too")
    compact = add_request(commands, "compact", "give up the history before a revision", _compact)
    compact.add_argument("revision", type=int)
    lease = commands.add_parser("lease", help="keys that end with their author").add_subparsers(
        title="commands", metavar="COMMAND", required=True
    )
    grant = add_request(lease, "grant", "a new lease", _lease_grant)
    grant.add_argument("ttl", type=int, help="seconds")
    add_request(lease, "list", "list the leases", _lease_list)
    for name, what, function in (
        ("revoke", "end a lease and delete its keys", _lease_revoke),
        ("keep-alive", "renew a lease until interrupted", _lease_keep_alive),
        ("ttl", "how long a lease lasts, and its keys", _lease_ttl),
    ):
        parser = add_request(lease, name, what, function)
        parser.add_argument("id", type=lease_id, help="the lease's id, as `grant` printed it")
        if name == "keep-alive":
            parser.set_defaults(endless=True)
            parser.add_argument("--once", dest="endless", action="store_false", help="renew once")


# --- keys ----------------------------------------------------------------------------------------


async def _get(kv: KvClient, arguments: argparse.Namespace) -> int:
    key, end = range_of(arguments)
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
    deleted = await kv.delete(*range_of(arguments))
    if arguments.output == "json":
        write_json({"deleted": deleted})
    else:
        write(f"deleted {deleted}")
    return 0 if deleted else 1


async def _watch(kv: KvClient, arguments: argparse.Namespace) -> int:
    key, end = range_of(arguments)
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
        if not arguments.endless:
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
