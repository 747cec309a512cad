"""The service controller of a cloud controller manager: load balancers for Services.

Level-triggered: after any change of a Service, all are placed anew, and those whose status or
finalizer differs are written. Addresses are kept in the Services' own status alone, so there is
nothing to lose, and a restart changes nothing. Updates carry the resourceVersion they were planned
on. One replica leads; the Lease is `cloud-controller-manager`.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import attrs
import trio

from k8slite.api.kinds import SERVICES
from k8slite.api.meta import Obj, key
from k8slite.api.status import ApiError
from k8slite.client.api import Api
from k8slite.client.background import open_background
from k8slite.client.client import ClientConfig, open_client
from k8slite.client.errors import ClientError
from k8slite.client.events import EventRecorder, open_event_recorder
from k8slite.client.informer import Informer, open_informer
from k8slite.client.leader import LeaderElectionConfig, LeaderState, run_leader_elected
from k8slite.cloud.provider import BalancerProvider, addresses_of, is_balanced
from raftkv.host import Host

__all__ = ["FINALIZER", "CloudConfig", "ServiceController", "open_cloud", "planned"]

log = logging.getLogger(__name__)

FINALIZER: Final = "service.kubernetes.io/load-balancer-cleanup"
RETRY_SECONDS: Final = 5.0
LEASE: Final = "cloud-controller-manager"


@attrs.frozen(kw_only=True)
class CloudConfig:
    """`identity` must be another one for each process."""

    client: ClientConfig
    identity: str
    lease_seconds: float = 15.0
    renew_seconds: float = 10.0
    retry_seconds: float = 2.0


def planned(service: Obj, address: str | None) -> tuple[Obj | None, Obj | None]:
    """What must be written for a service that is to have this address or none: (the object for
    its finalizer, the object for its status), each None where nothing differs. Pure."""
    metadata = service["metadata"]
    finalizers = list(metadata.get("finalizers") or ())
    wants = is_balanced(service)
    marked: Obj | None = None
    if wants and FINALIZER not in finalizers:
        marked = {**service, "metadata": {**metadata, "finalizers": [*finalizers, FINALIZER]}}
    elif not wants and FINALIZER in finalizers:
        rest = [each for each in finalizers if each != FINALIZER]
        marked = {**service, "metadata": {**metadata, "finalizers": rest}}
    foreign = service["spec"].get("type") == "LoadBalancer" and service["spec"].get(
        "loadBalancerClass"
    )
    shown, wanted = addresses_of(service), [address] if address else []
    if foreign or shown == wanted:
        return marked, None
    balancer = {"ingress": [{"ip": address, "ipMode": "VIP"}]} if address else {}
    return marked, {
        **service,
        "status": {**(service.get("status") or {}), "loadBalancer": balancer},
    }


class ServiceController:
    """Runs over one informer of all Services."""

    def __init__(
        self, api: Api, provider: BalancerProvider, services: Informer, events: EventRecorder
    ) -> None:
        self._api = api
        self._provider = provider
        self._services = services
        self._events = events
        self._dirty = trio.Event()
        services.add_handler(self._changed)

    def _changed(self, old: Obj | None, new: Obj | None) -> None:
        self._dirty.set()

    async def run(self) -> None:
        """Until cancelled."""
        await self._services.wait_synced()
        while True:
            self._dirty = trio.Event()
            if await self._look():
                await self._dirty.wait()
            else:
                with trio.move_on_after(RETRY_SECONDS):
                    await self._dirty.wait()

    async def _look(self) -> bool:
        """Whether everything could be done."""
        services = sorted(self._services.list(), key=key)
        placed = self._provider.place(services)
        done = True
        for service in services:
            try:
                done = await self._ensure(service, placed.get(key(service))) and done
            except (ApiError, ClientError) as error:
                log.info("retry service=%s error=%s", key(service), error)
                done = False
        return done

    async def _ensure(self, service: Obj, address: str | None) -> bool:
        marked, shown = planned(service, address)
        if is_balanced(service) and address is None and not addresses_of(service):
            self._events.event(
                service,
                "Warning",
                "SyncLoadBalancerFailed",
                "Error syncing load balancer: no address can be had: the one that was asked for is "
                "taken or not in the pool, or the pool is used up",
            )
            return True
        if shown is not None and is_balanced(service):
            self._events.event(service, "Normal", "EnsuringLoadBalancer", "Ensuring load balancer")
        if shown is not None:
            answer = await self._api.update(SERVICES, shown, subresource="status")
            if marked is not None:
                version = answer["metadata"]["resourceVersion"]
                metadata = {**marked["metadata"], "resourceVersion": version}
                marked = {**marked, "metadata": metadata, "status": answer.get("status") or {}}
        if marked is not None:
            await self._api.update(SERVICES, marked)
        if shown is not None and address is not None:
            log.info("service=%s address=%s", key(service), address)
            self._events.event(service, "Normal", "EnsuredLoadBalancer", "Ensured load balancer")
        return True


@asynccontextmanager
async def open_cloud(
    config: CloudConfig, host: Host, provider: BalancerProvider
) -> AsyncIterator[LeaderState]:
    """A replica that campaigns, leads, and campaigns again, until left."""
    state = LeaderState()
    election = LeaderElectionConfig(
        name=LEASE,
        identity=config.identity,
        lease_seconds=config.lease_seconds,
        renew_seconds=config.renew_seconds,
        retry_seconds=config.retry_seconds,
    )

    async with open_client(config.client, host) as client, open_background() as nursery:

        async def lead() -> None:
            async with (
                open_informer(client, SERVICES, host) as services,
                open_event_recorder(client, host, "service-controller") as events,
            ):
                await ServiceController(client, provider, services, events).run()

        async def campaign() -> None:
            while True:
                await run_leader_elected(client, host, election, lead, state)

        nursery.start_soon(campaign, name="cloud controllers")
        yield state
