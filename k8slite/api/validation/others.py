"""RBAC, networking, storage, scheduling classes, admission configuration, custom definitions."""

from __future__ import annotations

import re

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
from k8slite.api.validation import scheduling
from k8slite.api.validation.common import (
    Errors,
    check_all,
    label_selector,
    one_of,
    port_number_or_name,
)
from k8slite.api.validation.objectmeta import IMMUTABLE
from k8slite.api.validation.services import cidr

RBAC = "rbac.authorization.k8s.io"


def validate_role(o: Obj) -> list[FieldError]:
    return _rules(o, namespaced=True)


def validate_cluster_role(o: Obj) -> list[FieldError]:
    errors = _rules(o, namespaced=False)
    aggregation = o.get("aggregationRule")
    if aggregation is not None:
        selectors = aggregation.get("clusterRoleSelectors") or []
        at = "aggregationRule.clusterRoleSelectors"
        if not selectors:
            detail = "at least one clusterRoleSelector required if aggregationRule is non-nil"
            errors.append(required(at, detail))
        for i, selector in enumerate(selectors):
            label_selector(selector, f"{at}[{i}]", errors)
    return errors


def _rules(o: Obj, namespaced: bool) -> list[FieldError]:
    errors: Errors = []
    for i, rule in enumerate(o.get("rules") or ()):
        at = f"rules[{i}]"
        if not rule.get("verbs"):
            errors.append(required(f"{at}.verbs", "verbs must contain at least one value"))
        urls = rule.get("nonResourceURLs") or []
        if urls:
            if namespaced:
                detail = "namespaced rules cannot apply to non-resource URLs"
                errors.append(invalid_value(f"{at}.nonResourceURLs", urls, detail))
            if rule.get("apiGroups") or rule.get("resources") or rule.get("resourceNames"):
                detail = "rules cannot apply to both regular resources and non-resource URLs"
                errors.append(invalid_value(f"{at}.nonResourceURLs", urls, detail))
            continue
        if not rule.get("apiGroups"):
            detail = "resource rules must supply at least one api group"
            errors.append(required(f"{at}.apiGroups", detail))
        if not rule.get("resources"):
            detail = "resource rules must supply at least one resource"
            errors.append(required(f"{at}.resources", detail))
    return errors


def validate_role_binding(o: Obj) -> list[FieldError]:
    return _binding(o, ("Role", "ClusterRole"), True)


def validate_cluster_role_binding(o: Obj) -> list[FieldError]:
    return _binding(o, ("ClusterRole",), False)


def _binding(o: Obj, kinds: tuple[str, ...], namespaced: bool) -> list[FieldError]:
    errors: Errors = []
    reference = o.get("roleRef") or {}
    group = reference.get("apiGroup", "")
    if group != RBAC:
        errors.append(not_supported("roleRef.apiGroup", group, (RBAC,)))
    one_of(reference.get("kind", ""), kinds, "roleRef.kind", errors)
    name = reference.get("name", "")
    if not name:
        errors.append(required("roleRef.name"))
    else:
        check_all(names.check_path_segment(name), "roleRef.name", name, errors)
    for i, subject in enumerate(o.get("subjects") or ()):
        _subject(subject, namespaced, f"subjects[{i}]", errors)
    return errors


def _subject(subject: Obj, namespaced: bool, path: str, errors: Errors) -> None:
    if not subject.get("name"):
        errors.append(required(f"{path}.name"))
    kind, group = subject.get("kind", ""), subject.get("apiGroup", "")
    if kind == "ServiceAccount":
        if subject.get("name"):
            value = subject["name"]
            check_all(names.check_dns_subdomain(value), f"{path}.name", value, errors)
        if group:
            errors.append(not_supported(f"{path}.apiGroup", group, ("",)))
        if not namespaced and not subject.get("namespace"):
            errors.append(required(f"{path}.namespace"))
    elif kind in ("User", "Group"):
        if group != RBAC:
            errors.append(not_supported(f"{path}.apiGroup", group, (RBAC,)))
    else:
        errors.append(not_supported(f"{path}.kind", kind, ("ServiceAccount", "User", "Group")))


def validate_role_update(new: Obj, _old: Obj) -> list[FieldError]:
    return validate_role(new)


def validate_cluster_role_update(new: Obj, _old: Obj) -> list[FieldError]:
    return validate_cluster_role(new)


def validate_role_binding_update(new: Obj, old: Obj) -> list[FieldError]:
    return validate_role_binding(new) + _reference_update(new, old)


def validate_cluster_role_binding_update(new: Obj, old: Obj) -> list[FieldError]:
    return validate_cluster_role_binding(new) + _reference_update(new, old)


def _reference_update(new: Obj, old: Obj) -> list[FieldError]:
    if new.get("roleRef") == old.get("roleRef"):
        return []
    return [
        invalid_value("roleRef", _go_reference(new.get("roleRef") or {}), "cannot change roleRef")
    ]


def _go_reference(reference: Obj) -> Obj:
    return {
        "APIGroup": reference.get("apiGroup", ""),
        "Kind": reference.get("kind", ""),
        "Name": reference.get("name", ""),
    }


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


