"""Network policies, ingresses and their classes."""

from __future__ import annotations

import re

from k8slite.api import names
from k8slite.api.meta import Obj
from k8slite.api.status import (
    FieldError,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
)
from k8slite.api.validation.common import (
    Errors,
    check_all,
    label_selector,
    one_of,
    port_number_or_name,
)
from k8slite.api.validation.objectmeta import IMMUTABLE
from k8slite.api.validation.services import cidr

_PROTOCOLS = ("TCP", "UDP", "SCTP")


def validate_network_policy(o: Obj) -> list[FieldError]:
    errors: Errors = []
    spec = o.get("spec") or {}
    label_selector(spec.get("podSelector") or {}, "spec.podSelector", errors)
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        for i, rule in enumerate(spec.get(direction) or ()):
            at = f"spec.{direction}[{i}]"
            for j, port in enumerate(rule.get("ports") or ()):
                _policy_port(port, f"{at}.ports[{j}]", errors)
            for j, peer in enumerate(rule.get(peers) or ()):
                _policy_peer(peer, f"{at}.{peers}[{j}]", errors)
    types = spec.get("policyTypes") or []
    if len(types) > 2:
        detail = "may not specify more than two policyTypes"
        errors.append(invalid_value("spec.policyTypes", types, detail))
    for i, type_ in enumerate(types):
        one_of(type_, ("Egress", "Ingress"), f"spec.policyTypes[{i}]", errors)
    return errors


def _policy_port(port: Obj, path: str, errors: Errors) -> None:
    protocol = port.get("protocol")
    if protocol is not None:
        one_of(protocol, _PROTOCOLS, f"{path}.protocol", errors)
    number, end = port.get("port"), port.get("endPort")
    if number is None:
        if end is not None:
            errors.append(required(f"{path}.port", "must be specified when `endPort` is specified"))
        return
    port_number_or_name(number, f"{path}.port", errors)
    if end is not None and isinstance(number, int):
        if end < number:
            detail = "must be greater than or equal to `port`"
            errors.append(invalid_value(f"{path}.endPort", end, detail))
        elif end > 65535:
            detail = "must be between 1 and 65535, inclusive"
            errors.append(invalid_value(f"{path}.endPort", end, detail))
    elif end is not None:
        detail = "endPort may not be specified when `port` is non-numeric"
        errors.append(invalid_value(f"{path}.endPort", end, detail))


def _policy_peer(peer: Obj, path: str, errors: Errors) -> None:
    for field in ("podSelector", "namespaceSelector"):
        if peer.get(field):
            label_selector(peer[field], f"{path}.{field}", errors)
    block = peer.get("ipBlock")
    if block is not None:
        at = f"{path}.ipBlock"
        if not block.get("cidr"):
            errors.append(required(f"{at}.cidr"))
        else:
            cidr(block["cidr"], f"{at}.cidr", errors)
            for i, hole in enumerate(block.get("except") or ()):
                cidr(hole, f"{at}.except[{i}]", errors)
        if "podSelector" in peer or "namespaceSelector" in peer:
            detail = "may not specify both ipBlock and another peer"
            errors.append(forbidden_field(path, detail))
    elif not ({"podSelector", "namespaceSelector"} & peer.keys()):
        errors.append(required(path, "must specify a peer"))


def validate_ingress(o: Obj) -> list[FieldError]:
    errors: Errors = []
    spec = o.get("spec") or {}
    rules, backend = spec.get("rules") or [], spec.get("defaultBackend")
    if not rules and backend is None:
        detail = "either `defaultBackend` or `rules` must be specified"
        errors.append(invalid_value("spec", [], detail))
    if backend is not None:
        _backend(backend, "spec.defaultBackend", errors)
    for i, rule in enumerate(rules):
        _ingress_rule(rule, f"spec.rules[{i}]", errors)
    for i, tls in enumerate(spec.get("tls") or ()):
        for j, host in enumerate(tls.get("hosts") or ()):
            check = names.check_wildcard_subdomain if "*" in host else names.check_dns_subdomain
            check_all(check(host), f"spec.tls[{i}].hosts[{j}]", host, errors)
        secret = tls.get("secretName")
        if secret:
            at = f"spec.tls[{i}].secretName"
            check_all(names.check_dns_subdomain(secret), at, secret, errors)
    class_ = spec.get("ingressClassName")
    if class_ is not None:
        check_all(names.check_dns_subdomain(class_), "spec.ingressClassName", class_, errors)
    return errors


def _ingress_rule(rule: Obj, path: str, errors: Errors) -> None:
    host = rule.get("host", "")
    if host:
        if re.fullmatch(r"[0-9.]+|[0-9a-fA-F:]*:[0-9a-fA-F:.]*", host):
            errors.append(
                invalid_value(f"{path}.host", host, "must be a DNS name, not an IP address")
            )
        check = names.check_wildcard_subdomain if "*" in host else names.check_dns_subdomain
        check_all(check(host), f"{path}.host", host, errors)
    http = rule.get("http")
    if http is None:
        return
    if not http.get("paths"):
        errors.append(required(f"{path}.http.paths"))
    for i, item in enumerate(http.get("paths") or ()):
        _ingress_path(item, f"{path}.http.paths[{i}]", errors)


