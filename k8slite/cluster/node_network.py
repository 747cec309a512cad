"""How a node's network is served, in one process over the same informers: its proxy, its names, its
network policies, the addresses of load balancers.

Names do not stop the proxy: where they can't be served (the port is taken), that is told as a
problem, and tried again.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import trio

from k8slite.cluster.context import Context, Running
from raftkv.host import Address

if TYPE_CHECKING:
    from k8slite.client.client import Client
    from k8slite.client.informer import SharedInformers
    from k8slite.dns.dns import Dns, DnsConfig
    from k8slite.network.announce import Announcer
    from k8slite.network.policy.enforcer import Enforcer
    from k8slite.proxy.writer import Follower, Writer

__all__ = ["open_proxy"]

log = logging.getLogger(__name__)

PROXY_SYNC_SECONDS: Final = 0.1
"""Here a sync is cheap, and a rollout is watched by a person."""
DNS_PORT: Final = 53
HIGH_DNS_PORT: Final = 10053
"""Where nodes are loopback addresses: ordinary users can't listen on 53."""
RETRY_SECONDS: Final = 5.0


@asynccontextmanager
async def open_proxy(context: Context) -> AsyncIterator[Running]:
    from k8slite.client.background import open_background
    from k8slite.client.client import open_client
    from k8slite.client.informer import open_informers
    from k8slite.proxy.proxy import ProxyConfig, open_proxy_over

    config = ProxyConfig(
        client=context.client("proxy"),
        node_name=context.component.node,
        min_sync_seconds=PROXY_SYNC_SECONDS,
    )
    async with AsyncExitStack() as stack:
        writer = await _open_writer(context, stack)
        client = await stack.enter_async_context(open_client(config.client, context.host))
        informers = await stack.enter_async_context(open_informers(client, context.host))
        nursery = await stack.enter_async_context(open_background())
        followers = _followers(context, nursery)
        proxy = await stack.enter_async_context(
            open_proxy_over(informers, config, writer, followers)
        )
        names = _Names(context)
        nursery.start_soon(names.run, client, informers)
        enforcer: Enforcer | None = None
        announcer: Announcer | None = None
        if context.spec.bridged:
            from k8slite.network.policy import enforcer as policies

            enforcer = policies.Enforcer(informers, context.component.node, policies.PolicyWriter())
            nursery.start_soon(enforcer.run)
            from k8slite.network import announce

            pool = context.place.balancer_pool.rpartition(".")[0] + "."
            announcer = announce.Announcer(informers, context.component.node, pool)
            nursery.start_soon(announcer.run)

        def status() -> dict[str, Any]:
            refused = enforcer.problems if enforcer is not None else []
            if announcer is not None:
                refused = [*refused, *announcer.problems]
            return {
                "mode": context.spec.proxy,
                "ports": proxy.ports,
                "syncs": proxy.syncs,
                "dns": str(names.dns.address) if names.dns is not None else "",
                "problems": [*proxy.problems, *names.problems, *refused],
            }

        yield Running(status)


async def _open_writer(context: Context, stack: AsyncExitStack) -> Writer:
    mode, place = context.spec.proxy, context.place
    if mode == "iptables":
        from k8slite.proxy.iptables import IptablesWriter

        return IptablesWriter(place.cluster_cidr)
    if mode == "nftables":
        from k8slite.proxy.nftables import NftablesWriter

        return NftablesWriter(place.cluster_cidr)
    addresses = (place.node_address(context.component.number),)
    if mode == "ipvs":
        from k8slite.proxy.ipvs import IpvsWriter

        scheduler = context.spec.ipvs_scheduler
        return IpvsWriter(place.cluster_cidr, addresses, scheduler=scheduler)
    from k8slite.proxy.userspace import open_userspace_writer

    return await stack.enter_async_context(open_userspace_writer(addresses, context.host.net))


def _followers(context: Context, nursery: trio.Nursery) -> list[Follower]:
    from k8slite.proxy.health import HealthServers

    address = context.place.node_address(context.component.number)
    followers: list[Follower] = [HealthServers(address, context.host.net, nursery)]
    if context.spec.bridged:  # a relay in user space has no flows in the kernel
        from k8slite.proxy.conntrack import FlowCleaner

        followers.append(FlowCleaner())
    return followers


class _Names:
    """The node's DNS, opened again and again until it can be."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.dns: Dns | None = None
        self.problems: list[str] = []

    async def run(self, client: Client, informers: SharedInformers) -> None:
        from k8slite.dns.dns import open_dns

        host = self._context.host
        while True:
            try:
                async with open_dns(client, self._config(), host, informers) as self.dns:
                    self.problems = []
                    await trio.sleep_forever()
            except OSError as error:
                log.warning("node=%s problem=%s", self._context.component.node, error)
                self.dns, self.problems = None, [str(error)]
            await trio.sleep(RETRY_SECONDS)

    def _config(self) -> DnsConfig:
        from k8slite.dns.dns import DnsConfig
        from k8slite.dns.forward import open_socket

        place, bridged = self._context.place, self._context.spec.bridged
        address = place.node_address(self._context.component.number)
        return DnsConfig(
            node_name=self._context.component.node,
            listen=Address(address, DNS_PORT if bridged else HIGH_DNS_PORT),
            cluster_ip=place.dns_address,
            high_port=0 if bridged else HIGH_DNS_PORT,
            open_socket=_outer_socket if bridged else open_socket,
        )


def _outer_socket(family: int, kind: int) -> socket.socket:
    """A socket in the machine's own network, from where its name servers are reached; our parent,
    the zygote, lives there."""
    from k8slite.network.namespaces import inside

    with inside(f"/proc/{os.getppid()}/ns/net"):
        return socket.socket(family, kind)
