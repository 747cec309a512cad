"""A node's DNS: informers, zone, server, and the service by which it is found."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import attrs

from k8slite.api.kinds import ENDPOINT_SLICES, NAMESPACES, SERVICES
from k8slite.client.api import Api
from k8slite.client.background import open_background
from k8slite.client.informer import SharedInformers
from k8slite.dns.forward import Forwarder, OpenSocket, open_socket
from k8slite.dns.objects import Keeper, Place
from k8slite.dns.server import DnsServer, bind
from k8slite.dns.zone import Zone
from raftkv.host import Address, Host

__all__ = ["Dns", "DnsConfig", "cluster_dns_address", "open_dns"]

log = logging.getLogger(__name__)

CLUSTER_DOMAIN: Final = "cluster.local"


def cluster_dns_address(service_cidr: str) -> str:
    """The usual address: the tenth of the services' range."""
    return str(ipaddress.ip_network(service_cidr)[10])


@attrs.frozen(kw_only=True)
class DnsConfig:
    """`listen` is an address of the node; port 0: a free one. `ttl`: for how many seconds clients
    may remember. `high_port`: see `objects.Place`. `open_socket`: where the sockets are made with
    which name servers outside are asked; `resolv_conf` says which."""

    node_name: str
    listen: Address
    cluster_ip: str
    high_port: int = 0
    domain: str = CLUSTER_DOMAIN
    ttl: int = 5
    resolv_conf: str = "/etc/resolv.conf"
    upstream_port: int = 53
    open_socket: OpenSocket = open_socket


class Dns:
    """A running server."""

    def __init__(self, address: Address, server: DnsServer) -> None:
        self.address = address
        self._server = server

    def status(self) -> dict[str, object]:
        return {
            "address": str(self.address),
            "answered": self._server.answered,
            "forwarded": self._server.forwarded,
        }


@asynccontextmanager
async def open_dns(
    api: Api, config: DnsConfig, host: Host, informers: SharedInformers
) -> AsyncIterator[Dns]:
    """A server that answers until left, from the first moment on with all there is. Raises OSError
    where the address can't be had."""
    datagrams, connections = bind(config.listen.host, config.listen.port)
    zone = Zone(config.domain, config.cluster_ip)
    services, slices = informers.of(SERVICES), informers.of(ENDPOINT_SLICES)
    namespaces = informers.of(NAMESPACES)
    services.add_handler(zone.service_changed)
    slices.add_handler(zone.slice_changed)
    namespaces.add_handler(zone.namespace_changed)
    with datagrams, connections:
        address = Address(config.listen.host, datagrams.getsockname()[1])
        forwarder = Forwarder(
            config.resolv_conf,
            host.rng,
            own=(config.cluster_ip, config.listen.host),
            open_socket=config.open_socket,
            port=config.upstream_port,
        )
        server = DnsServer(zone, forwarder, host.rng, config.ttl)
        place = Place(
            config.node_name, config.cluster_ip, address.host, address.port, config.high_port
        )
        keeper = Keeper(api, place, services, slices)
        for informer in (services, slices, namespaces):
            await informer.wait_synced()
        async with open_background() as nursery:
            nursery.start_soon(server.serve_datagrams, datagrams, name="dns udp")
            nursery.start_soon(server.serve_connections, connections, name="dns tcp")
            nursery.start_soon(keeper.run, name="dns objects")
            log.info("serving dns address=%s", address)
            yield Dns(address, server)
