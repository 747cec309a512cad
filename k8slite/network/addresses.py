"""Addresses and names of a cluster's network. Pure: the same cluster gives the same ones."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Collection
from typing import Final

__all__ = ["AddressPool", "choose_subnet", "hardware_address", "host_interface", "namespace_name"]

NAMESPACE_PREFIX: Final = "k8slite"
_CLUSTER: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
INTERFACE_CHARACTERS: Final = 15


def check_cluster(cluster: str) -> None:
    if not _CLUSTER.fullmatch(cluster):
        raise ValueError(
            f"{cluster!r} is not a cluster name: lower-case letters, digits and dashes only"
        )


def namespace_name(cluster: str, part: str) -> str:
    """The network namespace of a part ("switch", "node-1"); dots keep clusters apart."""
    check_cluster(cluster)
    return f"{NAMESPACE_PREFIX}.{cluster}.{part}"


def host_interface(cluster: str) -> str:
    """The one interface on the host: at most 15 characters, readable where the name is short."""
    check_cluster(cluster)
    name = f"k8s-{cluster}"
    if len(name) <= INTERFACE_CHARACTERS:
        return name
    digest = hashlib.sha256(cluster.encode()).hexdigest()
    return f"k8s-{cluster[:4]}{digest[:7]}"


def pod_interface(pod_id: str) -> str:
    """The node's end of a pod's link."""
    return "veth" + hashlib.sha256(pod_id.encode()).hexdigest()[:11]


def hardware_address(address: str) -> str:
    """A MAC that follows from the IPv4 address, as CNI's plugins make it."""
    return (b"\x0a\x58" + ipaddress.IPv4Address(address).packed).hex(":")


def choose_subnet(
    cluster: str, taken: Collection[ipaddress.IPv4Network], within: str = "10.89.0.0/16"
) -> ipaddress.IPv4Network:
    """A /24 for the switch that overlaps nothing in `taken`, always the same if it is free.

    Raises ValueError where none is left.
    """
    candidates = list(ipaddress.IPv4Network(within).subnets(new_prefix=24))
    start = int.from_bytes(hashlib.sha256(cluster.encode()).digest()[:4], "big")
    for step in range(len(candidates)):
        candidate = candidates[(start + step) % len(candidates)]
        if not any(candidate.overlaps(network) for network in taken):
            return candidate
    raise ValueError(f"no free network is left in {within}")


class AddressPool:
    """A node's pod addresses: one a pod, handed out in turn, so that an address rests a while
    before it comes again. The first address of the range is the bridge's."""

    def __init__(self, pod_cidr: str) -> None:
        self.network = ipaddress.IPv4Network(pod_cidr)
        self.gateway = str(self.network[1])
        self._addresses: dict[str, str] = {}
        self._last = 1

    def __len__(self) -> int:
        return len(self._addresses)

    def get(self, pod_id: str) -> str | None:
        return self._addresses.get(pod_id)

    def take(self, pod_id: str) -> str:
        """The pod's address, the same each time. Raises ValueError where none is left."""
        address = self._addresses.get(pod_id)
        if address is not None:
            return address
        taken = set(self._addresses.values())
        usable = self.network.num_addresses - 3
        for step in range(usable):
            number = (self._last - 1 + step) % usable + 2
            address = str(self.network[number])
            if address not in taken:
                self._last = number
                self._addresses[pod_id] = address
                return address
        raise ValueError(f"no address is left in {self.network}: {len(taken)} pods have one")

    def give_back(self, pod_id: str) -> bool:
        """Whether the pod had one."""
        return self._addresses.pop(pod_id, None) is not None

    def to_json(self) -> dict[str, object]:
        return {"network": str(self.network), "addresses": self._addresses, "last": self._last}

    def load_json(self, stored: dict[str, object]) -> None:
        """Take over what `to_json` gave; a store of another range is ignored."""
        addresses, last = stored.get("addresses"), stored.get("last")
        if stored.get("network") == str(self.network) and isinstance(addresses, dict):
            self._addresses = {str(pod): str(address) for pod, address in addresses.items()}
            self._last = last if isinstance(last, int) else 1
