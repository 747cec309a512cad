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
from k8slite.controllers.context import Context, Controller, ControllerTimings
from k8slite.controllers.daemonset import run_daemonset_controller
from k8slite.controllers.deployment import run_deployment_controller
from k8slite.controllers.disruption import run_disruption_controller
from k8slite.controllers.endpoints import run_endpoints_controller
from k8slite.controllers.endpointslice import run_endpointslice_controller
from k8slite.controllers.garbage_collector import run_garbage_collector
from k8slite.controllers.job import run_job_controller
from k8slite.controllers.namespaces import run_namespace_controller
from k8slite.controllers.node_lifecycle import run_node_lifecycle_controller
from k8slite.controllers.pod_gc import run_pod_gc_controller
from k8slite.controllers.replicaset import run_replicaset_controller
from k8slite.controllers.root_ca import run_root_ca_controller
from k8slite.controllers.serviceaccount import run_serviceaccount_controller
from k8slite.controllers.statefulset import run_statefulset_controller
from k8slite.controllers.taint_eviction import run_taint_eviction_controller
from raftkv.host import Host

__all__ = [
    "CONTROLLERS",
    "ControllerManager",
    "ControllerManagerConfig",
    "open_controller_manager",
    "run_controllers",
    "run_replica",
]

CONTROLLERS: dict[str, Controller] = {
    "serviceaccount-controller": run_serviceaccount_controller,
    "root-ca-certificate-publisher-controller": run_root_ca_controller,
    "namespace-controller": run_namespace_controller,
    "deployment-controller": run_deployment_controller,
    "replicaset-controller": run_replicaset_controller,
    "statefulset-controller": run_statefulset_controller,
    "daemonset-controller": run_daemonset_controller,
    "job-controller": run_job_controller,
    "disruption-controller": run_disruption_controller,
    "endpoints-controller": run_endpoints_controller,
    "endpointslice-controller": run_endpointslice_controller,
    "node-lifecycle-controller": run_node_lifecycle_controller,
    "taint-eviction-controller": run_taint_eviction_controller,
    "pod-garbage-collector-controller": run_pod_gc_controller,
    "garbage-collector-controller": run_garbage_collector,
}
"""By kube-controller-manager's names, in the order in which they start."""


@frozen(kw_only=True)
class ControllerManagerConfig:
    """`identity` must be another one for each process; `controllers` () means all."""

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

    def __attrs_post_init__(self) -> None:
        unknown = [c for c in self.controllers if c not in CONTROLLERS]
        if unknown:
            known = ", ".join(CONTROLLERS)
            raise ValueError(f"no controller is called {', '.join(unknown)}; there are {known}")


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
            api, host, informers, nursery, config.timings, config.root_ca, config.workers
        )
        for controller in config.controllers or CONTROLLERS:
            nursery.start_soon(CONTROLLERS[controller], context, name=controller)
