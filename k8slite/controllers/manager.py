"""The controller manager: one leader of several replicas runs all controllers.

Informers live only while this replica leads, so that a standby costs little memory and a new
leader starts from a fresh list.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import trio
from attrs import evolve, field, frozen

from k8slite.client.api import Api
from k8slite.client.background import open_background
from k8slite.client.client import ClientConfig, open_client
from k8slite.client.informer import open_informers
from k8slite.client.leader import LeaderElectionConfig, LeaderState, run_leader_elected
from k8slite.client.metrics import Metrics, open_metrics_server
from k8slite.controllers.context import Context, ControllerTimings, Signing
from k8slite.controllers.table import CONTROLLERS, selected
from raftkv.host import Address, Host

__all__ = [
    "ControllerManager",
    "ControllerManagerConfig",
    "open_controller_manager",
    "run_controllers",
    "run_replica",
]


@frozen(kw_only=True)
class ControllerManagerConfig:
    """`identity` must be another one for each process; `controllers` is a selection as of
    `--controllers`: ("*", "-cronjob-controller"); () means ("*",)."""

    client: ClientConfig
    identity: str
    root_ca: str = ""
    timings: ControllerTimings = field(factory=ControllerTimings)
    lease_seconds: float = 15.0
    renew_seconds: float = 10.0
    retry_seconds: float = 2.0
    leader_elect: bool = True
    controllers: tuple[str, ...] = ()
    workers: Mapping[str, int] = field(factory=dict)
    """By controller, where it is not what the table says."""
    metrics: Address | None = None
    """Where metrics are shown."""
    signing: Signing | None = None
    """The authority that signs certificates; without it, requests for them stay unsigned."""
    local_volumes: str = ""
    """The directory of the machine below which volumes are provisioned; "": none are."""

    def __attrs_post_init__(self) -> None:
        selected(self.controllers)
        unknown = [name for name in self.workers if name not in CONTROLLERS]
        if unknown or any(count < 1 for count in self.workers.values()):
            raise ValueError(f"workers: {dict(self.workers)}: known controllers, at least 1 each")


class ControllerManager:
    """A running replica."""

    def __init__(self) -> None:
        self.leader = LeaderState()
        self.metrics = Metrics()
        self.metrics_address: Address | None = None

    @property
    def leading(self) -> bool:
        return self.leader.leading


@asynccontextmanager
async def open_controller_manager(
    config: ControllerManagerConfig, host: Host
) -> AsyncIterator[ControllerManager]:
    """A replica that campaigns, leads, and campaigns again; on leaving, it gives up its Lease."""
    manager = ControllerManager()
    async with AsyncExitStack() as stack:
        if config.metrics is not None:
            server = open_metrics_server(host, config.metrics, manager.metrics)
            manager.metrics_address = await stack.enter_async_context(server)
        client = await stack.enter_async_context(open_client(config.client, host))
        nursery = await stack.enter_async_context(open_background())
        nursery.start_soon(run_replica, client, config, host, manager.leader, manager.metrics)
        yield manager


async def run_replica(
    api: Api,
    config: ControllerManagerConfig,
    host: Host,
    state: LeaderState,
    metrics: Metrics | None = None,
) -> None:
    """Campaign, lead, and campaign again, until cancelled."""

    async def lead() -> None:
        await run_controllers(api, config, host, metrics)

    if not config.leader_elect:
        state.leading = True
        await lead()
        return
    election = LeaderElectionConfig(
        name="kube-controller-manager",
        identity=config.identity,
        lease_seconds=config.lease_seconds,
        renew_seconds=config.renew_seconds,
        retry_seconds=config.retry_seconds,
    )
    while True:
        await run_leader_elected(api, host, election, lead, state)


async def run_controllers(
    api: Api, config: ControllerManagerConfig, host: Host, metrics: Metrics | None = None
) -> None:
    """Run the configured controllers until cancelled, with one informer per kind."""
    async with open_informers(api, host) as informers, trio.open_nursery() as nursery:
        context = Context(
            api,
            host,
            informers,
            nursery,
            config.timings,
            root_ca=config.root_ca,
            signing=config.signing,
            local_volumes=config.local_volumes,
            metrics=metrics or Metrics(),
        )
        for name in selected(config.controllers):
            entry = CONTROLLERS[name]
            workers = config.workers.get(name, entry.workers)
            nursery.start_soon(entry.run, evolve(context, workers=workers), name=name)
