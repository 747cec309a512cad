"""What all commands that talk to a running store share: endpoints, patience, TLS, ranges.

Owns: the flags and the run of one such command. Every one gives up after --timeout seconds and
says what the last obstacle was; one that is marked endless (`arguments.endless`) does not.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from raftkv.cli.flags import add_tls, address_of, tls_of
from raftkv.cli.output import UsageError
from raftkv.client import KvClient, open_client, prefix_end
from raftkv.client.types import FROM_KEY
from raftkv.os_host import OsHost

__all__ = ["Command", "add_range", "add_request", "lease_id", "range_of"]

Command = Callable[[KvClient, argparse.Namespace], Awaitable[int]]
ENDPOINTS = "RAFTKV_ENDPOINTS"


def add_request(
    commands: Any, name: str, what: str, function: Command, *, endless: bool = False
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=what, description=what)
    parser.set_defaults(run=lambda arguments: trio.run(_run, function, arguments), endless=endless)
    add = parser.add_argument
    add("--endpoints", metavar="HOST:PORT,...", help=f"members to ask (default: ${ENDPOINTS})")
    add("--timeout", type=float, default=5.0, metavar="SECONDS", help="give up (default 5)")
    add("-o", "--output", choices=("table", "json"), default="table", help="default: table")
    add_tls(parser, "--tls", "")
    return parser


def add_range(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("key")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--prefix", action="store_true", help="all keys that begin with KEY")
    group.add_argument("--from-key", action="store_true", help="KEY and all keys behind it")
    group.add_argument("--end", metavar="KEY", help="all keys from KEY up to, not including, END")


def range_of(arguments: argparse.Namespace) -> tuple[bytes, bytes | None]:
    key = os.fsencode(arguments.key)
    if arguments.prefix:
        return (key, prefix_end(key)) if key else (b"\0", FROM_KEY)
    if arguments.from_key:
        return key or b"\0", FROM_KEY
    return key, os.fsencode(arguments.end) if arguments.end else None


def lease_id(value: str) -> int:
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
