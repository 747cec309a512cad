"""Services, endpoints and endpoint slices."""

from __future__ import annotations

import ipaddress
from typing import Any

from k8slite.api import names
from k8slite.api.meta import Obj
from k8slite.api.status import (
    FieldError,
    duplicate,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
)
from k8slite.api.validation.common import (
    Errors,
    check_all,
    ip_address,
    is_ip,
    one_of,
    parse_ip,
    port_number,
    port_number_or_name,
)
from k8slite.api.validation.objectmeta import validate_labels

CIDR_MESSAGE = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
_TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_PROTOCOLS = ("SCTP", "TCP", "UDP")
_NOT_SET = "may only be used when `type` is 'LoadBalancer'"


def cidr(value: str, path: str, errors: Errors) -> bool:
    try:
        ipaddress.ip_network(value, strict=False)
    except ValueError:
        pass
    else:
        if "/" in value:
            return True
    errors.append(invalid_value(path, value, CIDR_MESSAGE))
    return False


def validate_service(o: Obj) -> list[FieldError]:
    errors: Errors = []
    spec = o.get("spec") or {}
    type_, headless = spec.get("type", ""), spec.get("clusterIP") == "None"
    ports = spec.get("ports") or []
    _type_and_ports(spec, type_, headless, ports, errors)
    names_seen: set[str] = set()
    for i, port in enumerate(ports):
        _port(port, len(ports) > 1, names_seen, headless, f"spec.ports[{i}]", errors)
    if spec.get("selector"):
        validate_labels(spec["selector"], "spec.selector", errors)
    affinity = spec.get("sessionAffinity")
    if affinity not in ("ClientIP", "None"):
        at = "spec.sessionAffinity"
        known = ("ClientIP", "None")
        errors.append(not_supported(at, affinity, known) if affinity else required(at))
    elif affinity == "ClientIP":
        _affinity_timeout(spec, errors)
    _cluster_ips(spec, type_, errors)
    for i, ip in enumerate(spec.get("externalIPs") or ()):
        ip_address(ip, f"spec.externalIPs[{i}]", errors)
    _node_ports(spec, type_, ports, errors)
    _balancer(spec, type_, errors)
    _policies(spec, type_, errors)
    return errors


def _type_and_ports(
    spec: Obj, type_: str, headless: bool, ports: list[Obj], errors: Errors
) -> None:
    if not ports and not headless and type_ != "ExternalName":
        errors.append(required("spec.ports"))
    if type_ not in _TYPES:
        errors.append(not_supported("spec.type", type_, _TYPES) if type_ else required("spec.type"))
    if type_ in ("LoadBalancer", "NodePort") and headless:
        detail = f"may not be set to 'None' for {type_} services"
        errors.append(invalid_value("spec.clusterIPs[0]", "None", detail))
    if type_ == "ExternalName":
        if spec.get("clusterIP"):
            detail = "may not be set for ExternalName services"
            errors.append(forbidden_field("spec.clusterIPs", detail))
        external = (spec.get("externalName") or "").removesuffix(".")
        if external:
            check_all(names.check_dns_subdomain(external), "spec.externalName", external, errors)
        else:
            errors.append(required("spec.externalName"))


def _port(
    port: Obj, need_name: bool, seen: set[str], headless: bool, path: str, errors: Errors
) -> None:
    name = port.get("name", "")
    if not name:
        if need_name:
            errors.append(required(f"{path}.name"))
    else:
        check_all(names.check_dns_label(name), f"{path}.name", name, errors)
        if name in seen:
            errors.append(duplicate(f"{path}.name", name))
        seen.add(name)
    port_number(port.get("port", 0), f"{path}.port", errors)
    protocol = port.get("protocol")
    if protocol not in _PROTOCOLS:
        at = f"{path}.protocol"
        errors.append(not_supported(at, protocol, _PROTOCOLS) if protocol else required(at))
    target = port.get("targetPort", 0)
    port_number_or_name(target, f"{path}.targetPort", errors)
    if port.get("appProtocol") is not None:
        value = port["appProtocol"]
        check_all(names.check_qualified_name(value), f"{path}.appProtocol", value, errors)
    if port.get("nodePort", 0) < 0:
        detail = "must be between 1 and 65535, inclusive"
        errors.append(invalid_value(f"{path}.nodePort", port["nodePort"], detail))


