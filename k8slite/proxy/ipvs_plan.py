"""From a table to IPVS: virtual servers, their addresses, and what the packet filter does. Pure.

As kube-proxy's ipvs mode: every address of a service is a virtual server of the kernel's balancer,
and is on the interface `kube-ipvs0`, so that packets to it come in at all. What is masqueraded or
refused is decided by sets, here of nftables, in the table `ip k8slite-ipvs`.

    KUBE-CLUSTER-IP         masqueraded for others than pods: answers must come back through here
    KUBE-EXTERNAL-IP        masqueraded; also load balancers' addresses
    KUBE-EXTERNAL-IP-LOCAL  those under the external policy Local: masqueraded for the node alone
    KUBE-NODE-PORT          as the two above, for node ports
    KUBE-NODE-PORT-LOCAL
    KUBE-ELSEWHERE          policy Local, served on other nodes only: for pods and the node
    KUBE-LOOP-BACK          a pod that is led to itself
    KUBE-FIREWALL           addresses that only KUBE-SOURCES may use
    KUBE-IPVS-IPS           on the interface: refused where no service has the port
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import attrs

from k8slite.proxy.table import Endpoint, ServicePort, Table

__all__ = [
    "PROTOCOLS",
    "TABLE",
    "Destination",
    "IpvsPlan",
    "Server",
    "VirtualServer",
    "make_plan",
    "set_changes",
    "static_rules",
]

TABLE: Final = "ip k8slite-ipvs"
MARK: Final = "0x4000"
PROTOCOLS: Final = ("TCP", "UDP", "SCTP")
_FRONT: Final = "type ipv4_addr . inet_proto . inet_service;"
_PORT: Final = "type inet_proto . inet_service;"
SETS: Final = {
    "KUBE-CLUSTER-IP": _FRONT,
    "KUBE-EXTERNAL-IP": _FRONT,
    "KUBE-EXTERNAL-IP-LOCAL": _FRONT,
    "KUBE-NODE-PORT": _PORT,
    "KUBE-NODE-PORT-LOCAL": _PORT,
    "KUBE-ELSEWHERE": _FRONT,
    "KUBE-LOOP-BACK": "type ipv4_addr . inet_proto . inet_service . ipv4_addr;",
    "KUBE-FIREWALL": _FRONT,
    "KUBE-SOURCES": "type ipv4_addr . inet_proto . inet_service . ipv4_addr; flags interval;",
    "KUBE-IPVS-IPS": "type ipv4_addr;",
}

Destination = tuple[str, int]
"""Address and port of an endpoint."""


class VirtualServer(NamedTuple):
    """An address of the balancer."""

    protocol: str
    ip: str
    port: int


class Server(NamedTuple):
    """What a virtual server has. `persistence`: seconds; 0: none."""

    persistence: int
    endpoints: tuple[Destination, ...]


@attrs.define
class IpvsPlan:
    servers: dict[VirtualServer, Server] = attrs.Factory(dict)
    addresses: dict[str, None] = attrs.Factory(dict)
    """On the interface: all but the node's own."""
    sets: dict[str, dict[str, None]] = attrs.Factory(lambda: {name: {} for name in SETS})


def make_plan(table: Table, node_addresses: Sequence[str]) -> IpvsPlan:
    """Everything for a table. Node ports are served at `node_addresses`."""
    plan = IpvsPlan()
    for entry in table.values():
        if entry.protocol in PROTOCOLS:
            _add(plan, entry, node_addresses)
    plan.sets["KUBE-IPVS-IPS"] = dict(plan.addresses)
    return plan


def _add(plan: IpvsPlan, entry: ServicePort, node_addresses: Sequence[str]) -> None:
    sets, protocol = plan.sets, entry.protocol.lower()
    _serve(plan, entry, entry.cluster_ip, entry.port, entry.cluster_endpoints)
    sets["KUBE-CLUSTER-IP"][f"{entry.cluster_ip} . {protocol} . {entry.port}"] = None
    is_elsewhere = bool(entry.endpoints) and not entry.external_endpoints
    outer = entry.endpoints if is_elsewhere else entry.external_endpoints
    suffix = "-LOCAL" if entry.external_local else ""
    for ip, port in _outer_fronts(entry, node_addresses):
        _serve(plan, entry, ip, port, outer)
        if is_elsewhere:
            sets["KUBE-ELSEWHERE"][f"{ip} . {protocol} . {port}"] = None
    for ip in entry.external_ips:
        sets[f"KUBE-EXTERNAL-IP{suffix}"][f"{ip} . {protocol} . {entry.port}"] = None
    if entry.node_port:
        sets[f"KUBE-NODE-PORT{suffix}"][f"{protocol} . {entry.node_port}"] = None
    for ip in (entry.cluster_ip, *entry.external_ips):
        if ip not in node_addresses:
            plan.addresses[ip] = None
    for each in (*entry.endpoints, *entry.leaving):
        sets["KUBE-LOOP-BACK"][f"{each.ip} . {protocol} . {each.port} . {each.ip}"] = None
    for ip in entry.balancer_ips if entry.source_ranges else ():
        key = f"{ip} . {protocol} . {entry.port}"
        sets["KUBE-FIREWALL"][key] = None
        for source in entry.source_ranges:
            sets["KUBE-SOURCES"][f"{key} . {source}"] = None


