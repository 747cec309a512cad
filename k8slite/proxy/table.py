"""From Services and EndpointSlices to what a node must forward. Pure.

The rules are kube-proxy's:

- A service has an entry per port, unless it is headless, an ExternalName, or another proxy's
  (label `service.kubernetes.io/service-proxy-name`). IPv4 alone.
- Endpoints are the ready ones. Where a service has none, those that are terminating but still
  serve take over, so that a rollout that ends all old pods at once loses no connection.
- Traffic policy Local restricts to endpoints of this node: the internal one what comes to the
  cluster IP, the external one what comes to node ports and external addresses. Where all of this
  node's own are terminating, those that still serve take over here too.
- Source ranges count for the load balancer's addresses alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from operator import itemgetter
from typing import Any, Final, NamedTuple

import attrs

from k8slite.api.meta import Obj

__all__ = ["Endpoint", "ServicePort", "Table", "TableBuilder", "build_table"]

PROXY_NAME_LABEL: Final = "service.kubernetes.io/service-proxy-name"
HEADLESS_LABEL: Final = "service.kubernetes.io/headless"
SERVICE_NAME_LABEL: Final = "kubernetes.io/service-name"
AFFINITY_SECONDS: Final = 10800
SOURCE_RANGES_ANNOTATION: Final = "service.beta.kubernetes.io/load-balancer-source-ranges"
EVERYBODY: Final = "0.0.0.0/0"


@attrs.frozen(order=True)
class Endpoint:
    """Where a connection may go; `local`: on this node."""

    ip: str
    port: int
    local: bool = False

    def __str__(self) -> str:
        return f"{self.ip}:{self.port}"


@attrs.frozen
class ServicePort:
    """One port of one service.

    `external_ips`: also those of the load balancer, `balancer_ips` these alone, which only
    `source_ranges` may use where there are any. `node_port` 0: none. `affinity_seconds` 0: none.
    `cluster_endpoints` serve the cluster IP, `external_endpoints` all the rest; the latter are
    this node's own under the external policy Local. Load balancers ask at `health_port` (0: none)
    for `ready_here`, the number of ready endpoints of this node.
    """

    namespace: str
    name: str
    port_name: str
    protocol: str
    cluster_ip: str
    port: int
    node_port: int = 0
    external_ips: tuple[str, ...] = ()
    affinity_seconds: int = 0
    internal_local: bool = False
    external_local: bool = False
    endpoints: tuple[Endpoint, ...] = ()
    """All usable ones, on whatever node."""
    leaving: tuple[Endpoint, ...] = ()
    """This node's that terminate and still serve, where it has no ready ones."""
    balancer_ips: tuple[str, ...] = ()
    source_ranges: tuple[str, ...] = ()
    health_port: int = 0
    ready_here: int = 0

    @property
    def key(self) -> str:
        """kube-proxy's name of the port: "namespace/name:port name"."""
        suffix = f":{self.port_name}" if self.port_name else ""
        return f"{self.namespace}/{self.name}{suffix}"

    @property
    def local_endpoints(self) -> tuple[Endpoint, ...]:
        return tuple(endpoint for endpoint in self.endpoints if endpoint.local) or self.leaving

    @property
    def cluster_endpoints(self) -> tuple[Endpoint, ...]:
        return self.local_endpoints if self.internal_local else self.endpoints

    @property
    def external_endpoints(self) -> tuple[Endpoint, ...]:
        return self.local_endpoints if self.external_local else self.endpoints


Table = dict[tuple[str, str], ServicePort]
"""By (key, protocol), sorted."""
_Row = tuple[tuple[str, str], ServicePort]


class TableBuilder:
    """Builds the table of a node, and remembers what it made of services that did not change.

    Objects are told apart by identity: an informer gives a new object for every change.
    """

    def __init__(self, node_name: str) -> None:
        self._node_name = node_name
        self._known: dict[tuple[str, str], tuple[Obj, list[Obj], list[_Row]]] = {}

    def build(self, services: Iterable[Obj], slices: Iterable[Obj]) -> Table:
        """What this node must forward, from all services and all their slices."""
        by_service: dict[tuple[str, str], list[Obj]] = {}
        for each in slices:
            metadata = each["metadata"]
            service = (metadata.get("labels") or {}).get(SERVICE_NAME_LABEL)
            if service and each.get("addressType") == "IPv4":
                by_service.setdefault((metadata["namespace"], service), []).append(each)
        known: dict[tuple[str, str], tuple[Obj, list[Obj], list[_Row]]] = {}
        rows: list[_Row] = []
        for service in services:
            if not _is_ours(service):
                continue
            key = (service["metadata"]["namespace"], service["metadata"]["name"])
            own = by_service.get(key, [])
            before = self._known.get(key)
            if before is None or before[0] is not service or not _same(before[1], own):
                ports = _service_ports(service, own, self._node_name)
                before = (service, own, [((each.key, each.protocol), each) for each in ports])
            known[key] = before
            rows += before[2]
        self._known = known
        rows.sort(key=itemgetter(0))
        return dict(rows)