def _affinity_timeout(spec: Obj, errors: Errors) -> None:
    client = (spec.get("sessionAffinityConfig") or {}).get("clientIP")
    if client is None or client.get("timeoutSeconds") is None:
        detail = "when session affinity type is ClientIP"
        errors.append(required("spec.sessionAffinityConfig", detail))
        return
    seconds = client["timeoutSeconds"]
    if not 0 < seconds <= 86400:
        at = "spec.sessionAffinityConfig.clientIP.timeoutSeconds"
        errors.append(invalid_value(at, seconds, "must be greater than 0 and less than 86400"))


def _cluster_ips(spec: Obj, type_: str, errors: Errors) -> None:
    families, policy = spec.get("ipFamilies") or [], spec.get("ipFamilyPolicy")
    for i, family in enumerate(families):
        one_of(family, ("IPv4", "IPv6"), f"spec.ipFamilies[{i}]", errors)
        if family in families[:i]:
            errors.append(duplicate(f"spec.ipFamilies[{i}]", family))
    if policy is not None:
        known = ("PreferDualStack", "RequireDualStack", "SingleStack")
        one_of(policy, known, "spec.ipFamilyPolicy", errors)
    ip, ips = spec.get("clusterIP", ""), spec.get("clusterIPs") or []
    if type_ == "ExternalName":
        return
    if ips and not ip:
        detail = "must be empty when `clusterIP` is not specified"
        errors.append(invalid_value("spec.clusterIPs", ips, detail))
    elif ips and ips[0] != ip:
        detail = "first value must match `clusterIP`"
        errors.append(invalid_value("spec.clusterIPs", ips, detail))
    for i, value in enumerate(ips):
        if i == 0 and value == "None":
            if len(ips) > 1:
                detail = "'None' must be the first and only value"
                errors.append(invalid_value("spec.clusterIPs", ips, detail))
            continue
        ip_address(value, f"spec.clusterIPs[{i}]", errors)
    if len(ips) > 2:
        errors.append(invalid_value("spec.clusterIPs", ips, "may only hold up to 2 values"))
    if len(ips) == 2 and all(is_ip(i) for i in ips) and _family(ips[0]) == _family(ips[1]):
        detail = "may specify no more than one IP for each IP family"
        errors.append(invalid_value("spec.clusterIPs", ips, detail))


def _family(ip: str) -> int:
    parsed = parse_ip(ip)
    return parsed.version if parsed is not None else 0


def _node_ports(spec: Obj, type_: str, ports: list[Obj], errors: Errors) -> None:
    may_have = type_ in ("NodePort", "LoadBalancer")
    seen: set[tuple[Any, Any]] = set()
    pairs: set[tuple[Any, Any]] = set()
    for i, port in enumerate(ports):
        pair = (port.get("protocol"), port.get("port"))
        if pair in pairs:
            shown = {
                "Name": "",
                "Protocol": pair[0],
                "AppProtocol": None,
                "Port": pair[1],
                "TargetPort": 0,
                "NodePort": 0,
            }
            errors.append(duplicate(f"spec.ports[{i}]", shown))
        pairs.add(pair)
        node_port = port.get("nodePort")
        if not node_port:
            continue
        if not may_have:
            detail = "may not be used when `type` is 'ClusterIP'"
            errors.append(forbidden_field(f"spec.ports[{i}].nodePort", detail))
        elif (port.get("protocol"), node_port) in seen:
            errors.append(duplicate(f"spec.ports[{i}].nodePort", node_port))
        seen.add((port.get("protocol"), node_port))


def _balancer(spec: Obj, type_: str, errors: Errors) -> None:
    ranges = spec.get("loadBalancerSourceRanges") or []
    if ranges:
        at = "spec.LoadBalancerSourceRanges"
        if type_ != "LoadBalancer":
            errors.append(forbidden_field(at, _NOT_SET))
        for i, value in enumerate(ranges):
            cidr(value.strip(), f"{at}[{i}]", errors)
    if type_ != "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is not None:
        errors.append(forbidden_field("spec.allocateLoadBalancerNodePorts", _NOT_SET))
    if type_ == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is None:
        detail = "must be set when `type` is 'LoadBalancer'"
        errors.append(required("spec.allocateLoadBalancerNodePorts", detail))
    class_ = spec.get("loadBalancerClass")
    if class_ is not None:
        if type_ == "LoadBalancer":
            at = "spec.loadBalancerClass"
            check_all(names.check_qualified_name(class_), at, class_, errors)
        else:
            errors.append(forbidden_field("spec.loadBalancerClass", _NOT_SET))