def _serve(
    plan: IpvsPlan, entry: ServicePort, ip: str, port: int, endpoints: Sequence[Endpoint]
) -> None:
    """The first service that claims an address and port has it."""
    server = Server(entry.affinity_seconds, tuple((each.ip, each.port) for each in endpoints))
    plan.servers.setdefault(VirtualServer(entry.protocol, ip, port), server)


def _outer_fronts(entry: ServicePort, node_addresses: Sequence[str]) -> Iterator[tuple[str, int]]:
    for ip in entry.external_ips:
        yield ip, entry.port
    if entry.node_port:
        for ip in node_addresses:
            yield ip, entry.node_port


def static_rules(cluster_cidr: str) -> str:
    """The table with empty sets, whatever was there before.

    Marks are given before the balancer changes a packet's destination, and masquerading happens
    after; what the interface alone makes local is refused before the balancer would pass it on to
    this node's own programs.
    """
    sets = "\n".join(f"  set {name} {{ {definition} }}" for name, definition in SETS.items())
    outsiders = f"ip saddr != {cluster_cidr} " if cluster_cidr else ""
    there = "ip daddr . meta l4proto . th dport"
    port = "fib daddr type local meta l4proto . th dport"
    mark = f"meta mark set meta mark or {MARK}"
    return f"""\
add table {TABLE}
delete table {TABLE}
table {TABLE} {{
{sets}
  chain KUBE-SERVICES {{
    {outsiders}{there} @KUBE-CLUSTER-IP {mark}
    {there} @KUBE-EXTERNAL-IP {mark}
    {port} @KUBE-NODE-PORT {mark}
    fib saddr type local {there} @KUBE-EXTERNAL-IP-LOCAL {mark}
    fib saddr type local {port} @KUBE-NODE-PORT-LOCAL {mark}
  }}
  chain KUBE-PROXY-FIREWALL {{
    {there} @KUBE-FIREWALL {there} . ip saddr != @KUBE-SOURCES drop
    {outsiders}fib saddr type != local {there} @KUBE-ELSEWHERE drop
  }}
  chain KUBE-IPVS-FILTER {{
    {there} @KUBE-CLUSTER-IP return
    {there} @KUBE-EXTERNAL-IP return
    {there} @KUBE-EXTERNAL-IP-LOCAL return
    {port} @KUBE-NODE-PORT return
    {port} @KUBE-NODE-PORT-LOCAL return
    reject
  }}
  chain prerouting {{
    type filter hook prerouting priority mangle
    ct state new jump KUBE-PROXY-FIREWALL
    jump KUBE-SERVICES
  }}
  chain output {{
    type filter hook output priority mangle
    ct state new jump KUBE-PROXY-FIREWALL
    jump KUBE-SERVICES
  }}
  chain input {{
    type filter hook input priority filter
    ct state new meta l4proto {{ tcp, udp, sctp }} ip daddr @KUBE-IPVS-IPS jump KUBE-IPVS-FILTER
  }}
  chain KUBE-POSTROUTING {{
    type nat hook postrouting priority srcnat
    {there} . ip saddr @KUBE-LOOP-BACK masquerade
    meta mark & {MARK} != 0 masquerade fully-random
  }}
}}
"""


def set_changes(old: IpvsPlan, new: IpvsPlan) -> str:
    """The input of `nft -f -` for the sets' elements; empty where nothing differs."""
    lines = []
    for name in SETS:
        was, wanted = old.sets[name], new.sets[name]
        gone = [each for each in was if each not in wanted]
        come = [each for each in wanted if each not in was]
        if gone:
            lines.append(f"delete element {TABLE} {name} {{ {', '.join(gone)} }}")
        if come:
            lines.append(f"add element {TABLE} {name} {{ {', '.join(come)} }}")
    return "\n".join(lines) + "\n" if lines else ""
