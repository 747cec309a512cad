"""Faults of the network and the disks, as context managers: the fault lasts while one is inside.

Faults add up: two partitions that overlap both have to end before a link heals. Hosts are given by
name, as themselves, or as a list of either.
"""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Union

import trio

from netsim.fabric import Fabric
from netsim.link import Link

if TYPE_CHECKING:
    from netsim.disk import SimDisk
    from netsim.hosts import SimHost

__all__ = ["Faults", "NetworkFaults"]

HostLike = Union[str, "SimHost"]
Group = Union[str, "SimHost", Iterable[Union[str, "SimHost"]]]


class NetworkFaults(abc.ABC):
    """What can be wrong between hosts, simulated (World) or real (Relay)."""

    fabric: Fabric

    @abc.abstractmethod
    def host_names(self) -> list[str]:
        """Every host there is now."""

    def _group(self, group: Group) -> list[str]:
        if isinstance(group, str):
            return [group]
        if isinstance(group, Iterable):
            return [name for part in group for name in self._group(part)]
        return [group.name]

    def _between(self, sources: Group, targets: Group) -> list[Link]:
        return [
            self.fabric.link(source, target)
            for source in self._group(sources)
            for target in self._group(targets)
            if source != target
        ]

    @contextlib.contextmanager
    def _blocked(self, what: str, links: list[Link]) -> Iterator[None]:
        self.fabric.note(f"{what} begins")
        for link in links:
            link.blocks += 1
        try:
            yield
        finally:
            for link in links:
                link.blocks -= 1
            self.fabric.note(f"{what} ends")

    def one_way(self, source: Group, target: Group) -> contextlib.AbstractContextManager[None]:
        """Nothing gets from `source` to `target`; the way back works."""
        links = self._between(source, target)
        return self._blocked(f"one_way {self._group(source)} {self._group(target)}", links)

    def partition(self, a: Group, b: Group) -> contextlib.AbstractContextManager[None]:
        """Nothing gets through between the two groups."""
        links = self._between(a, b) + self._between(b, a)
        return self._blocked(f"partition {self._group(a)} {self._group(b)}", links)

    def isolate(self, host: HostLike) -> contextlib.AbstractContextManager[None]:
        """Cut a host off from every host that exists now."""
        (name,) = self._group(host)
        return self.partition(name, [other for other in self.host_names() if other != name])

    @contextlib.contextmanager
    def delay(
        self, source: Group, target: Group, seconds: float, jitter: float = 0.0
    ) -> Iterator[None]:
        """Everything from `source` to `target` takes longer."""
        links = self._between(source, target)
        self.fabric.note(f"delay {self._group(source)} {self._group(target)} {seconds} {jitter}")
        for link in links:
            link.add_delay(seconds, jitter)
        try:
            yield
        finally:
            for link in links:
                link.remove_delay(seconds, jitter)

    @contextlib.contextmanager
    def drop(self, source: Group, target: Group, probability: float) -> Iterator[None]:
        """Segments from `source` to `target` get lost, and cost their retransmission."""
        links = self._between(source, target)
        self.fabric.note(f"drop {self._group(source)} {self._group(target)} {probability}")
        for link in links:
            link.add_loss(probability)
        try:
            yield
        finally:
            for link in links:
                link.remove_loss(probability)

    @contextlib.contextmanager
    def narrow(self, source: Group, target: Group, bandwidth: float) -> Iterator[None]:
        """No more than `bandwidth` bytes a second get from `source` to `target`."""
        links = self._between(source, target)
        self.fabric.note(f"narrow {self._group(source)} {self._group(target)} {bandwidth}")
        for link in links:
            link.add_cap(bandwidth)
        try:
            yield
        finally:
            for link in links:
                link.remove_cap(bandwidth)


class Faults(NetworkFaults):
    """The fault vocabulary of a World: that of networks, and what can be wrong with disks."""

    hosts: dict[str, SimHost]

    def host_names(self) -> list[str]:
        return list(self.hosts)

    def _disks(self, host: HostLike) -> list[SimDisk]:
        (name,) = self._group(host)
        return self.hosts[name].platters()

    @contextlib.contextmanager
    def sync_errors(self, host: HostLike) -> Iterator[None]:
        """Every sync on the host fails with EIO."""
        disks = self._disks(host)
        for disk in disks:
            disk.sync_fails += 1
        try:
            yield
        finally:
            for disk in disks:
                disk.sync_fails -= 1

    @contextlib.contextmanager
    def slow_disk(self, host: HostLike, seconds: float) -> Iterator[None]:
        """Every sync on the host takes longer."""
        disks = self._disks(host)
        for disk in disks:
            disk.slowdown += seconds
        try:
            yield
        finally:
            for disk in disks:
                disk.slowdown -= seconds

    @contextlib.contextmanager
    def hung_disk(self, host: HostLike) -> Iterator[None]:
        """Syncs on the host do not return."""
        disks = [disk for disk in self._disks(host) if disk.hung is None]
        release = trio.Event()
        for disk in disks:
            disk.hung = release
        try:
            yield
        finally:
            for disk in disks:
                disk.hung = None
            release.set()

    @contextlib.contextmanager
    def full_disk(self, host: HostLike, capacity: float = 0.0) -> Iterator[None]:
        """Appends beyond `capacity` bytes fail with ENOSPC."""
        disks = self._disks(host)
        for disk in disks:
            disk.limits.append(capacity)
        try:
            yield
        finally:
            for disk in disks:
                disk.limits.remove(capacity)
