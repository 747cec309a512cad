"""The controller manager: one leader of several replicas runs all controllers.

Informers live only while this replica leads, so that a standby costs little memory and a new
leader starts from a fresh list.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from attrs import field, frozen

from k8slite.client.api import Api
from k8slite.client.background import open_background
from k8slite.client.client import ClientConfig, open_client
from k8slite.client.informer import open_informers
from k8slite.client.leader import LeaderElectionConfig, LeaderState, run_leader_elected
from k8slite.controllers.context import Context, ControllerTimings, Signing
from k8slite.controllers.table import CONTROLLERS, selected
from raftkv.host import Host

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
    workers: int = 5
    signing: Signing | None = None
    """The authority that signs certificates; without it, requests for them stay unsigned."""
    local_volumes: str = ""
    """The directory of the machine below which volumes are provisioned; "": none are."""

    def __attrs_post_init__(self) -> None:
        selected(self.controllers)


class ControllerManager:
    """A running replica."""

    def __init__(self) -> None:
        self.leader = LeaderState()

    @property
    def leading(self) -> bool:
        return self.leader.leading


@asynccontextmanager
async def open_controller_manager(
    config: ControllerManagerConfig, host: Host
) -> AsyncIterator[ControllerManager]:
    """A replica that campaigns, leads, and campaigns again; on leaving, it gives up its Lease."""
    manager = ControllerManager()
    async with open_client(config.client, host) as client, open_background() as nursery:
        nursery.start_soon(run_replica, client, config, host, manager.leader)
        yield manager


async def run_replica(
    api: Api, config: ControllerManagerConfig, host: Host, state: LeaderState
) -> None:
    """Campaign, lead, and campaign again, until cancelled."""

    async def lead() -> None:
        await run_controllers(api, config, host)

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


async def run_controllers(api: Api, config: ControllerManagerConfig, host: Host) -> None:
    """Run the configured controllers until cancelled, with one informer per kind."""
    async with open_informers(api, host) as informers, trio.open_nursery() as nursery:
        context = Context(
            api,
            host,
            informers,
            nursery,
            config.timings,
            config.root_ca,
            config.workers,
            config.signing,
            config.local_volumes,
        )
        for controller in selected(config.controllers):
            nursery.start_soon(CONTROLLERS[controller], context, name=controller)
