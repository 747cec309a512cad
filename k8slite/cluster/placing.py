"""Finds a place on this machine for a cluster: ports and ranges that no other one has.

The ports of components are below those that the kernel gives to outgoing connections and below
node ports, so that nothing takes one while its component is dead.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from k8slite.cluster.layout import Layout, NoSuchCluster, home, known
from k8slite.cluster.spec import PORTS_PER_CLUSTER, ClusterSpec, Place

__all__ = ["PortTaken", "is_free", "make_place"]

FIRST_PORT: Final = 20_000
SLOTS: Final = 200
USUAL_PORT: Final = 6443
OTHER_PORTS: Final = range(16_443, 17_443)


class PortTaken(Exception):
    """A port that the user asked for, or that the cluster had, is in use."""


def make_place(layout: Layout, spec: ClusterSpec) -> Place:
    """Choose a place and write it down with the spec. Raises PortTaken, OSError."""
    with _others(layout) as others:
        place = _choose(spec, others)
        layout.make()
        layout.write(spec, place)
        return place


def refresh_place(layout: Layout, spec: ClusterSpec, place: Place) -> Place:
    """The place of a stopped cluster, its inner ports chosen anew where somebody took them.

    The apiservers' port stays, since kubeconfigs name it. Raises PortTaken, OSError.
    """
    with _others(layout) as others:
        _demand(place.port)
        if not _is_free_slot(place.slot):
            place = _choose(spec, others, port=place.port)
        layout.write(spec, place)
        return place


@contextmanager
def _others(layout: Layout) -> Iterator[list[Place]]:
    """The places that are taken; no other `up` of this user chooses one meanwhile."""
    home().mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(home(), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        places = []
        for _, other in known():
            if other.root != layout.root:
                try:
                    places.append(other.read()[1])
                except NoSuchCluster:
                    continue
        yield places
    finally:
        os.close(lock)


def _choose(spec: ClusterSpec, others: list[Place], port: int = 0) -> Place:
    taken_ports = {other.port for other in others}
    taken_slots = {other.slot for other in others}
    port = port or spec.port
    if port:
        _demand(port)
    else:
        candidates = (USUAL_PORT, *OTHER_PORTS)
        port = next((p for p in candidates if p not in taken_ports and is_free(p)), 0)
        if not port:
            raise PortTaken("no free port for the apiservers: choose one with --port")
    for slot in range(SLOTS):
        if slot not in taken_slots and _is_free_slot(slot):
            return Place(port=port, slot=slot, first_port=_first_port(slot))
    raise PortTaken(f"no {PORTS_PER_CLUSTER} free ports in a row from {FIRST_PORT} on")


def _first_port(slot: int) -> int:
    return FIRST_PORT + slot * PORTS_PER_CLUSTER


def _is_free_slot(slot: int) -> bool:
    first = _first_port(slot)
    return all(is_free(port) for port in range(first, first + PORTS_PER_CLUSTER))


def _demand(port: int) -> None:
    if not is_free(port):
        raise PortTaken(
            f"port {port} of 127.0.0.1 is in use: end what listens there (ss -ltnp | grep :{port}) "
            "or choose another with --port"
        )


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen there now. Raises OSError for a port that is not ours to
    have (below 1024, for ordinary users)."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
        return True
