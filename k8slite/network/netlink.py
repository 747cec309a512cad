"""The network's requests to the kernel: links, addresses, routes. All of them go through pyroute2.

Owns its handles on pyroute2, which has no types: what comes out of here has. Assumes that a handle
is closed by the thread that opened it; pyroute2 would open another socket for another thread.
Never awaits: pyroute2's synchronous face runs a loop of its own for each request, on a selector of
its own, which leaves nothing running and takes no notice of trio around it. A request takes
about half a millisecond, and removing links as long as the kernel needs.

A socket belongs to the network namespace in which it was made, whatever its thread does later. So
`Rtnl(namespace)` makes it inside of `namespaces.inside`; pyroute2's own way, `IPRoute(netns=...)`,
forks a helper process for each socket, which is slow, and not right in a process with threads.

Everything raises OSError with the kernel's errno and what was tried. pyroute2 takes some 0.35 s
of processor time to import: only what works as root imports this module.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from pyroute2 import IPRoute, NetlinkError

from k8slite.network.namespaces import inside

__all__ = ["Rtnl"]


@contextlib.contextmanager
def _trying(what: str) -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        raise OSError(error.code, f"{os.strerror(error.code)}: can't {what}") from error


class Rtnl:
    """A routing netlink socket in a network namespace (a file; None for the current one)."""

    def __init__(self, namespace: str | None = None) -> None:
        with inside(namespace):
            self._kernel: Any = IPRoute()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._kernel.close()

    # --- links ----------------------------------------------------------------------------------

    def links(self) -> list[str]:
        """The names of all interfaces."""
        with _trying("list the interfaces"):
            return [str(link.get("ifname")) for link in self._kernel.link("dump")]

    def index(self, name: str) -> int:
        """Raises OSError (ENODEV) where there is no such interface."""
        with _trying(f"find the interface {name}"):
            (link,) = self._kernel.link("get", ifname=name)
            return int(link["index"])

    def has_link(self, name: str) -> bool:
        try:
            self.index(name)
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
            return False
        return True

    def add_veth(
        self, name: str, peer: str, peer_namespace: str, *, bridge: str | None = None
    ) -> None:
        """A pair: one end here, up and perhaps in a bridge, the other in another namespace."""
        port = {} if bridge is None else {"master": self.index(bridge)}
        fd = os.open(peer_namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            other = {"ifname": peer, "net_ns_fd": fd}
            with _trying(f"make the link {name}"):
                self._kernel.link("add", ifname=name, kind="veth", state="up", peer=other, **port)
        finally:
            os.close(fd)

    def add_bridge(self, name: str, hardware_address: str) -> None:
        """A bridge that is up; its address is fixed, else it changes with its ports."""
        with _trying(f"make the bridge {name}"):
            self._kernel.link(
                "add", ifname=name, kind="bridge", state="up", address=hardware_address
            )

    def set_up(self, name: str) -> None:
        with _trying(f"set the interface {name} up"):
            self._kernel.link("set", ifname=name, state="up")

    def delete_link(self, name: str) -> bool:
        """Whether there was such an interface to delete."""
        try:
            with _trying(f"delete the interface {name}"):
                self._kernel.link("del", ifname=name)
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
            return False
        return True

    # --- addresses and routes -------------------------------------------------------------------

    def addresses(self) -> list[ipaddress.IPv4Interface]:
        """All IPv4 addresses of this namespace with their networks."""
        with _trying("list the addresses"):
            return [
                ipaddress.IPv4Interface(f"{found.get('address')}/{found['prefixlen']}")
                for found in self._kernel.addr("dump", family=socket.AF_INET)
            ]

    def add_address(self, name: str, address: str) -> None:
        """`address` such as "10.244.1.1/24"; one that the interface has already stays."""
        index = self.index(name)
        with _trying(f"give {name} the address {address}"):
            self._kernel.addr("replace", index=index, address=address)

    def delete_address(self, name: str, address: str) -> None:
        """One that the interface does not have is no error."""
        index = self.index(name)
        try:
            with _trying(f"take the address {address} from {name}"):
                self._kernel.addr("del", index=index, address=address)
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise

    def set_route(
        self, destination: str, *, gateway: str | None = None, link: str | None = None
    ) -> None:
        """Make or replace the route to "10.244.2.0/24" (or "0.0.0.0/0"), over a gateway, or with
        none over a link, whose far end is then on the same wire."""
        route: dict[str, object] = {"dst": destination}
        if gateway is not None:
            route["gateway"] = gateway
        else:
            route["scope"] = "link"
        if link is not None:
            route["oif"] = self.index(link)
        with _trying(f"set the route to {destination}"):
            self._kernel.route("replace", **route)
