"""What all hosts of a world share: calendar, diary, wires, and who is called how.

Owns the links, made on first use, and the directory of host names and addresses. Knows nothing of
streams, disks or tasks. Time is asked of a callable, so that it also works outside trio.
"""

from __future__ import annotations

import random
import socket
import zlib
from collections.abc import Callable

from netsim.life import Machine
from netsim.link import Link, LinkSettings
from netsim.seeds import stream
from netsim.timeline import Timeline
from netsim.trace import Trace

__all__ = ["Fabric"]

LOOPBACK = LinkSettings(latency=0.00002, jitter=0.00001)


class Fabric:
    """The wires between machines, and the calendar of what travels on them."""

    def __init__(
        self, seed: int, settings: LinkSettings, now: Callable[[], float], trace: Trace
    ) -> None:
        self.seed = seed
        self.settings = settings
        self.now = now
        self.trace = trace
        self.timeline = Timeline()
        self.machines: dict[str, Machine] = {}
        self._links: dict[tuple[str, str], Link] = {}
        self._owners: dict[str, str] = {}
        self._connections = 0

    def random(self, purpose: str) -> random.Random:
        return stream(self.seed, purpose)

    def note(self, line: str) -> None:
        """Write a line into the diary."""
        self.trace.add(self.now(), line)

    def note_data(self, what: str, data: bytes) -> None:
        """Write down bytes by their length and checksum."""
        self.trace.add(self.now(), f"{what} {len(data)} {zlib.crc32(data):08x}")

    def next_connection(self) -> int:
        self._connections += 1
        return self._connections

    def link(self, source: str, target: str) -> Link:
        """The wire from one host to another, by host name."""
        link = self._links.get((source, target))
        if link is None:
            settings = LOOPBACK if source == target else self.settings
            rng = self.random(f"link {source} {target}")
            link = self._links[source, target] = Link(source, target, settings, rng)
        return link

    def links(self) -> list[Link]:
        """The wires used so far, oldest first."""
        return list(self._links.values())

    def own(self, address: str, host: str) -> None:
        """Give an address (or another name) to a host; ValueError if another host has it."""
        if self._owners.setdefault(address, host) != host:
            raise ValueError(f"{address} belongs to {self._owners[address]} already")

    def resolve(self, address: str, asker: str) -> tuple[str, str]:
        """(host name, address) that `address` stands for, seen from the host `asker`.

        A loopback address that no host owns is the asker's own. Raises socket.gaierror.
        """
        owner = self._owners.get(address)
        if owner is not None:
            return owner, address
        if address in ("localhost", "::1") or address.startswith("127."):
            return asker, "127.0.0.1" if address == "localhost" else address
        raise socket.gaierror(socket.EAI_NONAME, f"Name or service not known: {address!r}")
