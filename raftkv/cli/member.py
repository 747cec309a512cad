"""One member as a process: from the command line to `open_server`, and its signals.

Owns: signals, logging and the garbage collector of the process. Knows Linux's /proc for the
memory figure; elsewhere that's 0. Imported by `raftkv serve` only, for the other commands shall
start quickly.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib.util
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import attrs
import trio

from raftkv.cli.flags import address_of, member_id, peers_of, tls_of
from raftkv.cli.output import UsageError
from raftkv.client import open_client
from raftkv.host import Address
from raftkv.os_host import OsHost
from raftkv.server import Server, ServerConfig, open_server

__all__ = ["config_of", "memory_bytes", "run"]

log = logging.getLogger("raftkv.serve")

JOIN_SECONDS = 30.0


def config_of(arguments: argparse.Namespace) -> ServerConfig:
    """The configuration that the command line asks for. Raises UsageError."""
    name, peers = _name_and_peers(arguments)
    tls = tls_of(arguments, "tls")
    advertise = arguments.advertise
    peer_advertise = arguments.peer_advertise
    etcd_advertise = arguments.etcd_advertise
    try:
        config = ServerConfig(
            id=member_id(name),
            name=name,
            data_dir=arguments.data_dir,
            client_address=address_of(arguments.client_listen, "--client-listen"),
            peer_address=_peer_listen(arguments, peers.get(name)),
            advertise_client_address=address_of(advertise, "--advertise") if advertise else None,
            advertise_peer_address=(
                address_of(peer_advertise, "--peer-advertise") if peer_advertise else None
            ),
            etcd_address=_etcd_listen(arguments),
            advertise_etcd_address=(
                address_of(etcd_advertise, "--etcd-advertise") if etcd_advertise else None
            ),
            peers={member_id(each): address for each, address in peers.items()},
            join=bool(arguments.join),
            cluster=arguments.cluster,
            tls=tls,
            peer_tls=tls_of(arguments, "peer_tls") or tls,
            tick_seconds=arguments.tick,
            election_ticks=arguments.election_ticks,
            snapshot_entries=arguments.snapshot_entries,
            quota_bytes=arguments.quota,
            fsync=not arguments.unsafe_no_fsync,
            campaign_at_start=arguments.campaign,
            memory_bytes=memory_bytes,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    if config.join and not has_log(config.data_dir):
        return trio.run(joining, config, arguments)
    return config


def _name_and_peers(arguments: argparse.Namespace) -> tuple[str, dict[str, Address]]:
    peers = peers_of(arguments.peers)
    name = arguments.name or "member-1"
    if arguments.join and not arguments.name:
        raise UsageError("with --join, --name must say which member this is")
    if arguments.join and peers:
        raise UsageError("--join asks the cluster who its members are: leave --peers away")
    if peers and not arguments.name:
        raise UsageError("with --peers, --name must say which of them this member is")
    if peers and name not in peers:
        raise UsageError(f"--name {name} is not in --peers ({', '.join(peers)})")
    if len({member_id(each) for each in peers}) < len(peers):
        raise UsageError("--peers: two names give the same id; number them differently")
    return name, peers


def _peer_listen(arguments: argparse.Namespace, given: Address | None) -> Address | None:
    """None: where the cluster knows this member to be."""
    if arguments.peer_listen:
        return address_of(arguments.peer_listen, "--peer-listen")
    return given if given is not None or arguments.join else Address("127.0.0.1", 0)


def _etcd_listen(arguments: argparse.Namespace) -> Address | None:
    if not arguments.etcd_listen:
        return None
    address = address_of(arguments.etcd_listen, "--etcd-listen")
    if address.port == 0:
        raise UsageError("--etcd-listen: the other members have to know the port, choose one")
    if importlib.util.find_spec("h2") is None:
        raise UsageError("--etcd-listen needs the package h2: pip install 'k8slite[etcd]'")
    return address


def has_log(directory: str) -> bool:
    try:
        return any(name.endswith(".wal") for name in os.listdir(directory))
    except FileNotFoundError:
        return False


async def joining(config: ServerConfig, arguments: argparse.Namespace) -> ServerConfig:
    """What the running cluster knows of this member before its first start. Raises UsageError."""
    endpoints = [address_of(each, "--join") for each in arguments.join.split(",") if each]
    host = OsHost(config.display_name)
    async with open_client(endpoints, host.net, tls=config.tls, rng=host.rng) as kv:
        with trio.move_on_after(JOIN_SECONDS):
            members = await kv.members()
            cluster = (await kv.status())["cluster"]
            return _joined(config, members, cluster)
        raise trio.TooSlowError(
            f"no member of the cluster answered at {arguments.join}; last problem: "
            f"{kv.last_problem or 'none'}"
        )


def _joined(config: ServerConfig, members: list[dict[str, Any]], cluster: str) -> ServerConfig:
    peers = {
        member["id"]: address_of(member["peer_address"], "the cluster's list of members")
        for member in members
        if member["peer_address"]
    }
    if config.id not in peers:
        raise UsageError(
            f"{config.display_name} (id {config.id}) is not a member of this cluster yet: run "
            f"`raftkv member add {config.display_name} HOST:PORT` first"
        )
    return attrs.evolve(config, peers=peers, cluster=cluster)


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
    if not config.fsync:
        log.warning("--unsafe-no-fsync: acknowledged writes are lost if this machine stops")
    tune_collector()
    trio.run(serve, config)
    return 0


def tune_collector() -> None:
    """The store is millions of tuples without cycles: look for garbage rarely."""
    gc.set_threshold(50_000, 50, 100)


async def serve(config: ServerConfig) -> None:
    """A member until the first signal; leadership is handed over before it stops."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        host = OsHost(config.display_name)
        async with open_server(config, host) as server, _open_etcd(server, config, host):
            gc.collect()
            gc.freeze()
            async with trio.open_nursery() as nursery:
                async for number in signals:
                    log.info("stopping signal=%s", signal.Signals(number).name)
                    break
                nursery.start_soon(_impatience, signals, nursery.cancel_scope)
                await server.hand_over()
                nursery.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def _open_etcd(server: Server, config: ServerConfig, host: OsHost) -> AsyncIterator[None]:
    """etcd's API beside our own, where it is wanted."""
    if config.etcd_address is None:
        yield
        return
    from raftkv.etcd import open_front  # here, since it takes a while and memory

    async with open_front(
        server,
        config.etcd_address,
        host,
        tls=config.tls,
        peers_secure=config.peer_tls is not None,
        cluster=config.cluster,
        election_seconds=config.election_seconds,
    ):
        yield


async def _impatience(signals: Any, scope: trio.CancelScope) -> None:
    """A second signal ends it at once."""
    async for _ in signals:
        scope.cancel()
