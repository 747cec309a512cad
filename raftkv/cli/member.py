"""One member as a process: from the command line to `open_server`, and its signals.

Owns: signals, logging and the garbage collector of the process. Knows Linux's /proc for the
memory figure; elsewhere that's 0. Imported by `raftkv serve` only, for the other commands shall
start quickly.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import re
import signal
import sys
import zlib
from typing import Any

import trio

from raftkv.cli.flags import address_of, tls_of
from raftkv.cli.output import UsageError
from raftkv.host import Address
from raftkv.os_host import OsHost
from raftkv.server import ServerConfig, open_server

__all__ = ["config_of", "member_id", "memory_bytes", "run"]

log = logging.getLogger("raftkv.serve")


def member_id(name: str) -> int:
    """The number at the end of a name, or one made from the name."""
    match = re.search(r"(\d{1,9})$", name)
    return (int(match.group(1)) if match else 0) or zlib.crc32(name.encode()) or 1


def peers_of(text: str) -> dict[str, Address]:
    """`name=host:port,...` as a table."""
    peers: dict[str, Address] = {}
    for part in filter(None, text.split(",")):
        name, equals, address = part.partition("=")
        if not equals or not name:
            raise UsageError(f"--peers: {part!r} is not of the form NAME=HOST:PORT")
        if name in peers:
            raise UsageError(f"--peers: {name} is there twice")
        peers[name] = address_of(address, "--peers")
    return peers


def config_of(arguments: argparse.Namespace) -> ServerConfig:
    """The configuration that the command line asks for. Raises UsageError."""
    peers = peers_of(arguments.peers)
    name = arguments.name or "member-1"
    if peers and not arguments.name:
        raise UsageError("with --peers, --name must say which of them this member is")
    if peers and name not in peers:
        raise UsageError(f"--name {name} is not in --peers ({', '.join(peers)})")
    ids = {member_id(each): each for each in peers}
    if len(ids) < len(peers):
        raise UsageError("--peers: two names give the same id; number them differently")
    tls = tls_of(arguments, "tls")
    peer_listen = arguments.peer_listen or str(peers.get(name, ""))
    advertise = arguments.advertise
    try:
        return ServerConfig(
            id=member_id(name),
            name=name,
            data_dir=arguments.data_dir,
            client_address=address_of(arguments.client_listen, "--client-listen"),
            peer_address=address_of(peer_listen or "127.0.0.1:0", "--peer-listen"),
            advertise_client_address=address_of(advertise, "--advertise") if advertise else None,
            peers={member_id(each): address for each, address in peers.items()},
            cluster=arguments.cluster,
            tls=tls,
            peer_tls=tls_of(arguments, "peer_tls") or tls,
            tick_seconds=arguments.tick,
            election_ticks=arguments.election_ticks,
            snapshot_entries=arguments.snapshot_entries,
            quota_bytes=arguments.quota,
            campaign_at_start=arguments.campaign,
            memory_bytes=memory_bytes,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error


def memory_bytes() -> int:
    """Resident memory of this process."""
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def run(arguments: argparse.Namespace) -> int:
    config = config_of(arguments)
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if arguments.verbose else logging.INFO,
        format=f"%(asctime)s {config.display_name} %(levelname)s %(name)s %(message)s",
    )
    tune_collector()
    trio.run(serve, config)
    return 0


def tune_collector() -> None:
    """The store is millions of tuples without cycles: look for garbage rarely."""
    gc.set_threshold(50_000, 50, 100)


async def serve(config: ServerConfig) -> None:
    """A member until the first signal; leadership is handed over before it stops."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with open_server(config, OsHost(config.display_name)) as server:
            gc.collect()
            gc.freeze()
            async with trio.open_nursery() as nursery:
                async for number in signals:
                    log.info("stopping signal=%s", signal.Signals(number).name)
                    break
                nursery.start_soon(_impatience, signals, nursery.cancel_scope)
                await server.hand_over()
                nursery.cancel_scope.cancel()


async def _impatience(signals: Any, scope: trio.CancelScope) -> None:
    """A second signal ends it at once."""
    async for _ in signals:
        scope.cancel()