def _policies(spec: Obj, type_: str, errors: Errors) -> None:
    external, internal = spec.get("externalTrafficPolicy"), spec.get("internalTrafficPolicy")
    facing = type_ in ("NodePort", "LoadBalancer") or bool(spec.get("externalIPs"))
    if external is not None and not facing:
        detail = "may only be set for externally-accessible services"
        errors.append(invalid_value("spec.externalTrafficPolicy", external, detail))
    elif external is not None:
        one_of(external, ("Cluster", "Local"), "spec.externalTrafficPolicy", errors)
    health = spec.get("healthCheckNodePort", 0)
    if health and not (type_ == "LoadBalancer" and external == "Local"):
        detail = (
            "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
        )
        errors.append(invalid_value("spec.healthCheckNodePort", health, detail))
    if internal is not None:
        one_of(internal, ("Cluster", "Local"), "spec.internalTrafficPolicy", errors)
    distribution = spec.get("trafficDistribution")
    if distribution is not None:
        known = ("PreferClose", "PreferSameNode", "PreferSameZone")
        one_of(distribution, known, "spec.trafficDistribution", errors)


def validate_service_update(new: Obj, old: Obj) -> list[FieldError]:
    errors: Errors = []
    spec, was = new.get("spec") or {}, old.get("spec") or {}
    both_addressed = spec.get("type") != "ExternalName" and was.get("type") != "ExternalName"
    ips, before = spec.get("clusterIPs") or [], was.get("clusterIPs") or []
    if both_addressed and before and before[0] and ips[:1] != before[:1]:
        errors.append(invalid_value("spec.clusterIPs[0]", ips, "may not change once set"))
    if both_addressed and len(before) > 1 and len(ips) > 1 and ips[1] != before[1]:
        errors.append(invalid_value("spec.clusterIPs[1]", ips, "may not change once set"))
    value = spec.get("loadBalancerClass")
    balanced = spec.get("type") == was.get("type") == "LoadBalancer"
    if balanced and value != was.get("loadBalancerClass"):
        errors.append(invalid_value("spec.loadBalancerClass", value, "may not change once set"))
    return errors + validate_service(new)


def validate_endpoints(o: Obj) -> list[FieldError]:
    errors: Errors = []
    for i, subset in enumerate(o.get("subsets") or ()):
        at = f"subsets[{i}]"
        ports = subset.get("ports") or []
        if not subset.get("addresses") and not subset.get("notReadyAddresses"):
            detail = "must specify `addresses` or `notReadyAddresses`"
            errors.append(required(at, detail))
        for field in ("addresses", "notReadyAddresses"):
            for j, address in enumerate(subset.get(field) or ()):
                _endpoint_address(address, f"{at}.{field}[{j}]", errors)
        for j, port in enumerate(ports):
            _endpoint_port(port, len(ports) > 1, f"{at}.ports[{j}]", errors)
    return errors


def _endpoint_address(address: Obj, path: str, errors: Errors) -> None:
    ip = address.get("ip", "")
    ip_address(ip, f"{path}.ip", errors)
    if address.get("hostname"):
        value = address["hostname"]
        check_all(names.check_dns_label(value), f"{path}.hostname", value, errors)
    if address.get("nodeName") is not None:
        value = address["nodeName"]
        check_all(names.check_dns_subdomain(value), f"{path}.nodeName", value, errors)
    _not_special(ip, f"{path}.ip", errors)


def _not_special(ip: str, path: str, errors: Errors) -> None:
    """Endpoints lead out of a pod: loopback and link-local addresses would lead elsewhere."""
    parsed = parse_ip(ip)
    if parsed is None:
        errors.append(invalid_value(path, ip, "must be a valid IP address"))
        return
    if parsed.is_unspecified:
        errors.append(invalid_value(path, ip, f"may not be unspecified ({ip})"))
    if parsed.is_loopback:
        shown = "may not be in the loopback range (127.0.0.0/8, ::1/128)"
        errors.append(invalid_value(path, ip, shown))
    if parsed.is_link_local:
        shown = "may not be in the link-local range (169.254.0.0/16, fe80::/10)"
        errors.append(invalid_value(path, ip, shown))
    if parsed.is_multicast and parsed.is_link_local:
        shown = "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"
        errors.append(invalid_value(path, ip, shown))