_BAD_IN_PATHS = ("//", "/./", "/../", "%2f", "%2F")


def _ingress_path(item: Obj, path: str, errors: Errors) -> None:
    type_, where = item.get("pathType"), item.get("path", "")
    if type_ is None:
        errors.append(required(f"{path}.pathType", "pathType must be specified"))
        return
    at = f"{path}.path"
    if type_ in ("Exact", "Prefix"):
        if not where.startswith("/"):
            errors.append(invalid_value(at, where, "must be an absolute path"))
        for bad in _BAD_IN_PATHS:
            if bad in where:
                errors.append(invalid_value(at, where, f"must not contain '{bad}'"))
        for bad in ("/..", "/."):
            if where.endswith(bad):
                errors.append(invalid_value(at, where, f"cannot end with '{bad}'"))
    elif type_ == "ImplementationSpecific":
        if where and not where.startswith("/"):
            errors.append(invalid_value(at, where, "must be an absolute path"))
    else:
        known = ("Exact", "ImplementationSpecific", "Prefix")
        errors.append(not_supported(f"{path}.pathType", type_, known))
    _backend(item.get("backend") or {}, f"{path}.backend", errors)


def _backend(backend: Obj, path: str, errors: Errors) -> None:
    service, resource = backend.get("service"), backend.get("resource")
    if service is not None and resource is not None:
        detail = "cannot set both resource and service backends"
        errors.append(invalid_value(path, "", detail))
    elif resource is not None:
        group = resource.get("apiGroup")
        if group is not None:
            at = f"{path}.resource.apiGroup"
            check_all(names.check_dns_subdomain(group), at, group, errors)
        for field in ("kind", "name"):
            if not resource.get(field):
                errors.append(required(f"{path}.resource.{field}"))
    elif service is not None:
        _backend_service(service, path, errors)
    else:
        errors.append(required(path, "resource or service backend is required"))


def _backend_service(service: Obj, path: str, errors: Errors) -> None:
    name, port = service.get("name", ""), service.get("port") or {}
    if not name:
        errors.append(required(f"{path}.service.name"))
    else:
        check_all(names.check_dns_label(name), f"{path}.service.name", name, errors)
    if port.get("name") and port.get("number"):
        detail = "cannot set both port name & port number"
        errors.append(invalid_value(path, "", detail))
    elif port.get("name"):
        at = f"{path}.service.port.name"
        check_all(names.check_port_name(port["name"]), at, port["name"], errors)
    elif port.get("number"):
        at = f"{path}.service.port.number"
        check_all(names.check_port_number(port["number"]), at, port["number"], errors)
    else:
        errors.append(required(path, "port name or number is required"))


def validate_ingress_class(o: Obj) -> list[FieldError]:
    errors: Errors = []
    spec = o.get("spec") or {}
    controller = spec.get("controller", "")
    if controller and len(controller) > 250:
        errors.append(
            FieldError("Too long", "spec.controller", "", "may not be more than 250 bytes")
        )
    _domain_path(controller, "spec.controller", errors)
    parameters = spec.get("parameters")
    if parameters is None:
        return errors
    at = "spec.parameters"
    for field in ("kind", "name"):
        if not parameters.get(field):
            errors.append(required(f"{at}.{field}"))
    scope, space = parameters.get("scope"), parameters.get("namespace")
    if scope is None:
        errors.append(required(f"{at}.scope"))
    elif scope not in ("Cluster", "Namespace"):
        errors.append(not_supported(f"{at}.scope", scope, ("Cluster", "Namespace")))
    elif scope == "Cluster" and space is not None:
        detail = "`parameters.scope` is set to 'Cluster'"
        errors.append(forbidden_field(f"{at}.namespace", detail))
    elif scope == "Namespace":
        if space is None:
            errors.append(required(f"{at}.namespace", "`parameters.scope` is set to 'Namespace'"))
        else:
            check_all(names.check_dns_label(space), f"{at}.namespace", space, errors)
    return errors


def _domain_path(text: str, path: str, errors: Errors) -> None:
    if not text:
        errors.append(required(path))
        return
    domain, slash, rest = text.partition("/")
    if not slash or not domain or not rest:
        detail = 'must be a domain-prefixed path (such as "acme.io/foo")'
        errors.append(invalid_value(path, text, detail))
        return
    check_all(names.check_dns_subdomain(domain), path, domain, errors)


def validate_ingress_class_update(new: Obj, old: Obj) -> list[FieldError]:
    errors = validate_ingress_class(new)
    now, was = (new.get("spec") or {}).get("controller"), (old.get("spec") or {}).get("controller")
    if now != was:
        errors.append(invalid_value("spec.controller", now, IMMUTABLE))
    return errors