def _same(one: list[Obj], two: list[Obj]) -> bool:
    return len(one) == len(two) and all(a is b for a, b in zip(one, two, strict=True))


def build_table(services: Iterable[Obj], slices: Iterable[Obj], node_name: str) -> Table:
    """The table, without memory."""
    return TableBuilder(node_name).build(services, slices)


def _is_ours(service: Obj) -> bool:
    labels = service["metadata"].get("labels") or {}
    spec = service["spec"]
    return (
        PROXY_NAME_LABEL not in labels
        and HEADLESS_LABEL not in labels
        and spec.get("type") != "ExternalName"
        and bool(_cluster_ip(spec))
    )


def _cluster_ip(spec: dict[str, Any]) -> str:
    addresses = spec.get("clusterIPs") or [spec.get("clusterIP") or ""]
    return next((ip for ip in addresses if ip not in ("", "None") and ":" not in ip), "")


def _service_ports(service: Obj, slices: list[Obj], node_name: str) -> list[ServicePort]:
    spec = service["spec"]
    metadata = service["metadata"]
    external = [ip for ip in spec.get("externalIPs") or () if ":" not in ip]
    is_balanced = spec.get("type") == "LoadBalancer"
    balancer = tuple(_balancer_ips(service)) if is_balanced else ()
    external_local = spec.get("externalTrafficPolicy") == "Local"
    affinity = 0
    if spec.get("sessionAffinity") == "ClientIP":
        config = (spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}
        affinity = config.get("timeoutSeconds") or AFFINITY_SECONDS
    entries = []
    for port in spec.get("ports") or ():
        protocol = port.get("protocol") or "TCP"
        found = _endpoints(slices, port.get("name") or "", protocol, node_name)
        entries.append(
            ServicePort(
                namespace=metadata["namespace"],
                name=metadata["name"],
                port_name=port.get("name") or "",
                protocol=protocol,
                cluster_ip=_cluster_ip(spec),
                port=port["port"],
                node_port=port.get("nodePort") or 0,
                external_ips=tuple(dict.fromkeys((*external, *balancer))),
                affinity_seconds=affinity,
                internal_local=spec.get("internalTrafficPolicy") == "Local",
                external_local=external_local,
                endpoints=found.usable,
                leaving=found.leaving,
                balancer_ips=balancer,
                source_ranges=_source_ranges(service) if is_balanced else (),
                health_port=spec.get("healthCheckNodePort") or 0 if external_local else 0,
                ready_here=found.ready_here,
            )
        )
    return entries


def _balancer_ips(service: Obj) -> Iterator[str]:
    balancer = (service.get("status") or {}).get("loadBalancer") or {}
    for ingress in balancer.get("ingress") or ():
        ip = ingress.get("ip", "")
        if ip and ":" not in ip and ingress.get("ipMode", "VIP") == "VIP":
            yield ip


def _source_ranges(service: Obj) -> tuple[str, ...]:
    """From whom; none: from everybody. The annotation is the field's predecessor."""
    ranges = service["spec"].get("loadBalancerSourceRanges")
    if not ranges:
        text = (service["metadata"].get("annotations") or {}).get(SOURCE_RANGES_ANNOTATION) or ""
        ranges = text.split(",") if text.strip() else []
    kept = tuple(sorted({each.strip() for each in ranges if ":" not in each}))
    return () if EVERYBODY in kept else kept


class _Found(NamedTuple):
    usable: tuple[Endpoint, ...]
    leaving: tuple[Endpoint, ...]
    ready_here: int


def _endpoints(slices: list[Obj], port_name: str, protocol: str, node_name: str) -> _Found:
    ready: dict[tuple[str, int], Endpoint] = {}
    serving: dict[tuple[str, int], Endpoint] = {}
    for each in slices:
        numbers = [
            port["port"]
            for port in each.get("ports") or ()
            if (port.get("name") or "") == port_name
            and (port.get("protocol") or "TCP") == protocol
            and port.get("port")
        ]
        for endpoint in each.get("endpoints") or ():
            conditions = endpoint.get("conditions") or {}
            is_ready = conditions.get("ready")
            still_serves = conditions.get("serving") and conditions.get("terminating")
            for number in numbers:
                for ip in endpoint.get("addresses") or ():
                    found = Endpoint(ip, number, endpoint.get("nodeName") == node_name)
                    if is_ready is None or is_ready:
                        ready[ip, number] = found
                    elif still_serves:
                        serving[ip, number] = found
    ready_here = len({each.ip for each in ready.values() if each.local})
    leaving = [each for each in serving.values() if each.local and not ready_here]
    return _Found(tuple(sorted((ready or serving).values())), tuple(sorted(leaving)), ready_here)
