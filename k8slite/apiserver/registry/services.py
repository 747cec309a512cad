"""Services: their addresses and node ports, taken in the same commit as the Service itself.

A cluster IP is an IPAddress object of that name, a node port a key of our own; both are created
only where they don't exist, so that any number of apiservers can allocate at once. Which ones
are free is looked up in the mirror; a collision makes the commit fail, and it is tried again.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any

import orjson

from k8slite.api.kinds import KIND
from k8slite.api.meta import Obj, format_time
from k8slite.api.status import FieldError, internal, invalid, invalid_value
from k8slite.apiserver.call import Call
from k8slite.apiserver.objects import ROOT, encode, storage_key
from k8slite.apiserver.registry.identity import new_uid
from k8slite.apiserver.registry.strategy import Strategy
from k8slite.apiserver.store.base import ANY, Write

__all__ = ["NODE_PORTS", "ServiceStrategy"]

IP_ADDRESSES = KIND["ipaddresses.networking.k8s.io"]
NODE_PORTS = ROOT + b"k8slite.internal/nodeports/"
_WITH_PORTS = ("NodePort", "LoadBalancer")
_TRIES = 100
_RESERVED = 16
"""The first addresses of the range are left to those who ask for them, as upstream does."""


class ServiceStrategy(Strategy):
    """See the module."""

    returns_deleted = True
    has_companions = True

    async def companions(self, call: Call, new: Obj | None, old: Obj | None) -> Sequence[Write]:
        before_ips, before_ports = _held(old)
        if new is None:
            return [*_free_ips(before_ips), *_free_ports(before_ports)]
        writes: list[Write] = []
        _allocate_ip(call, new, before_ips, writes)
        _allocate_ports(call, new, before_ports, writes)
        after_ips, after_ports = _held(new)
        writes += _free_ips([ip for ip in before_ips if ip not in after_ips])
        writes += _free_ports([port for port in before_ports if port not in after_ports])
        return writes


def _held(service: Obj | None) -> tuple[list[str], list[int]]:
    """The addresses and node ports that a Service has."""
    spec: Obj = (service or {}).get("spec") or {}
    if spec.get("type") == "ExternalName":
        return [], []
    ips = [ip for ip in (spec.get("clusterIPs") or [spec.get("clusterIP", "")]) if _is_ip(ip)]
    ports = [port["nodePort"] for port in spec.get("ports") or () if port.get("nodePort")]
    if spec.get("healthCheckNodePort"):
        ports.append(spec["healthCheckNodePort"])
    return ips, list(dict.fromkeys(ports))


def _is_ip(text: str) -> bool:
    return bool(text) and text != "None"


# --- addresses ----------------------------------------------------------------------------------


def _allocate_ip(call: Call, service: Obj, before: list[str], writes: list[Write]) -> None:
    spec = service["spec"]
    if spec.get("type") == "ExternalName":
        return
    asked = (spec.get("clusterIPs") or [spec.get("clusterIP", "")])[0]
    if asked == "None":
        spec["clusterIP"], spec["clusterIPs"] = "None", ["None"]
        if not spec.get("selector") and "ipFamilies" not in spec:
            # Nothing is selected by us, so that the endpoints may be of either family.
            spec["ipFamilies"] = ["IPv4", "IPv6"]
            spec.setdefault("ipFamilyPolicy", "RequireDualStack")
        _set_family(spec, "IPv4")
        return
    cache = call.core.mirror.cache(IP_ADDRESSES)
    network = ipaddress.ip_network(call.core.config.service_cidr)
    if asked in before:
        pass
    elif asked:
        address = _address_in(service, asked, network)
        asked = str(address)
        if cache.get("", asked) is not None:
            _refuse(service, asked, "provided IP is already allocated")
        writes.append(_take_ip(call, service, asked))
    else:
        asked = _pick_ip(call, network)
        writes.append(_take_ip(call, service, asked))
    spec["clusterIP"], spec["clusterIPs"] = asked, [asked]
    _set_family(spec, "IPv4" if network.version == 4 else "IPv6")


def _set_family(spec: Obj, family: str) -> None:
    spec.setdefault("ipFamilies", [family])
    spec.setdefault("ipFamilyPolicy", "SingleStack")


def _address_in(
    service: Obj, text: str, network: ipaddress.IPv4Network | ipaddress.IPv6Network
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        address = None
    if address is None or address not in network:
        message = f"the provided network does not match the current range: {network}"
        _refuse(service, text, message)
    assert address is not None
    return address


def _refuse(service: Obj, ip: str, why: str) -> None:
    detail = f"failed to allocate IP {ip}: {why}"
    raise invalid(
        KIND["services"],
        service["metadata"]["name"],
        [invalid_value("spec.clusterIPs", [ip], detail)],
    )


def _pick_ip(call: Call, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> str:
    taken = call.core.mirror.cache(IP_ADDRESSES).entries
    rng = call.core.host.rng
    first = int(network.network_address)
    size = min(network.num_addresses, 1 << 20)
    low = min(max(_RESERVED, size // 16), 256) if size > 4 * _RESERVED else 1
    for _ in range(_TRIES):
        ip = str(ipaddress.ip_address(first + rng.randrange(low, size - 1)))
        if ip not in taken:
            return ip
    for offset in [*range(low, size - 1), *range(1, low)]:
        ip = str(ipaddress.ip_address(first + offset))
        if ip not in taken:
            return ip
    raise internal("failed to allocate a serviceIP: range is full")


def _take_ip(call: Call, service: Obj, ip: str) -> Write:
    metadata = service["metadata"]
    address = {
        "metadata": {
            "name": ip,
            "uid": new_uid(call.core.host.rng),
            "creationTimestamp": format_time(call.core.now()),
            "labels": {
                "ipaddress.kubernetes.io/ip-family": "IPv6" if ":" in ip else "IPv4",
                "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
            },
        },
        "spec": {
            "parentRef": {
                "group": "",
                "resource": "services",
                "namespace": metadata["namespace"],
                "name": metadata["name"],
            }
        },
    }
    return Write(storage_key(IP_ADDRESSES, "", ip), encode(address), 0)


def _free_ips(ips: Sequence[str]) -> list[Write]:
    return [Write(storage_key(IP_ADDRESSES, "", ip), None, ANY) for ip in ips]


# --- node ports ---------------------------------------------------------------------------------


def _allocate_ports(call: Call, service: Obj, before: list[int], writes: list[Write]) -> None:
    spec = service["spec"]
    ports = spec.get("ports") or []
    if spec.get("type") not in _WITH_PORTS:
        return
    wants = spec.get("type") == "NodePort" or spec.get("allocateLoadBalancerNodePorts", True)
    mine: dict[tuple[int, str], bool] = {}
    taken_now: set[int] = set()
    for i, port in enumerate(ports):
        if port.get("nodePort"):
            number = port["nodePort"]
            if (number, port.get("protocol", "TCP")) not in mine and number not in taken_now:
                _take_port(call, service, f"spec.ports[{i}].nodePort", number, before, writes)
            taken_now.add(number)
            mine[number, port.get("protocol", "TCP")] = True
    for port in ports:
        if wants and not port.get("nodePort"):
            port["nodePort"] = _pick_port(call, taken_now)
            taken_now.add(port["nodePort"])
            writes.append(_port_write(service, port["nodePort"]))
    if spec.get("externalTrafficPolicy") == "Local" and spec.get("type") == "LoadBalancer":
        if not spec.get("healthCheckNodePort"):
            spec["healthCheckNodePort"] = _pick_port(call, taken_now)
            writes.append(_port_write(service, spec["healthCheckNodePort"]))
        elif spec["healthCheckNodePort"] not in before:
            writes.append(_port_write(service, spec["healthCheckNodePort"]))


def _port_cache(call: Call) -> Any:
    return call.core.mirror.raw_cache("k8slite.internal", "nodeports").entries


def _take_port(
    call: Call, service: Obj, field: str, number: int, before: list[int], writes: list[Write]
) -> None:
    if number in before:
        return
    config = call.core.config
    problem: FieldError | None = None
    if not config.node_port_first <= number <= config.node_port_last:
        problem = invalid_value(
            field,
            number,
            "provided port is not in the valid range. "
            f"The range of valid ports is {config.node_port_first}-{config.node_port_last}",
        )
    elif str(number) in _port_cache(call):
        problem = invalid_value(field, number, "provided port is already allocated")
    if problem is not None:
        raise invalid(KIND["services"], service["metadata"]["name"], [problem])
    writes.append(_port_write(service, number))


def _pick_port(call: Call, also_taken: set[int]) -> int:
    config, rng, taken = call.core.config, call.core.host.rng, _port_cache(call)
    for _ in range(_TRIES):
        port = rng.randint(config.node_port_first, config.node_port_last)
        if str(port) not in taken and port not in also_taken:
            return port
    for port in range(config.node_port_first, config.node_port_last + 1):
        if str(port) not in taken and port not in also_taken:
            return port
    raise internal("failed to allocate a nodePort: range is full")


def _port_write(service: Obj, port: int) -> Write:
    metadata = service["metadata"]
    owner = f"{metadata['namespace']}/{metadata['name']}"
    value = orjson.dumps({"metadata": {"name": str(port)}, "service": owner})
    return Write(NODE_PORTS + str(port).encode(), value, 0)


def _free_ports(ports: Sequence[int]) -> list[Write]:
    return [Write(NODE_PORTS + str(port).encode(), None, ANY) for port in ports]
