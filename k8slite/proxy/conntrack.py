"""Flows of UDP that lead to where nobody is any more, and how the kernel is made to forget them.

A connection of TCP ends and the next one is led anew. A client of UDP may go on from one port for
ever, and the kernel leads it where it led the first datagram: to a pod that has gone, or, from
before the service had endpoints, to nowhere. So after a change of a service over UDP, flows to its
addresses that are answered by none of its endpoints are forgotten.

pyroute2 is imported when the first flow might be stale.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from k8slite.proxy.table import Table

__all__ = ["FlowCleaner", "Fronts", "fronts_of", "is_stale"]

log = logging.getLogger(__name__)

Endpoints = frozenset[str]
FLOWS_MAX: Final = 100_000
"""Looked at in one go; what is beyond is left to time out."""


class Fronts(NamedTuple):
    """Where services over UDP are found, and who may answer. Only those with endpoints: without,
    the rules refuse."""

    addresses: Mapping[tuple[str, int], Endpoints]
    node_ports: Mapping[int, Endpoints]


def fronts_of(table: Table) -> Fronts:
    addresses: dict[tuple[str, int], Endpoints] = {}
    node_ports: dict[int, Endpoints] = {}
    for entry in table.values():
        if entry.protocol != "UDP" or not entry.endpoints:
            continue
        ips = frozenset(each.ip for each in (*entry.endpoints, *entry.leaving))
        for ip in (entry.cluster_ip, *entry.external_ips):
            addresses[ip, entry.port] = ips
        if entry.node_port:
            node_ports[entry.node_port] = ips
    return Fronts(addresses, node_ports)


def is_stale(fronts: Fronts, destination: str, port: int, answers: str) -> bool:
    """Of a flow to `destination` that `answers` answers."""
    known = fronts.addresses.get((destination, port))
    if known is None:
        known = fronts.node_ports.get(port)
        if known is None or answers == destination:  # a server of the node's own at that port
            return False
    return answers not in known


def open_kernel() -> Any:
    """pyroute2's Conntrack of the network namespace that the process is in."""
    from pyroute2 import Conntrack

    return Conntrack()


class FlowCleaner:
    """Follows the table; call `sync` after its rules are written."""

    def __init__(self, open_kernel: Callable[[], Any] = open_kernel) -> None:
        self._open_kernel = open_kernel
        self._cleaned = fronts_of({})

    async def sync(self, table: Table) -> list[str]:
        """What could not be done, one sentence."""
        fronts = fronts_of(table)
        if fronts == self._cleaned:
            return []
        try:
            forgotten = self._clean(fronts)
        except OSError as error:
            return [f"old flows of UDP services are not forgotten: {error}"]
        self._cleaned = fronts
        if forgotten:
            log.info("forgot flows=%d", forgotten)
        return []

    def _clean(self, fronts: Fronts) -> int:
        from pyroute2 import NetlinkError

        with contextlib.closing(self._open_kernel()) as kernel:
            try:
                stale = list(_stale(kernel, fronts))
            except NetlinkError as error:
                raise OSError(error.code, f"can't list flows: {error}") from error
            for flow in stale:
                try:
                    kernel.entry("del", tuple_orig=flow)
                except NetlinkError as error:
                    log.debug("flow=%s error=%s", flow, error)  # it has ended meanwhile
        return len(stale)


def _stale(kernel: Any, fronts: Fronts) -> Iterator[Any]:
    for number, flow in enumerate(kernel.dump_entries()):
        if number >= FLOWS_MAX:
            return
        there, back = flow.tuple_orig, flow.tuple_reply
        if there.proto == socket.IPPROTO_UDP and is_stale(
            fronts, str(there.daddr), int(there.dport), str(back.saddr)
        ):
            yield there