def _endpoint_port(port: Obj, need_name: bool, path: str, errors: Errors) -> None:
    name = port.get("name", "")
    if need_name and not name:
        errors.append(required(f"{path}.name"))
    elif name:
        check_all(names.check_dns_label(name), f"{path}.name", name, errors)
    port_number(port.get("port", 0), f"{path}.port", errors)
    protocol = port.get("protocol")
    if protocol not in _PROTOCOLS:
        at = f"{path}.protocol"
        errors.append(not_supported(at, protocol, _PROTOCOLS) if protocol else required(at))
    if port.get("appProtocol") is not None:
        value = port["appProtocol"]
        check_all(names.check_qualified_name(value), f"{path}.appProtocol", value, errors)


def validate_endpoint_slice(o: Obj) -> list[FieldError]:
    errors: Errors = []
    type_ = o.get("addressType", "")
    if not type_:
        errors.append(required("addressType"))
    else:
        one_of(type_, ("FQDN", "IPv4", "IPv6"), "addressType", errors)
    for i, endpoint in enumerate(o.get("endpoints") or ()):
        _slice_endpoint(endpoint, type_, f"endpoints[{i}]", errors)
    _slice_ports(o.get("ports") or [], errors)
    return errors


def _slice_endpoint(endpoint: Obj, type_: str, path: str, errors: Errors) -> None:
    addresses = endpoint.get("addresses") or []
    if not addresses:
        errors.append(required(f"{path}.addresses", "must contain at least 1 address"))
    elif len(addresses) > 100:
        detail = "must have at most 100 items"
        errors.append(FieldError("Too many", f"{path}.addresses", len(addresses), detail))
    for j, address in enumerate(addresses):
        at = f"{path}.addresses[{j}]"
        if type_ == "FQDN":
            check_all(names.check_dns_subdomain(address), at, address, errors)
        elif type_ in ("IPv4", "IPv6"):
            parsed = parse_ip(address)
            if parsed is None:
                ip_address(address, at, errors)
            elif parsed.version != int(type_[-1]):
                errors.append(invalid_value(at, address, f"must be an {type_} address"))
            else:
                _not_special(address, at, errors)
    if endpoint.get("nodeName") is not None:
        value = endpoint["nodeName"]
        check_all(names.check_dns_subdomain(value), f"{path}.nodeName", value, errors)
    for key, value in (endpoint.get("deprecatedTopology") or {}).items():
        at = f"{path}.deprecatedTopology"
        check_all(names.check_qualified_name(key), at, key, errors)
        check_all(names.check_label_value(value), at, value, errors)
    if endpoint.get("hostname") is not None:
        value = endpoint["hostname"]
        check_all(names.check_dns_label(value), f"{path}.hostname", value, errors)
    hints = endpoint.get("hints") or {}
    _hints(
        hints.get("forZones") or [], f"{path}.hints.forZones", names.check_qualified_name, errors
    )
    _hints(hints.get("forNodes") or [], f"{path}.hints.forNodes", names.check_dns_subdomain, errors)


def _hints(items: list[Obj], path: str, check: names.Check, errors: Errors) -> None:
    seen: set[str] = set()
    for i, item in enumerate(items):
        name = item.get("name", "")
        at = f"{path}[{i}].name"
        if name in seen:
            errors.append(duplicate(at, name))
        else:
            check_all(check(name), at, name, errors)
        seen.add(name)


def _slice_ports(ports: list[Obj], errors: Errors) -> None:
    seen: set[str] = set()
    for i, port in enumerate(ports):
        at = f"ports[{i}]"
        name = port.get("name", "")
        if name:
            check_all(names.check_dns_label(name), f"{at}.name", name, errors)
        if name in seen:
            errors.append(duplicate(f"{at}.name", name))
        seen.add(name)
        protocol = port.get("protocol")
        if protocol not in _PROTOCOLS:
            where = f"{at}.protocol"
            errors.append(
                not_supported(where, protocol, _PROTOCOLS) if protocol else required(where)
            )
        if port.get("appProtocol") is not None:
            value = port["appProtocol"]
            check_all(names.check_qualified_name(value), f"{at}.appProtocol", value, errors)


def validate_endpoint_slice_update(new: Obj, old: Obj) -> list[FieldError]:
    errors = validate_endpoint_slice(new)
    if new.get("addressType") != old.get("addressType"):
        errors.append(invalid_value("addressType", new.get("addressType"), "field is immutable"))
    return errors


def validate_endpoints_update(new: Obj, _old: Obj) -> list[FieldError]:
    return validate_endpoints(new)