def validate_storage_class(o: Obj) -> list[FieldError]:
    errors: Errors = []
    provisioner = o.get("provisioner", "")
    if not provisioner:
        errors.append(required("provisioner", provisioner))
    else:
        check_all(
            names.check_qualified_name(provisioner.lower()),
            "provisioner",
            provisioner.lower(),
            errors,
        )
    for key in o.get("parameters") or {}:
        if not key:
            errors.append(invalid_value("parameters", key, "field must not be empty"))
    policy = o.get("reclaimPolicy")
    if policy:
        one_of(policy, ("Delete", "Retain"), "reclaimPolicy", errors)
    mode = o.get("volumeBindingMode")
    if mode is None:
        errors.append(required("volumeBindingMode"))
    else:
        one_of(mode, ("Immediate", "WaitForFirstConsumer"), "volumeBindingMode", errors)
    _topologies(o.get("allowedTopologies") or [], errors)
    return errors


def _topologies(terms: list[Obj], errors: Errors) -> None:
    seen_terms: list[Obj] = []
    for i, term in enumerate(terms):
        at = f"allowedTopologies[{i}].matchLabelExpressions"
        expressions = term.get("matchLabelExpressions") or []
        seen: set[str] = set()
        shape: Obj = {}
        for j, expression in enumerate(expressions):
            key, values = expression.get("key", ""), expression.get("values") or []
            if not values:
                errors.append(required(f"{at}[{j}].values"))
            for k, value in enumerate(values):
                if value in values[:k]:
                    errors.append(duplicate(f"{at}[{j}].values[{k}]", value))
            check_all(names.check_qualified_name(key), f"{at}[{j}].key", key, errors)
            if key in seen:
                errors.append(duplicate(f"{at}[{j}].key", key))
            seen.add(key)
            shape[key] = sorted(set(values))
        if shape in seen_terms or not expressions:
            errors.append(duplicate(at, ""))
        seen_terms.append(shape)


def validate_storage_class_update(new: Obj, old: Obj) -> list[FieldError]:
    errors: Errors = []
    for field, text in (
        ("parameters", "updates to parameters are forbidden."),
        ("provisioner", "updates to provisioner are forbidden."),
        ("reclaimPolicy", "updates to reclaimPolicy are forbidden."),
    ):
        if new.get(field) != old.get(field):
            errors.append(forbidden_field(field, text))
    if new.get("volumeBindingMode") != old.get("volumeBindingMode"):
        errors.append(invalid_value("volumeBindingMode", new.get("volumeBindingMode"), IMMUTABLE))
    return errors


def validate_csi_driver(o: Obj) -> list[FieldError]:
    errors: Errors = []
    spec = o.get("spec") or {}
    policy = spec.get("fsGroupPolicy")
    if policy is not None:
        known = ("File", "None", "ReadWriteOnceWithFSType")
        one_of(policy, known, "spec.fsGroupPolicy", errors)
    audiences: set[str] = set()
    for i, request in enumerate(spec.get("tokenRequests") or ()):
        at, audience = f"spec.tokenRequests[{i}]", request.get("audience", "")
        if audience in audiences:
            errors.append(duplicate(f"{at}.audience", audience))
        audiences.add(audience)
        seconds = request.get("expirationSeconds")
        if seconds is not None and seconds < 600:
            detail = "may not specify a duration less than 10 minutes"
            errors.append(invalid_value(f"{at}.expirationSeconds", seconds, detail))
    for mode in spec.get("volumeLifecycleModes") or ():
        one_of(mode, ("Ephemeral", "Persistent"), "spec.volumeLifecycleModes", errors)
    return errors


def validate_runtime_class(o: Obj) -> list[FieldError]:
    errors: Errors = []
    handler = o.get("handler", "")
    if not handler:
        errors.append(required("handler"))
    else:
        check_all(names.check_dns_label(handler), "handler", handler, errors)
    place = o.get("scheduling") or {}
    if place.get("nodeSelector"):
        for key, value in place["nodeSelector"].items():
            at = "scheduling.nodeSelector"
            check_all(names.check_qualified_name(key), at, key, errors)
            check_all(names.check_label_value(value), at, value, errors)
    if place.get("tolerations"):
        scheduling.tolerations(place["tolerations"], "scheduling.tolerations", errors)
    return errors


def validate_runtime_class_update(new: Obj, old: Obj) -> list[FieldError]:
    if new.get("handler") == old.get("handler"):
        return []
    return [invalid_value("handler", new.get("handler"), IMMUTABLE)]


_HIGHEST_USER_PRIORITY = 1_000_000_000


def validate_priority_class(o: Obj) -> list[FieldError]:
    errors: Errors = []
    name, value = o["metadata"].get("name", ""), o.get("value", 0)
    if name.startswith("system-"):
        if name not in ("system-cluster-critical", "system-node-critical"):
            detail = (
                "priority class names with 'system-' prefix are reserved for system use only."
                " error: priority class is not a known system priority class"
            )
            errors.append(forbidden_field("metadata.name", detail))
    elif value > _HIGHEST_USER_PRIORITY:
        detail = f"maximum allowed value of a user defined priority is {_HIGHEST_USER_PRIORITY}"
        errors.append(forbidden_field("value", detail))
    policy = o.get("preemptionPolicy")
    if policy is not None:
        known = ("PreemptLowerPriority", "Never")
        if policy not in known:
            at = "preemptionPolicy"
            errors.append(not_supported(at, policy, known) if policy else required(at))
    return errors


def validate_priority_class_update(new: Obj, old: Obj) -> list[FieldError]:
    errors: Errors = []
    if new.get("value", 0) != old.get("value", 0):
        errors.append(invalid_value("value", new.get("value", 0), IMMUTABLE))
    if new.get("preemptionPolicy") != old.get("preemptionPolicy"):
        errors.append(invalid_value("preemptionPolicy", new.get("preemptionPolicy"), IMMUTABLE))
    return errors
