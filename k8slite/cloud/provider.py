"""What the controllers ask of a cloud, and the local one. Pure.

A provider is a plan, not a connection: it is asked for the whole of what there should be, and is
told what there is. A cloud beyond this machine would stand behind the same question.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Mapping
from typing import Final, Protocol

from k8slite.api.meta import Obj, key

__all__ = ["BalancerProvider", "LocalBalancers", "addresses_of", "is_balanced"]

ADDRESS_ANNOTATION: Final = "k8slite.io/load-balancer-ip"


def is_balanced(service: Obj) -> bool:
    """Whether it is ours to give it a load balancer: one of another class is another's."""
    spec = service["spec"]
    deleting = bool(service["metadata"].get("deletionTimestamp"))
    return spec.get("type") == "LoadBalancer" and not spec.get("loadBalancerClass") and not deleting


def addresses_of(service: Obj) -> list[str]:
    """The addresses that its status shows."""
    balancer = (service.get("status") or {}).get("loadBalancer") or {}
    return [each["ip"] for each in balancer.get("ingress") or () if each.get("ip")]


class BalancerProvider(Protocol):
    """Load balancers of a cloud."""

    def place(self, services: Iterable[Obj]) -> Mapping[str, str]:
        """Key of each service to its address; one that can have none is left out."""
        ...


class LocalBalancers:
    """Addresses of a pool, such as "10.89.7.128/25"; its last one, a broadcast address, is never
    given.

    A service keeps what its status shows; of two with the same, the older. One that asks for an
    address (spec.loadBalancerIP, or the annotation) gets that or none. All others get one that
    follows from their name, so that a service that is made anew mostly gets what it had.
    """

    def __init__(self, pool: str) -> None:
        self.network = ipaddress.IPv4Network(pool)
        self._size = self.network.num_addresses - 1

    def place(self, services: Iterable[Obj]) -> dict[str, str]:
        ours = sorted((each for each in services if is_balanced(each)), key=_age)
        placed: dict[str, str] = {}
        taken: set[str] = set()
        for keeps in (True, False):
            for service in ours:
                where = key(service)
                if where in placed:
                    continue
                address = self._kept(service) if keeps else self._new(service, taken)
                if address and address not in taken:
                    placed[where] = address
                    taken.add(address)
        return placed

    def _kept(self, service: Obj) -> str:
        shown, asked = addresses_of(service), _asked(service)
        if asked:
            return asked if asked in shown and self._has(asked) else ""
        return next((ip for ip in shown if self._has(ip)), "")

    def _new(self, service: Obj, taken: set[str]) -> str:
        asked = _asked(service)
        if asked:
            return asked if self._has(asked) else ""
        digest = hashlib.sha256(key(service).encode()).digest()
        first = int.from_bytes(digest[:4], "big")
        for step in range(self._size):
            address = str(self.network[(first + step) % self._size])
            if address not in taken:
                return address
        return ""

    def _has(self, address: str) -> bool:
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return False
        return found in self.network and found != self.network[-1]


def _asked(service: Obj) -> str:
    annotations = service["metadata"].get("annotations") or {}
    asked: str = service["spec"].get("loadBalancerIP") or annotations.get(ADDRESS_ANNOTATION, "")
    return asked


def _age(service: Obj) -> tuple[str, str]:
    return service["metadata"].get("creationTimestamp") or "", key(service)
