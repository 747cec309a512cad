"""`raftkv hash`: whether all members hold the same, byte for byte."""

from __future__ import annotations

import argparse
from typing import Any

import trio

from raftkv.cli.flags import address_of
from raftkv.cli.output import write_json, write_table
from raftkv.cli.requests import add_request
from raftkv.client import KvClient
from raftkv.client.client import UNREACHABLE
from raftkv.errors import Compacted, FutureRevision
from raftkv.host import Address

__all__ = ["add_commands"]

Row = tuple[int, int, int] | str
"""(revision, compacted revision, checksum), or why there is none."""


def add_commands(commands: Any) -> None:
    parser = add_request(commands, "hash", "compare the members' states by checksum", _hash)
    parser.description = (
        "A checksum over all keys, values and history of every member, up to the same revision. "
        "Exit code 1: two members differ; 3: not all could be asked, so nothing is proven."
    )


async def _hash(kv: KvClient, arguments: argparse.Namespace) -> int:
    addresses = dict.fromkeys(kv.endpoints)
    for member in await kv.members():
        if member["client_address"]:
            addresses[address_of(member["client_address"], "member")] = None
    found = await _ask_all(kv, list(addresses), arguments.timeout)
    hashes = {row[1:] for row in found.values() if not isinstance(row, str)}
    if arguments.output == "json":
        write_json({str(address): _json(row) for address, row in found.items()})
    else:
        rows = [
            (str(address), *(("-", "-", row) if isinstance(row, str) else _cells(row)))
            for address, row in found.items()
        ]
        write_table(("ADDRESS", "REVISION", "COMPACTED", "HASH"), rows)
    if len(hashes) > 1:
        return 1
    return 3 if any(isinstance(row, str) for row in found.values()) else 0


async def _ask_all(kv: KvClient, addresses: list[Address], seconds: float) -> dict[Address, Row]:
    """Everybody's checksum at one revision; asked anew if a compaction came between."""
    found: dict[Address, Row] = {}

    async def ask(address: Address, revision: int) -> None:
        found[address] = "does not answer"
        with trio.move_on_after(seconds / 2):
            while True:
                try:
                    found[address] = await kv.hash(address, revision)
                except FutureRevision:  # it lags
                    found[address] = "is behind"
                    await kv.pause()
                    continue
                except (*UNREACHABLE, Compacted) as error:
                    found[address] = str(error) or type(error).__name__
                return

    while True:
        revision = await kv.current_revision()
        async with trio.open_nursery() as nursery:
            for address in addresses:
                nursery.start_soon(ask, address, revision)
        bounds = {row[1] for row in found.values() if not isinstance(row, str)}
        if len(bounds) <= 1:
            return {address: found[address] for address in addresses}


def _cells(row: tuple[int, int, int]) -> tuple[int, int, str]:
    return row[0], row[1], f"{row[2]:08x}"


def _json(row: Row) -> dict[str, Any]:
    if isinstance(row, str):
        return {"problem": row}
    return {"revision": row[0], "compact_revision": row[1], "hash": f"{row[2]:08x}"}
