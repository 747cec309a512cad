"""`open_front`: the listener for etcd's clients, beside a member's own.

Owns: the connections, and one client of the store that all of them share. Nothing of it runs, nor
is imported, in a member without `--etcd-listen`.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Final

import trio

from raftkv.client import open_client
from raftkv.etcd.cluster import cluster_methods
from raftkv.etcd.connection import GrpcConnection
from raftkv.etcd.health import health_methods
from raftkv.etcd.kv import kv_methods
from raftkv.etcd.lease import lease_methods
from raftkv.etcd.maintenance import maintenance_methods
from raftkv.etcd.member import LOCAL, LocalMember, Member, MemberNet
from raftkv.etcd.rpc import Method
from raftkv.etcd.watch import watch_methods
from raftkv.host import Address, Host, Listener, Tls
from raftkv.streams import secured

__all__ = ["open_front"]

log = logging.getLogger(__name__)

CONNECTIONS_MAX: Final = 4_096
ACCEPT_PAUSE_SECONDS: Final = 0.1


@contextlib.asynccontextmanager
async def open_front(
    local: LocalMember,
    address: Address,
    host: Host,
    *,
    tls: Tls | None,
    peers_secure: bool,
    cluster: str,
    election_seconds: float,
) -> AsyncIterator[Address]:
    """Serve etcd's v3 API for a running member, as long as the block lasts; the real address.

    `tls` as for the member's own clients; `peers_secure`: whether members speak TLS among
    themselves. Raises OSError: the address is in use or not ours.
    """
    if tls is not None:
        tls.server.set_alpn_protocols(["h2"])  # some clients insist; our own don't ask
    net = MemberNet(local, host.net, tls)
    listener = await host.net.listen(address)
    try:
        async with (
            open_client([LOCAL], net, rng=host.rng) as client,
            trio.open_nursery() as nursery,
        ):
            member = Member(local, client, net, host.rng, cluster, election_seconds)
            methods = {
                **kv_methods(member),
                **watch_methods(member),
                **lease_methods(member),
                **cluster_methods(member, tls is not None, peers_secure),
                **maintenance_methods(member),
            }
            services = frozenset(path.split("/")[1] for path in methods)
            methods |= health_methods(member, services)
            nursery.start_soon(Front(methods, tls).serve, listener)
            log.info("serves etcd's API at %s", listener.address)
            yield listener.address
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            await listener.aclose()


class Front:
    """Accepts connections and serves the methods on them."""

    def __init__(self, methods: dict[str, Method], tls: Tls | None) -> None:
        self._methods = methods
        self._context = tls.server if tls else None
        self._count = 0

    async def serve(self, listener: Listener) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                try:
                    stream = await listener.accept()
                except OSError as error:  # out of descriptors, or the client is gone already
                    log.warning("accept failed error=%s", error)
                    await trio.sleep(ACCEPT_PAUSE_SECONDS)
                    continue
                if self._count >= CONNECTIONS_MAX:
                    log.warning("connection refused connections=%d", self._count)
                    await trio.aclose_forcefully(stream)
                    continue
                nursery.start_soon(self._serve_one, stream)

    async def _serve_one(self, stream: trio.abc.Stream) -> None:
        self._count += 1
        stream = secured(stream, self._context)
        try:
            await GrpcConnection(stream, self._methods).run()
        finally:
            self._count -= 1
            await trio.aclose_forcefully(stream)
