"""How a member of the store and the components of a control plane are opened."""

from __future__ import annotations

import csv
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from k8slite.cluster.context import Context, Running
from raftkv.host import Address

if TYPE_CHECKING:
    from k8slite.apiserver.config import StaticToken

__all__ = [
    "open_apiserver", "open_controller_manager", "open_raftkv", "open_scheduler", "read_tokens",
]  # fmt: skip


METRICS: Final = Address("127.0.0.1", 0)
"""Where components show their metrics: on a free port, which `k8slite status -o json` tells."""


@asynccontextmanager
async def open_raftkv(context: Context) -> AsyncIterator[Running]:
    from raftkv.server import ServerConfig, open_server

    number, spec, place = context.component.number, context.spec, context.place
    members = range(1, spec.raft_members + 1)
    tls = context.tls("store-ca", context.component.name)
    config = ServerConfig(
        id=number,
        name=context.component.name,
        data_dir=str(context.layout.data(context.component.name)),
        client_address=place.raft_client(number),
        peer_address=place.raft_peer(number),
        peers={n: place.raft_peer(n) for n in members} if len(members) > 1 else {},
        cluster=spec.name,
        tls=tls,
        peer_tls=tls,
        tick_seconds=context.timings.raft_tick,
        campaign_at_start=number == 1,
    )
    async with open_server(config, context.host) as server:

        async def leave() -> None:
            await server.hand_over()

        yield Running(server.status, leave)


@asynccontextmanager
async def open_apiserver(context: Context) -> AsyncIterator[Running]:
    from k8slite.apiserver.config import ApiserverConfig, StoreConfig
    from k8slite.apiserver.server import open_apiserver

    spec, place, number = context.spec, context.place, context.component.number
    store = StoreConfig()
    if spec.store == "raftkv":
        members = range(1, spec.raft_members + 1)
        store = StoreConfig(
            tuple(place.raft_client(n) for n in members), context.tls("store-ca", "store-client")
        )
    tls = context.tls("ca", "apiserver", require_client=False).server
    tls.load_verify_locations(context.layout.pki / "front-proxy-ca.crt")  # who tell who asks
    config = ApiserverConfig(
        listen=(place.apiserver(number), *place.shared_addresses()),
        store=store,
        identity=context.component.name,
        tls=tls,
        tokens=read_tokens(spec.token_auth_file),
        encryption_config=spec.encryption_provider_config,
        authentication_config=spec.authentication_config,
        token_webhook=spec.authentication_token_webhook_config_file,
        authorization_config=spec.authorization_config,
        audit_policy=spec.audit_policy_file,
        audit_log=str(context.layout.logs / f"{context.component.name}-audit.log"),
        service_account_private_key=(context.layout.pki / "service-accounts.key").read_bytes(),
        advertise_address=place.host,
        advertise_port=place.port,
        service_cidr=place.service_cidr,
        allow_loopback_endpoints=not spec.bridged,
        kubelet_tls=context.tls("ca", "apiserver-kubelet-client").client,
        proxy_client=context.pem("front-proxy-client"),
        proxy_client_ca=(context.layout.pki / "front-proxy-ca.crt").read_bytes(),
        client_ca=(context.layout.pki / "ca.crt").read_bytes(),
        bookmark_seconds=context.timings.bookmark,
        endpoint_seconds=context.timings.endpoint,
        toleration_seconds=context.timings.toleration,
    )
    async with open_apiserver(config, context.host) as server:
        yield Running(server.status)


def read_tokens(path: str) -> tuple[StaticToken, ...]:
    """A token file as kube-apiserver's: lines of token, user, uid and "group,group".

    Raises OSError, and ValueError that names the line.
    """
    from k8slite.apiserver.config import StaticToken

    if not path:
        return ()
    tokens = []
    with open(path, newline="") as file:
        for line, row in enumerate(csv.reader(file, skipinitialspace=True), 1):
            if not row:
                continue
            if len(row) < 3 or not row[0] or not row[1]:
                raise ValueError(f'{path}:{line}: must be TOKEN,USER,UID[,"GROUP,GROUP"]')
            groups = tuple(g.strip() for g in row[3].split(",") if g.strip()) if row[3:] else ()
            tokens.append(StaticToken(row[0], row[1], row[2], groups))
    return tuple(tokens)


@asynccontextmanager
async def open_scheduler(context: Context) -> AsyncIterator[Running]:
    from k8slite.scheduler.config import DEFAULT_CONFIGURATION
    from k8slite.scheduler.loader import load_configuration
    from k8slite.scheduler.scheduler import SchedulerConfig, open_scheduler

    lease, renew, retry = context.timings.election
    file = context.spec.scheduler_config
    config = SchedulerConfig(
        configuration=load_configuration(file) if file else DEFAULT_CONFIGURATION,
        metrics=METRICS,
        client=context.client("scheduler"),
        identity=context.component.name,
        lease_seconds=lease,
        renew_seconds=renew,
        retry_seconds=retry,
    )
    async with open_scheduler(config, context.host) as scheduler:

        def status() -> dict[str, Any]:
            leader = scheduler.leader
            return {
                "leading": leader.leading,
                "leader": leader.holder,
                "transitions": leader.transitions,
                "bound": scheduler.bound,
                "metrics": f"http://{scheduler.metrics_address}/metrics",
            }

        yield Running(status)


@asynccontextmanager
async def open_controller_manager(context: Context) -> AsyncIterator[Running]:
    from k8slite.cloud.provider import LocalBalancers
    from k8slite.cloud.service import CloudConfig, open_cloud
    from k8slite.controllers.context import ControllerTimings, Signing
    from k8slite.controllers.manager import ControllerManagerConfig, open_controller_manager

    timings, pki = context.timings, context.layout.pki
    lease, renew, retry = timings.election
    authority = (pki / "ca.crt").read_bytes()
    config = ControllerManagerConfig(
        client=context.client("controller-manager"),
        identity=context.component.name,
        root_ca=authority.decode(),
        timings=ControllerTimings(
            node_monitor_period=timings.node_monitor,
            node_monitor_grace=timings.node_grace,
            node_startup_grace=timings.node_startup_grace,
        ),
        lease_seconds=lease,
        renew_seconds=renew,
        retry_seconds=retry,
        signing=Signing(authority, (pki / "ca.key").read_bytes()),
        local_volumes=str(context.layout.volumes),
        metrics=METRICS,
        controllers=tuple(filter(None, context.spec.controllers.split(","))),
    )
    cloud = CloudConfig(
        client=config.client,
        identity=context.component.name,
        lease_seconds=lease,
        renew_seconds=renew,
        retry_seconds=retry,
    )
    balancers = LocalBalancers(context.place.balancer_pool)
    async with (
        open_controller_manager(config, context.host) as manager,
        open_cloud(cloud, context.host, balancers),
    ):

        def status() -> dict[str, Any]:
            leader = manager.leader
            return {
                "leading": leader.leading,
                "leader": leader.holder,
                "transitions": leader.transitions,
                "metrics": f"http://{manager.metrics_address}/metrics",
            }

        yield Running(status)
