"""The kernel's balancer over netlink: what there is, and each step as one request.

pyroute2 has no types. Raises NetlinkError and OSError.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from k8slite.proxy.ipvs_plan import Destination, VirtualServer
from k8slite.proxy.ipvs_steps import (
    AddDestination,
    AddServer,
    DeleteDestination,
    DeleteServer,
    Live,
    SetServer,
    SetWeight,
    Step,
)

__all__ = ["INTERFACE", "Kernel"]

INTERFACE: Final = "kube-ipvs0"
PERSISTENT: Final = 0x1
ALL_FLAGS: Final = 0xFFFFFFFF
MASQUERADE: Final = 0
"""How packets are forwarded: with their destination changed."""
NUMBERS: Final = {
    "TCP": socket.IPPROTO_TCP,
    "UDP": socket.IPPROTO_UDP,
    "SCTP": socket.IPPROTO_SCTP,
}
NAMES: Final = {int(number): name for name, number in NUMBERS.items()}
SYSCTLS: Final = {
    "vs/conntrack": "1",  # masquerading happens in conntrack
    "vs/expire_nodest_conn": "1",
    "vs/expire_quiescent_template": "1",  # affinity does not lead to an endpoint that drains
    "ip_forward": "1",
    # Load balancers' addresses are on this interface of every node: only who has one on the
    # switch as well may answer for it.
    "conf/all/arp_ignore": "1",
    "conf/all/arp_announce": "2",
}


class Kernel:
    """`balancer`, `links`: pyroute2's IPVS and IPRoute of one network namespace."""

    def __init__(self, balancer: Any, links: Any) -> None:
        self._balancer = balancer
        self._links = links

    def prepare(self) -> None:
        """Make the interface, and set how the kernel balances."""
        if not self._links.link_lookup(ifname=INTERFACE):
            self._links.link("add", ifname=INTERFACE, kind="dummy")
        for name, value in SYSCTLS.items():
            path = Path("/proc/sys/net/ipv4", name)
            if path.exists():
                path.write_text(value)

    def servers(self) -> dict[VirtualServer, Live]:
        """All virtual servers by address, of whoever."""
        found = {}
        for message in self._balancer.service("dump"):
            nla = message.get("service")
            protocol = NAMES.get(nla.get("protocol"))
            if protocol is None or nla.get("af") != socket.AF_INET:
                continue
            where = VirtualServer(protocol, _ip(nla.get("addr")), int(nla.get("port")))
            is_persistent = (nla.get("flags") or {}).get("flags", 0) & PERSISTENT
            live = Live(
                str(nla.get("sched_name")), int(nla.get("timeout") or 0) if is_persistent else 0
            )
            for end, weight, _ in self._destinations(where):
                live.weights[end] = weight
            found[where] = live
        return found

    def connections(
        self, servers: Iterable[VirtualServer]
    ) -> dict[tuple[VirtualServer, Destination], int]:
        """How many each endpoint has, also those that are ending."""
        return {
            (where, end): connections
            for where in servers
            for end, _, connections in self._destinations(where)
        }

    def _destinations(self, where: VirtualServer) -> Iterator[tuple[Destination, int, int]]:
        """(address, weight, connections)"""
        for message in self._balancer.dest("dump", service=_service(where)):
            nla = message.get("dest")
            connections = (nla.get("active_conns") or 0) + (nla.get("inact_conns") or 0)
            end = _ip(nla.get("addr")), int(nla.get("port"))
            yield end, int(nla.get("weight") or 0), connections

    def addresses(self) -> dict[str, None]:
        """Those of the interface."""
        found = self._links.link_lookup(ifname=INTERFACE)
        if not found:
            return {}
        dump = self._links.addr("dump", family=socket.AF_INET, index=found[0])
        return {str(each.get("address")): None for each in dump}

    def set_addresses(self, old: Iterable[str], new: Iterable[str]) -> None:
        """Change `old` into `new`."""
        found = self._links.link_lookup(ifname=INTERFACE)
        if not found:
            raise OSError(errno.ENODEV, f"there is no interface {INTERFACE}")
        was, wanted = dict.fromkeys(old), dict.fromkeys(new)
        for ip in wanted:
            if ip not in was:
                self._links.addr("replace", index=found[0], address=f"{ip}/32")
        for ip in was:
            if ip not in wanted:
                self._links.addr("del", index=found[0], address=f"{ip}/32")

    def delete_interface(self) -> None:
        if self._links.link_lookup(ifname=INTERFACE):
            self._links.link("del", ifname=INTERFACE)

    def carry_out(self, step: Step) -> None:
        """One request."""
        REQUESTS[type(step)](self._balancer, step)


def _ip(value: Any) -> str:
    """An IPv4 address, in whatever shape pyroute2 hands it out: it may meet the address before its
    family."""
    if isinstance(value, str):
        if "." in value:
            return value
        value = bytes.fromhex(value.replace(":", ""))
    return socket.inet_ntoa(bytes(value)[:4])


def _service(where: VirtualServer, scheduler: str = "", persistence: int = 0) -> Any:
    from pyroute2 import IPVSService

    more: dict[str, Any] = {}
    if scheduler:
        flags = PERSISTENT if persistence else 0
        more = {
            "sched_name": scheduler,
            "timeout": persistence,
            "flags": {"flags": flags, "mask": ALL_FLAGS},
            "netmask": "255.255.255.255",
        }
    number = NUMBERS[where.protocol]
    return IPVSService(addr=where.ip, port=where.port, protocol=number, **more)


def _destination(end: Destination, weight: int = 0) -> Any:
    from pyroute2 import IPVSDest

    return IPVSDest(addr=end[0], port=end[1], fwd_method=MASQUERADE, weight=weight)


def _write_server(verb: str) -> Callable[[Any, Any], None]:
    def request(balancer: Any, step: AddServer | SetServer) -> None:
        balancer.service(verb, service=_service(step.where, step.scheduler, step.persistence))

    return request


def _write_destination(verb: str) -> Callable[[Any, Any], None]:
    def request(balancer: Any, step: AddDestination | SetWeight) -> None:
        dest = _destination(step.end, step.weight)
        balancer.dest(verb, service=_service(step.where), dest=dest)

    return request


def _delete_server(balancer: Any, step: DeleteServer) -> None:
    balancer.service("del", service=_service(step.where))


def _delete_destination(balancer: Any, step: DeleteDestination) -> None:
    balancer.dest("del", service=_service(step.where), dest=_destination(step.end))


REQUESTS: Final[dict[type[Step], Callable[[Any, Any], None]]] = {
    AddServer: _write_server("add"),
    SetServer: _write_server("set"),
    DeleteServer: _delete_server,
    AddDestination: _write_destination("add"),
    SetWeight: _write_destination("set"),
    DeleteDestination: _delete_destination,
}
