"""The service `kube-dns`: what pods find the servers by, kept by the servers themselves.

Every node's server has an EndpointSlice of its own. The service's internal traffic policy is
Local: a node asks its own server, and one that has died is missed by its own node alone.

Whoever starts first creates the service; it is made anew when somebody deletes it, and its ports
are put right. Labels, and whatever else people change, are left alone.
"""

from __future__ import annotations

import logging
from typing import Final

import attrs
import trio

from k8slite.api.kinds import ENDPOINT_SLICES, SERVICES, Kind
from k8slite.api.meta import Obj, uid
from k8slite.api.status import ApiError
from k8slite.client.api import Api
from k8slite.client.errors import ClientError
from k8slite.client.informer import Informer

__all__ = ["NAME", "NAMESPACE", "Keeper", "Place", "endpoint_slice", "service"]

log = logging.getLogger(__name__)

NAMESPACE: Final = "kube-system"
NAME: Final = "kube-dns"
PORT: Final = 53
LABELS: Final = {
    "k8s-app": "kube-dns",
    "kubernetes.io/cluster-service": "true",
    "kubernetes.io/name": "KubeDNS",
}
RETRY_SECONDS: Final = 5.0
LOOK_SECONDS: Final = 300.0


@attrs.frozen
class Place:
    """Where a node's server listens, and the address of the service. `high_port`: another port of
    the service, where ordinary users cannot listen on 53; 0: none."""

    node: str
    cluster_ip: str
    ip: str
    port: int
    high_port: int = 0

    def ports(self) -> list[tuple[str, int, str]]:
        """(name, port of the service, protocol)"""
        wanted = [(PORT, "dns")] + ([(self.high_port, "dns-high")] if self.high_port else [])
        return [
            (f"{name}{suffix}", number, protocol)
            for number, name in wanted
            for protocol, suffix in (("UDP", ""), ("TCP", "-tcp"))
        ]


def service(place: Place) -> Obj:
    """The Service as it should be."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": dict(LABELS)},
        "spec": {
            "clusterIP": place.cluster_ip,
            "internalTrafficPolicy": "Local",
            "ports": [
                {"name": name, "port": number, "targetPort": place.port, "protocol": protocol}
                for name, number, protocol in place.ports()
            ],
        },
    }


def endpoint_slice(place: Place, owner: Obj) -> Obj:
    """The slice of one node."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{NAME}-{place.node}",
            "namespace": NAMESPACE,
            "labels": {
                "k8s-app": "kube-dns",
                "kubernetes.io/service-name": NAME,
                "endpointslice.kubernetes.io/managed-by": "dns.k8slite",
            },
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "Service", "name": NAME, "uid": uid(owner)}
            ],
        },
        "addressType": "IPv6" if ":" in place.ip else "IPv4",
        "endpoints": [
            {
                "addresses": [place.ip],
                "nodeName": place.node,
                "conditions": {"ready": True, "serving": True, "terminating": False},
            }
        ],
        "ports": [
            {"name": name, "port": place.port, "protocol": protocol}
            for name, _, protocol in place.ports()
        ],
    }


class Keeper:
    """Keeps both there until cancelled."""

    def __init__(self, api: Api, place: Place, services: Informer, slices: Informer) -> None:
        self._api = api
        self._place = place
        self._services = services
        self._slices = slices
        self._look = trio.Event()
        services.add_handler(self._changed)
        slices.add_handler(self._changed)

    def _changed(self, old: Obj | None, new: Obj | None) -> None:
        metadata = (new or old or {})["metadata"]
        ours = metadata["namespace"] == NAMESPACE and metadata["name"].startswith(NAME)
        if ours:
            self._look.set()

    async def run(self) -> None:
        await self._services.wait_synced()
        await self._slices.wait_synced()
        while True:
            self._look = trio.Event()
            again = LOOK_SECONDS
            try:
                await self._keep()
            except (ApiError, ClientError) as error:
                log.info("retry service=%s error=%s", NAME, error)
                again = RETRY_SECONDS
            with trio.move_on_after(again):
                await self._look.wait()

    async def _keep(self) -> None:
        """One look; what was written shows in the informers, and is looked at again."""
        wanted = service(self._place)
        there = self._services.get(f"{NAMESPACE}/{NAME}")
        if there is None:
            await self._create(SERVICES, wanted)
            return
        if there["metadata"].get("deletionTimestamp"):
            return
        spec = there["spec"]
        if _ports(spec.get("ports")) != _ports(wanted["spec"]["ports"]):
            changed = {**there, "spec": {**spec, "ports": wanted["spec"]["ports"]}}
            await self._api.update(SERVICES, changed)
            return
        mine = endpoint_slice(self._place, there)
        present = self._slices.get(f"{NAMESPACE}/{mine['metadata']['name']}")
        if present is None:
            await self._create(ENDPOINT_SLICES, mine)
        elif any(
            present.get(field) != mine[field] for field in ("addressType", "endpoints", "ports")
        ) or _owner(present) != uid(there):
            metadata = {**present["metadata"], **mine["metadata"]}
            if present.get("addressType") != mine["addressType"]:
                await self._api.delete(ENDPOINT_SLICES, metadata["name"], NAMESPACE)
            else:
                await self._api.update(ENDPOINT_SLICES, {**present, **mine, "metadata": metadata})

    async def _create(self, kind: Kind, obj: Obj) -> None:
        try:
            await self._api.create(kind, obj)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise


def _ports(ports: list[Obj] | None) -> list[tuple[object, ...]]:
    return sorted(
        (port.get("name"), port["port"], port.get("targetPort"), port.get("protocol", "TCP"))
        for port in ports or ()
    )


def _owner(obj: Obj) -> str:
    owners = obj["metadata"].get("ownerReferences") or [{}]
    return str(owners[0].get("uid", ""))
