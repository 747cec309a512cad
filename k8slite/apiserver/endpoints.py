"""Where the pods behind a Service are: addresses, and the nodes that lead there."""

from __future__ import annotations

import ipaddress
from typing import Any, NamedTuple

from k8slite.api.kinds import ENDPOINT_SLICES
from k8slite.api.meta import Obj
from k8slite.apiserver.mirror import Mirror
from raftkv.host import Address

__all__ = ["Endpoint", "PodOnNode", "behind_node", "ready_endpoints"]

_SERVICE = "kubernetes.io/service-name"


class PodOnNode(NamedTuple):
    """Which pod, and the node that it is on."""

    node: str
    namespace: str
    name: str


class Endpoint(NamedTuple):
    """`pod`: whose address it is, in a network that this machine may not be part of."""

    address: Address
    pod: PodOnNode | None = None


def ready_endpoints(mirror: Mirror, namespace: str, service: str, port_name: str) -> list[Endpoint]:
    """All that a Service's port leads to now."""
    found: list[Endpoint] = []
    for entry in mirror.cache(ENDPOINT_SLICES).select(f"{namespace}/"):
        slice_ = entry.parsed()
        if (slice_["metadata"].get("labels") or {}).get(_SERVICE) == service:
            found += _endpoints(slice_, namespace, port_name)
    return found


def _endpoints(slice_: Obj, namespace: str, port_name: str) -> list[Endpoint]:
    port: Any = next(
        (p["port"] for p in slice_.get("ports") or () if (p.get("name") or "") == port_name), None
    )
    if port is None:
        return []

    def where(endpoint: Obj) -> PodOnNode:
        target = endpoint.get("targetRef") or {}
        name = target.get("name", "") if target.get("kind") == "Pod" else ""
        return PodOnNode(endpoint.get("nodeName") or "", namespace, name)

    return [
        Endpoint(address, behind_node(address, where(endpoint)))
        for endpoint in slice_.get("endpoints") or ()
        if (endpoint.get("conditions") or {}).get("ready") is not False
        for address in (Address(host, port) for host in endpoint.get("addresses") or ())
    ]


def behind_node(address: Address, where: PodOnNode) -> PodOnNode | None:
    """Loopback addresses are this machine's own: there every pod is reached directly."""
    direct = not (where.node and where.name) or _is_loopback(address.host)
    return None if direct else where


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
