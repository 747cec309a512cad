"""`raftkv member` and `raftkv status`: who takes part, and how they are.

Owns: names and ids of members on the command line; either is understood wherever a member is meant.
"""

from __future__ import annotations

import argparse
import contextlib
from typing import Any

import trio

from raftkv.cli.flags import address_of, member_id
from raftkv.cli.output import UsageError, write, write_json, write_table
from raftkv.cli.requests import add_request
from raftkv.client import KvClient
from raftkv.client.client import UNREACHABLE

__all__ = ["add_commands"]


def add_commands(commands: Any) -> None:
    add_request(commands, "status", "every member's role, term, revision and sizes", _status)
    member = commands.add_parser("member", help="the members of the cluster").add_subparsers(
        title="commands", metavar="COMMAND", required=True
    )
    listing = add_request(member, "list", "list the members", _list)
    listing.add_argument(
        "--serializable", action="store_true", help="as one member sees it, perhaps an old list"
    )
    add = add_request(member, "add", "admit a member, before it is started", _add)
    add.description = (
        "Admit a member to the cluster; then start it with `raftkv serve --join`. It begins as a "
        "learner, without a vote, and becomes a voter by itself once it has caught up."
    )
    add.add_argument("name", help="its name, never used before; its id is the number at the end")
    add.add_argument("peer_address", metavar="HOST:PORT", help="where the others will reach it")
    add.add_argument("--learner", action="store_true", help="stays one until it is promoted")
    for name, what, function in (
        ("remove", "remove a member for ever; it stops by itself", _remove),
        ("promote", "make a learner a voter", _promote),
        ("move-leader", "hand leadership to a member", _move_leader),
    ):
        parser = add_request(member, name, what, function)
        parser.add_argument("member", metavar="MEMBER", help="id or name, see `member list`")


async def _list(kv: KvClient, arguments: argparse.Namespace) -> int:
    members = await kv.members(serializable=arguments.serializable)
    if arguments.output == "json":
        write_json(members)
        return 0
    rows = [
        (
            member["id"],
            member["name"] or "-",
            member["peer_address"] or "-",
            member["client_address"] or "-",
            "leader" if member["leader"] else "learner" if member["learner"] else "",
        )
        for member in members
    ]
    write_table(("ID", "NAME", "PEER ADDRESS", "CLIENT ADDRESS", ""), rows)
    return 0


async def _add(kv: KvClient, arguments: argparse.Namespace) -> int:
    address = address_of(arguments.peer_address, "the peer address")
    id_ = member_id(arguments.name)
    await kv.member_add(id_, arguments.name, str(address), learner=arguments.learner)
    if arguments.output == "json":
        write_json({"id": id_, "name": arguments.name, "peer_address": str(address)})
        return 0
    endpoints = ",".join(map(str, kv.endpoints))
    cluster = (await kv.status())["cluster"]
    write(f"{arguments.name} is a member, id {id_}; start it with")
    write(
        f"  raftkv serve --name {arguments.name} --data-dir DIR --cluster {cluster} "
        f"--join {endpoints}"
    )
    return 0


async def _member_id(kv: KvClient, text: str) -> int:
    """The id of the member that is meant by its id or name."""
    members = await kv.members()
    for member in members:
        if text in (str(member["id"]), member["name"]):
            id_: int = member["id"]
            return id_
    known = ", ".join(f"{member['id']} ({member['name'] or '-'})" for member in members)
    raise UsageError(f"no member has the id or name {text!r}; there are {known}")


async def _remove(kv: KvClient, arguments: argparse.Namespace) -> int:
    await kv.member_remove(await _member_id(kv, arguments.member))
    return 0


async def _promote(kv: KvClient, arguments: argparse.Namespace) -> int:
    await kv.member_promote(await _member_id(kv, arguments.member))
    return 0


async def _move_leader(kv: KvClient, arguments: argparse.Namespace) -> int:
    await kv.move_leader(await _member_id(kv, arguments.member))
    return 0


# --- status --------------------------------------------------------------------------------------


async def _status(kv: KvClient, arguments: argparse.Namespace) -> int:
    """Every member that the endpoints know of, also those that do not answer."""
    addresses = dict.fromkeys(kv.endpoints)
    for member in await kv.members(serializable=True):
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
