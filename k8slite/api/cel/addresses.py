"""IP addresses and networks. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any

__all__ = ["FUNCTIONS"]

_Ip = ipaddress.IPv4Address | ipaddress.IPv6Address


def _address(text: str) -> _Ip:
    if "%" in text:
        raise ValueError(f'IP Address "{text}" with zone value is not allowed')
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(f'IP Address "{text}" parse error during conversion from string') from None
    if found.version == 6 and found.ipv4_mapped is not None:
        raise ValueError(f'IPv4-mapped IPv6 address "{text}" is not allowed')
    return found


def _network(text: str) -> tuple[_Ip, ipaddress.IPv4Network | ipaddress.IPv6Network]:
    host, slash, length = text.partition("/")
    try:
        if not slash or not length.isdigit():
            raise ValueError
        return _address(host), ipaddress.ip_network(text, strict=False)
    except ValueError:
        message = f'network address parse error during conversion from string: "{text}"'
        raise ValueError(message) from None


def _is(parse: Callable[[str], Any]) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        try:
            parse(text)
        except ValueError:
            return False
        return True

    return check


def _cidr(text: str) -> str:
    address, network = _network(text)
    return f"{address}/{network.prefixlen}"


def _contains(outer: str, inner: str) -> bool:
    address, network = _network(inner)
    around = _network(outer)[1]
    return (
        address.version == around.version
        and network.prefixlen >= around.prefixlen
        and address in around
    )


def _is_global_unicast(address: _Ip) -> bool:
    return not (
        address.is_multicast
        or address.is_loopback
        or address.is_link_local
        or address.is_unspecified
        or str(address) == "255.255.255.255"
    )


def _is_local_multicast(address: _Ip) -> bool:
    if address.version == 4:
        return address in ipaddress.ip_network("224.0.0.0/24")
    return address.is_multicast and address.packed[1] & 0x0F == 2


def _of(check: Callable[[_Ip], bool]) -> Callable[[str], bool]:
    return lambda text: check(_address(text))


FUNCTIONS: tuple[tuple[str, str, str, Callable[..., Any]], ...] = (
    ("ip", "s", "I", lambda text: str(_address(text))),
    ("isIP", "s", "b", _is(_address)),
    ("ip.isCanonical", "s", "b", lambda text: str(_address(text)) == text),
    (".family", "I", "i", lambda text: _address(text).version),
    (".isUnspecified", "I", "b", _of(lambda ip: ip.is_unspecified)),
    (".isLoopback", "I", "b", _of(lambda ip: ip.is_loopback)),
    (".isLinkLocalUnicast", "I", "b", _of(lambda ip: ip.is_link_local)),
    (".isLinkLocalMulticast", "I", "b", _of(_is_local_multicast)),
    (".isGlobalUnicast", "I", "b", _of(_is_global_unicast)),
    ("cidr", "s", "C", _cidr),
    ("isCIDR", "s", "b", _is(_network)),
    (".containsIP", "CI", "b", lambda net, ip: _address(ip) in _network(net)[1]),
    (".containsIP", "Cs", "b", lambda net, ip: _address(ip) in _network(net)[1]),
    (".containsCIDR", "CC", "b", _contains),
    (".containsCIDR", "Cs", "b", _contains),
    (".ip", "C", "I", lambda text: str(_network(text)[0])),
    (".masked", "C", "C", lambda text: str(_network(text)[1])),
    (".prefixLength", "C", "i", lambda text: _network(text)[1].prefixlen),
)
