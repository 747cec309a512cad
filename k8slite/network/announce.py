"""Who answers at a load balancer's address on the switch, and how the others hear of it.

One ready node holds each address: it has it on its link, and answers for it on the wire, so that
the host and everybody on the switch reach it; the node's proxy does the rest. Which node that is
follows from the names alone (the highest hash), so nodes need not talk, and when one is lost only
its addresses move. Services whose external traffic policy is Local are held where they have ready
endpoints.

`holder` is pure. An address that comes to a node is told to all at once (gratuitous ARP), else
neighbours would go on asking the old one until they forget it.
"""

from __future__ import annotations

import hashlib
import logging
import socket
import struct
from collections.abc import Iterable, Sequence
from typing import Final

import trio

from k8slite.api.kinds import ENDPOINT_SLICES, NODES, SERVICES
from k8slite.api.meta import Obj, condition_is, key
from k8slite.client.informer import SharedInformers
from k8slite.network.namespaces import inside
from k8slite.network.netlink import Rtnl
from k8slite.network.topology import UPLINK

__all__ = ["Announcer", "holder", "plan"]

log = logging.getLogger(__name__)

SERVICE_NAME_LABEL: Final = "kubernetes.io/service-name"
GATHER_SECONDS: Final = 0.1
RETRY_SECONDS: Final = 5.0
ETHERTYPE_ARP: Final = 0x0806
BROADCAST: Final = b"\xff" * 6


def holder(address: str, nodes: Iterable[str]) -> str:
    """The node that holds an address; "" where there is none."""
    return max(
        nodes, key=lambda node: hashlib.sha256(f"{address} {node}".encode()).digest(), default=""
    )


def plan(
    services: Iterable[Obj], slices: Iterable[Obj], nodes: Iterable[Obj], pool: str
) -> dict[str, str]:
    """Address to the node that holds it. `pool`: others, of clouds that are not ours, are left
    alone; such as "10.89.7."."""
    ready = sorted(
        node["metadata"]["name"]
        for node in nodes
        if condition_is(node, "Ready") and not node["metadata"].get("deletionTimestamp")
    )
    homes: dict[str, set[str]] = {}
    for each in slices:
        service = (each["metadata"].get("labels") or {}).get(SERVICE_NAME_LABEL, "")
        where = homes.setdefault(f"{each['metadata']['namespace']}/{service}", set())
        for endpoint in each.get("endpoints") or ():
            if (endpoint.get("conditions") or {}).get("ready") is not False:
                where.add(endpoint.get("nodeName") or "")
    held: dict[str, str] = {}
    for service in sorted(services, key=key):
        spec = service["spec"]
        if spec.get("type") != "LoadBalancer":
            continue
        candidates: Sequence[str] = ready
        if spec.get("externalTrafficPolicy") == "Local":
            candidates = [node for node in ready if node in homes.get(key(service), ())]
        balancer = (service.get("status") or {}).get("loadBalancer") or {}
        for ingress in balancer.get("ingress") or ():
            ip = ingress.get("ip") or ""
            if ip.startswith(pool) and ip not in held:
                held[ip] = holder(ip, candidates or ready)
    return held


class Announcer:
    """Keeps a node's addresses until cancelled. `netns` None: the current namespace."""

    def __init__(
        self, informers: SharedInformers, node: str, pool: str, *, netns: str | None = None
    ) -> None:
        self._node = node
        self._pool = pool
        self._netns = netns
        self._informers = [informers.of(kind) for kind in (SERVICES, ENDPOINT_SLICES, NODES)]
        self._dirty = trio.Event()
        self.addresses: list[str] = []
        """What this node holds."""
        self.problems: list[str] = []
        for informer in self._informers:
            informer.add_handler(self._changed)

    def _changed(self, old: Obj | None, new: Obj | None) -> None:
        self._dirty.set()

    async def run(self) -> None:
        for informer in self._informers:
            await informer.wait_synced()
        services, slices, nodes = self._informers
        first = True
        held: dict[str, str] = {}
        while True:
            self._dirty = trio.Event()
            before, held = held, plan(services.list(), slices.list(), nodes.list(), self._pool)
            problems: list[str] = []
            if first or held != before:
                try:
                    self._keep([ip for ip, node in held.items() if node == self._node])
                    first = False
                except OSError as error:
                    first, problems = True, [f"addresses of load balancers: {error}"]
                    log.warning("node=%s problem=%s", self._node, problems[0])
            self.problems = problems
            await trio.sleep(GATHER_SECONDS)
            with trio.move_on_after(RETRY_SECONDS if problems else float("inf")):
                await self._dirty.wait()

    def _keep(self, wanted: list[str]) -> None:
        """Have these addresses and no others of the pool. Raises OSError."""
        with Rtnl(self._netns) as rtnl:
            present = {
                str(each.ip)
                for each in rtnl.addresses()
                if each.network.prefixlen == 32 and str(each.ip).startswith(self._pool)
            }
            for ip in sorted(present - set(wanted)):
                rtnl.delete_address(UPLINK, f"{ip}/32")
            for ip in sorted(set(wanted) - present):
                rtnl.add_address(UPLINK, f"{ip}/32")
                self._tell(ip)
        if present != set(wanted):
            log.info("node=%s addresses=%s", self._node, ",".join(wanted))
        self.addresses = wanted

    def _tell(self, ip: str) -> None:
        with inside(self._netns):
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHERTYPE_ARP))
        with sock:
            sock.bind((UPLINK, ETHERTYPE_ARP))
            hardware: bytes = sock.getsockname()[4]
            address = socket.inet_aton(ip)
            head = BROADCAST + hardware + struct.pack("!HHHBBH", ETHERTYPE_ARP, 1, 0x0800, 6, 4, 1)
            sock.send(head + hardware + address + BROADCAST + address)
