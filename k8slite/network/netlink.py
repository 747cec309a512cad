"""The few rtnetlink requests that a network of veths and bridges needs.

Why not a library: importing pyroute2 costs 0.6 s of processor time, in every kubelet of every
start; these requests are a page of `struct`, and each takes the kernel's time alone.

A socket belongs to the network namespace in which it was made, whatever its thread does later:
`Rtnl(namespace)` enters the namespace, makes the socket and returns, without an await between.
All calls are synchronous and take well under a millisecond (a new veth pair some more).

Raises OSError with the kernel's errno and what was tried.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from types import TracebackType
from typing import Final, NamedTuple

from k8slite.network.namespaces import inside

__all__ = ["Link", "Rtnl"]

NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3
RTM_NEWLINK: Final = 16
RTM_DELLINK: Final = 17
RTM_GETLINK: Final = 18
RTM_NEWADDR: Final = 20
RTM_GETADDR: Final = 22
RTM_NEWROUTE: Final = 24

REQUEST: Final = 1
ACK: Final = 4
REPLACE: Final = 0x100
EXCL: Final = 0x200
CREATE: Final = 0x400
DUMP: Final = 0x300

IFLA_ADDRESS: Final = 1
IFLA_IFNAME: Final = 3
IFLA_MASTER: Final = 10
IFLA_LINKINFO: Final = 18
IFLA_NET_NS_FD: Final = 28
IFLA_INFO_KIND: Final = 1
IFLA_INFO_DATA: Final = 2
VETH_INFO_PEER: Final = 1
IFA_ADDRESS: Final = 1
IFA_LOCAL: Final = 2
RTA_DST: Final = 1
RTA_OIF: Final = 4
RTA_GATEWAY: Final = 5
IFF_UP: Final = 1
RTNH_F_ONLINK: Final = 4
RT_TABLE_MAIN: Final = 254
RTPROT_BOOT: Final = 3
SCOPE_UNIVERSE: Final = 0
SCOPE_LINK: Final = 253
RTN_UNICAST: Final = 1

_HEADER: Final = struct.Struct("=IHHII")
_LINK: Final = struct.Struct("=BxHiII")
_ADDRESS: Final = struct.Struct("=BBBBI")
_ROUTE: Final = struct.Struct("=BBBBBBBBI")
_ATTRIBUTE: Final = struct.Struct("=HH")


class Link(NamedTuple):
    """An interface; `master` is the index of its bridge, 0 without one."""

    index: int  # type: ignore[assignment]  # shadows tuple.index, which nobody needs here
    name: str
    master: int
    up: bool


def _attribute(kind: int, payload: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(payload)
    return _ATTRIBUTE.pack(length, kind) + payload + bytes(-length % 4)


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("=I", value))


def _name(name: str) -> bytes:
    assert 0 < len(name) <= 15, name
    return _attribute(IFLA_IFNAME, name.encode() + b"\0")


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if length < _ATTRIBUTE.size:
            return
        yield kind & 0x3FFF, data[_ATTRIBUTE.size : length]
        data = data[length + -length % 4 :]


class Rtnl:
    """A routing netlink socket in a network namespace (a path; None for the current one)."""

    def __init__(self, namespace: str | None = None) -> None:
        with inside(namespace):
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC)
        self._socket.bind((0, 0))
        self._sequence = 0

    def __enter__(self) -> Rtnl:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    # --- links ----------------------------------------------------------------------------------

    def links(self) -> dict[str, Link]:
        """All interfaces by name."""
        found = {}
        for body in self._dump(RTM_GETLINK, _LINK.pack(0, 0, 0, 0, 0)):
            _, _, index, flags, _ = _LINK.unpack_from(body)
            name, master = "", 0
            for attribute, value in _attributes(body[_LINK.size :]):
                if attribute == IFLA_IFNAME:
                    name = value.rstrip(b"\0").decode()
                elif attribute == IFLA_MASTER:
                    master = int.from_bytes(value, "little")
            found[name] = Link(index, name, master, bool(flags & IFF_UP))
        return found

    def index(self, name: str) -> int:
        """Raises OSError (ENODEV) where there is no such interface."""
        link = self.links().get(name)
        if link is None:
            raise OSError(19, f"no interface {name}")
        return link.index

    def add_veth(self, name: str, peer: str, peer_namespace: str, master: int = 0) -> int:
        """A pair: one end here, up and perhaps in a bridge, the other in another namespace.

        Gives the index of the end here.
        """
        fd = os.open(peer_namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            other = _LINK.pack(0, 0, 0, 0, 0) + _name(peer) + _number(IFLA_NET_NS_FD, fd)
            data = _attribute(VETH_INFO_PEER, other)
            self._add_link(name, "veth", data, master)
        finally:
            os.close(fd)
        return self.index(name)

    def add_bridge(self, name: str, mac: bytes) -> int:
        """A bridge that is up; its address is fixed, else it changes with its ports."""
        self._add_link(name, "bridge", b"", 0, _attribute(IFLA_ADDRESS, mac))
        return self.index(name)

    def _add_link(self, name: str, kind: str, data: bytes, master: int, more: bytes = b"") -> None:
        info = _attribute(IFLA_INFO_KIND, kind.encode())
        if data:
            info += _attribute(IFLA_INFO_DATA, data)
        body = _LINK.pack(0, 0, 0, IFF_UP, IFF_UP) + _name(name) + more
        body += _attribute(IFLA_LINKINFO, info)
        if master:
            body += _number(IFLA_MASTER, master)
        self._do(RTM_NEWLINK, CREATE | EXCL, body, f"make {kind} {name}")

    def set_up(self, index: int) -> None:
        self._do(RTM_NEWLINK, 0, _LINK.pack(0, 0, index, IFF_UP, IFF_UP), f"set {index} up")

    def delete_link(self, name: str) -> bool:
        """Whether there was such an interface to delete."""
        link = self.links().get(name)
        if link is None:
            return False
        try:
            self._do(RTM_DELLINK, 0, _LINK.pack(0, 0, link.index, 0, 0), f"delete {name}")
        except OSError as error:
            if error.errno != 19:
                raise
            return False
        return True

    # --- addresses and routes -------------------------------------------------------------------

    def addresses(self) -> list[ipaddress.IPv4Interface]:
        """All IPv4 addresses of this namespace with their networks."""
        found = []
        for body in self._dump(RTM_GETADDR, _ADDRESS.pack(socket.AF_INET, 0, 0, 0, 0)):
            prefix = body[1]
            for attribute, value in _attributes(body[_ADDRESS.size :]):
                if attribute == IFA_ADDRESS:
                    address = ipaddress.IPv4Address(value)
                    found.append(ipaddress.IPv4Interface(f"{address}/{prefix}"))
        return found

    def add_address(self, index: int, address: str) -> None:
        """`address` such as "10.244.1.1/24"."""
        interface = ipaddress.IPv4Interface(address)
        packed = interface.ip.packed
        body = _ADDRESS.pack(socket.AF_INET, interface.network.prefixlen, 0, 0, index)
        body += _attribute(IFA_LOCAL, packed) + _attribute(IFA_ADDRESS, packed)
        self._do(RTM_NEWADDR, CREATE | REPLACE, body, f"add address {address}")

    def set_route(
        self,
        destination: str,
        *,
        gateway: str | None = None,
        index: int = 0,
        onlink: bool = False,
    ) -> None:
        """Make or replace the route to "10.244.2.0/24" (or "0.0.0.0/0"), over a gateway or a link.

        `onlink`: the gateway is reached over that link although no network says so.
        """
        network = ipaddress.IPv4Network(destination)
        scope = SCOPE_UNIVERSE if gateway else SCOPE_LINK
        body = _ROUTE.pack(
            socket.AF_INET,
            network.prefixlen,
            0,
            0,
            RT_TABLE_MAIN,
            RTPROT_BOOT,
            scope,
            RTN_UNICAST,
            RTNH_F_ONLINK if onlink else 0,
        )
        if network.prefixlen:
            body += _attribute(RTA_DST, network.network_address.packed)
        if gateway:
            body += _attribute(RTA_GATEWAY, ipaddress.IPv4Address(gateway).packed)
        if index:
            body += _number(RTA_OIF, index)
        self._do(RTM_NEWROUTE, CREATE | REPLACE, body, f"set route to {destination}")

    # --- messages -------------------------------------------------------------------------------

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        self._sequence += 1
        header = _HEADER.pack(_HEADER.size + len(body), kind, REQUEST | flags, self._sequence, 0)
        self._socket.send(header + body)

    def _receive(self) -> Iterator[tuple[int, bytes]]:
        """(type, body) of the messages of one datagram that answer the last request."""
        data = self._socket.recv(1 << 20)
        while len(data) >= _HEADER.size:
            length, kind, _, sequence, _ = _HEADER.unpack_from(data)
            if sequence == self._sequence:
                yield kind, data[_HEADER.size : length]
            data = data[length + -length % 4 :]

    def _do(self, kind: int, flags: int, body: bytes, what: str) -> None:
        self._send(kind, ACK | flags, body)
        while True:
            for answer, payload in self._receive():
                if answer == NLMSG_ERROR:
                    code = -int.from_bytes(payload[:4], "little", signed=True)
                    if code:
                        raise OSError(code, f"{os.strerror(code)}: can't {what}")
                    return

    def _dump(self, kind: int, body: bytes) -> list[bytes]:
        self._send(kind, DUMP, body)
        found: list[bytes] = []
        while True:
            for answer, payload in self._receive():
                if answer == NLMSG_DONE:
                    return found
                if answer == NLMSG_ERROR:
                    code = -int.from_bytes(payload[:4], "little", signed=True)
                    raise OSError(code, f"{os.strerror(code)}: can't list")
                found.append(payload)
