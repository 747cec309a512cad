"""Finds a place on this machine for a cluster: ports and ranges that no other one has.

The ports of components are below those that the kernel gives to outgoing connections and below
node ports, so that nothing takes one while its component is dead. A place is found and held in one
step: the sockets in `Held` go to the supervisor, so that no other cluster of this machine, of
whichever user and home, comes between.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs

from k8slite.cluster.layout import Layout, NoSuchCluster, home, known
from k8slite.cluster.spec import PORTS_PER_CLUSTER, ClusterSpec, Place
from k8slite.network.addresses import choose_subnet, host_interface

__all__ = ["Held", "PortTaken", "is_free", "make_place", "refresh_place"]

FIRST_PORT: Final = 20_000
SLOTS: Final = 200
USUAL_PORT: Final = 6443
OTHER_PORTS: Final = range(16_443, 17_443)
LOOPBACK: Final = "127.0.0.1"
BACKLOG: Final = 1024


class PortTaken(Exception):
    """A port that the user asked for, or that the cluster had, cannot be had; for the user."""


@attrs.frozen
class Held:
    """A place, and what keeps others from it as long as it is open: the listening socket of all
    apiservers, and the block's last port."""

    place: Place
    api: socket.socket
    block: socket.socket

    def close(self) -> None:
        self.api.close()
        self.block.close()


def make_place(layout: Layout, spec: ClusterSpec) -> Held:
    """Choose a place and write it down with the spec. Raises PortTaken, OSError."""
    with _others(layout) as others, contextlib.ExitStack() as undo:
        api = undo.enter_context(_hold_api_port(spec.port, others))
        port: int = api.getsockname()[1]
        slot, block = _hold_slot(layout, others)
        undo.enter_context(block)
        place = Place(port=port, slot=slot, first_port=_first_port(slot), relayed=spec.relayed)
        place = _with_network(place, layout, spec, others)
        layout.write(spec, place)
        undo.pop_all()
        return Held(place, api, block)


def refresh_place(layout: Layout, spec: ClusterSpec, place: Place) -> Held:
    """The place of a stopped cluster, its inner ports chosen anew where somebody took them.

    The apiservers' port stays, since kubeconfigs name it. Raises PortTaken, OSError.
    """
    with _others(layout) as others, contextlib.ExitStack() as undo:
        api = undo.enter_context(_hold_former_port(place.port, others))
        block = _hold_block(place.slot)
        if block is None:
            slot, block = _hold_slot(layout, others)
            place = place.moved(slot, _first_port(slot))
        undo.enter_context(block)
        place = _with_network(place, layout, spec, others)
        layout.write(spec, place)
        undo.pop_all()
        return Held(place, api, block)


@contextmanager
def _others(layout: Layout) -> Iterator[dict[str, Place]]:
    """The places of other clusters by name; no other `up` of this home chooses one meanwhile."""
    home().mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(home(), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        places = {}
        for name, other in known():
            if other.root != layout.root:
                with contextlib.suppress(NoSuchCluster):
                    places[name] = other.read()[1]
        yield places
    finally:
        os.close(lock)


# --- the apiservers' port ------------------------------------------------------------------------


def _hold_api_port(wanted: int, others: dict[str, Place]) -> socket.socket:
    """It listens at once: two sockets that only are bound may share a port."""
    if wanted:
        sock = _listen(wanted)
        if sock is None:
            raise PortTaken(_who_has(wanted, others))
        return sock
    taken = {place.port for place in others.values()}
    for port in (USUAL_PORT, *OTHER_PORTS):
        if port not in taken and (sock := _listen(port)) is not None:
            return sock
    raise PortTaken("no free port for the apiservers: choose one with --port")


def _hold_former_port(port: int, others: dict[str, Place]) -> socket.socket:
    sock = _listen(port)
    if sock is None:
        words = _who_has(port, others).removesuffix(" or choose another with --port")
        raise PortTaken(f"{words}; kubeconfigs name that port, so it can't be changed")
    return sock


def _listen(port: int) -> socket.socket | None:
    """None where somebody else listens. Raises PortTaken for a port that is not ours to have."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((LOOPBACK, port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            return None
        if error.errno == errno.EACCES:
            raise PortTaken(
                f"port {port} is only for root: choose one from 1024 on with --port"
            ) from error
        raise
    return sock


def _who_has(port: int, others: dict[str, Place]) -> str:
    names = [f" by cluster {name!r}" for name, place in others.items() if place.port == port]
    return (
        f"port {port} of {LOOPBACK} is in use{''.join(names)}: end what listens there "
        f"(ss -ltnp | grep :{port}) or choose another with --port"
    )


# --- the block of inner ports --------------------------------------------------------------------


def _hold_slot(layout: Layout, others: dict[str, Place]) -> tuple[int, socket.socket]:
    """A block that nobody has. The search begins at the directory's own number, so that stopped
    clusters of other homes, of which we know nothing, seldom lose theirs."""
    taken = {place.slot for place in others.values()}
    first = hashlib.sha256(str(layout.root).encode()).digest()[0]
    for step in range(SLOTS):
        slot = (first + step) % SLOTS
        if slot not in taken and (block := _hold_block(slot)) is not None:
            return slot, block
    raise PortTaken(f"no {PORTS_PER_CLUSTER} free ports in a row from {FIRST_PORT} on")


def _first_port(slot: int) -> int:
    return FIRST_PORT + slot * PORTS_PER_CLUSTER


def _hold_block(slot: int) -> socket.socket | None:
    """None where one of its ports is in use. Without SO_REUSEADDR nobody else can bind it."""
    *ports, sign = range(_first_port(slot), _first_port(slot) + PORTS_PER_CLUSTER)
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.bind((LOOPBACK, sign))
    except OSError as error:
        sock.close()
        if error.errno != errno.EADDRINUSE:
            raise
        return None
    if all(is_free(port) for port in ports):
        return sock
    sock.close()
    return None


# --- the network of nodes that are namespaces ----------------------------------------------------


def _with_network(
    place: Place, layout: Layout, spec: ClusterSpec, others: dict[str, Place]
) -> Place:
    """The place with a range for the nodes' switch: the one it had, if nobody has it now."""
    if not spec.bridged:
        return place
    name = layout.network(spec.name)
    taken = _routed(but=host_interface(name))
    taken += [ipaddress.IPv4Network(p.subnet) for p in others.values() if p.subnet]
    if not place.subnet or any(ipaddress.IPv4Network(place.subnet).overlaps(n) for n in taken):
        try:
            place = attrs.evolve(place, subnet=str(choose_subnet(name, taken)))
        except ValueError as error:
            raise PortTaken(f"no address range for the nodes: {error}") from error
    return attrs.evolve(place, bridge=str(ipaddress.IPv4Network(place.subnet)[1]))


def _routed(*, but: str) -> list[ipaddress.IPv4Network]:
    """The networks that the host has a route to, but for one interface and the default routes."""
    found = []
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        interface, destination, _, _, _, _, _, mask, *_ = line.split()
        if interface != but and int(mask, 16):
            address, bits = (struct.pack("=I", int(word, 16)) for word in (destination, mask))
            network = f"{ipaddress.IPv4Address(address)}/{ipaddress.IPv4Address(bits)}"
            found.append(ipaddress.IPv4Network(network))
    return found


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Whether a server could listen there now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return False
        return True
