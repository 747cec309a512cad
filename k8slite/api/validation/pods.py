"""Pods and pod templates: the whole spec, and what an update may change of it."""

from __future__ import annotations

import json
from difflib import unified_diff

from k8slite.api import names
from k8slite.api.meta import Obj, copy
from k8slite.api.status import (
    FieldError,
    duplicate,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
)
from k8slite.api.validation import scheduling, security
from k8slite.api.validation.common import Errors, check_all, ip_address, one_of
from k8slite.api.validation.containers import (
    validate_containers,
    validate_ephemeral_containers,
    validate_init_containers,
)
from k8slite.api.validation.objectmeta import validate_annotations, validate_labels
from k8slite.api.validation.probes import PodFacts
from k8slite.api.validation.resources import (
    container_resource_name,
    quantity_value,
    resource_requirements,
)
from k8slite.api.validation.volumes import validate_volumes

_DNS_POLICIES = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
_RESTART_POLICIES = ("Always", "OnFailure", "Never")
_MAX_INT32 = 2**31 - 1


def validate_pod(pod: Obj) -> list[FieldError]:
    errors: Errors = []
    validate_pod_spec(pod.get("spec") or {}, "spec", errors)
    if (pod.get("spec") or {}).get("ephemeralContainers"):
        errors.append(forbidden_field("spec.ephemeralContainers", "cannot be set on create"))
    return errors


def validate_pod_template(template: Obj, path: str, errors: Errors) -> None:
    metadata = template.get("metadata") or {}
    if metadata.get("labels"):
        validate_labels(metadata["labels"], f"{path}.labels", errors)
    if metadata.get("annotations"):
        validate_annotations(metadata["annotations"], f"{path}.annotations", errors)
    spec = template.get("spec") or {}
    validate_pod_spec(spec, f"{path}.spec", errors)
    if spec.get("ephemeralContainers"):
        detail = "ephemeral containers not allowed in pod template"
        errors.append(forbidden_field(f"{path}.spec.ephemeralContainers", detail))


def validate_pod_spec(spec: Obj, path: str, errors: Errors) -> None:
    volumes = validate_volumes(spec.get("volumes") or [], f"{path}.volumes", errors)
    claims = _resource_claims(spec.get("resourceClaims") or [], f"{path}.resourceClaims", errors)
    regular = spec.get("containers") or []
    init = spec.get("initContainers") or []
    facts = PodFacts(
        volumes=volumes,
        claims=claims,
        restart_policy=spec.get("restartPolicy", ""),
        grace_seconds=spec.get("terminationGracePeriodSeconds", 0),
        host_network=spec.get("hostNetwork", False),
        windows=(spec.get("os") or {}).get("name") == "windows",
    )
    validate_containers(regular, facts, f"{path}.containers", errors)
    if init:
        validate_init_containers(init, regular, facts, f"{path}.initContainers", errors)
    if spec.get("ephemeralContainers"):
        validate_ephemeral_containers(
            spec["ephemeralContainers"],
            [*regular, *init],
            facts,
            f"{path}.ephemeralContainers",
            errors,
        )
    if "resources" in spec:
        found: Errors = []
        resource_requirements(spec["resources"], claims, f"{path}.resources", found, pod_level=True)
        errors += found
    _policies(spec, path, errors)
    if spec.get("nodeSelector"):
        validate_labels(spec["nodeSelector"], f"{path}.nodeSelector", errors)
    _host_ports(spec, regular, path, errors)
    security.pod_security(spec, f"{path}.securityContext", errors)
    _scheduling(spec, path, errors)
    _identity(spec, path, errors)
    _rest(spec, path, errors)


def _policies(spec: Obj, path: str, errors: Errors) -> None:
    policy = spec.get("restartPolicy")
    if policy not in _RESTART_POLICIES:
        at = f"{path}.restartPolicy"
        errors.append(not_supported(at, policy, _RESTART_POLICIES) if policy else required(at))
    dns = spec.get("dnsPolicy")
    if dns not in _DNS_POLICIES:
        at = f"{path}.dnsPolicy"
        errors.append(not_supported(at, dns, _DNS_POLICIES) if dns else required(at))


def _host_ports(spec: Obj, containers: list[Obj], path: str, errors: Errors) -> None:
    """A pod on the node's network has the ports it has: hostPort must say the same."""
    if not spec.get("hostNetwork"):
        return
    for i, container in enumerate(containers):
        for j, port in enumerate(container.get("ports") or ()):
            if port.get("hostPort", 0) != port.get("containerPort", 0):
                detail = "must match `hostPort` when `hostNetwork` is true"
                at = f"{path}.containers[{i}].ports[{j}].containerPort"
                errors.append(invalid_value(at, port.get("containerPort", 0), detail))


def _scheduling(spec: Obj, path: str, errors: Errors) -> None:
    if spec.get("affinity"):
        scheduling.affinity(spec["affinity"], f"{path}.affinity", errors)
    if "dnsConfig" in spec or spec.get("dnsPolicy") == "None":
        _dns_config(spec, f"{path}.dnsConfig", errors)
    for i, gate in enumerate(spec.get("readinessGates") or ()):
        type_ = gate.get("conditionType", "")
        at = f"{path}.readinessGates[{i}].conditionType"
        check_all(names.check_qualified_name(type_), at, type_, errors)
    if spec.get("schedulingGates"):
        scheduling.gates(spec["schedulingGates"], f"{path}.schedulingGates", errors)
    if spec.get("topologySpreadConstraints"):
        at = f"{path}.topologySpreadConstraints"
        scheduling.spread_constraints(spec["topologySpreadConstraints"], at, errors)


def _identity(spec: Obj, path: str, errors: Errors) -> None:
    if spec.get("hostUsers") is False:
        for field in ("hostNetwork", "hostPID", "hostIPC"):
            if spec.get(field):
                detail = "when `hostUsers` is false"
                errors.append(forbidden_field(f"{path}.{field}", detail))
    account = spec.get("serviceAccountName")
    if account:
        at = f"{path}.serviceAccountName"
        check_all(names.check_dns_subdomain(account), at, account, errors)
    node = spec.get("nodeName")
    if node:
        check_all(names.check_dns_subdomain(node), f"{path}.nodeName", node, errors)
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline <= _MAX_INT32:
        detail = f"must be between 1 and {_MAX_INT32}, inclusive"
        errors.append(invalid_value(f"{path}.activeDeadlineSeconds", deadline, detail))
    for field in ("hostname", "subdomain"):
        if spec.get(field):
            check_all(names.check_dns_label(spec[field]), f"{path}.{field}", spec[field], errors)
    override = spec.get("hostnameOverride")
    if override is not None:
        _hostname_override(spec, override, path, errors)
    if spec.get("tolerations"):
        scheduling.tolerations(spec["tolerations"], f"{path}.tolerations", errors)
    for i, alias in enumerate(spec.get("hostAliases") or ()):
        ip_address(alias.get("ip", ""), f"{path}.hostAliases[{i}].ip", errors)
        for hostname in alias.get("hostnames") or ():
            at = f"{path}.hostAliases[{i}].hostnames"
            check_all(names.check_dns_subdomain(hostname), at, hostname, errors)


def _hostname_override(spec: Obj, override: str, path: str, errors: Errors) -> None:
    at = f"{path}.hostnameOverride"
    if spec.get("setHostnameAsFQDN"):
        errors.append(forbidden_field(at, "may not be specified when setHostnameAsFQDN is true"))
    if spec.get("hostNetwork"):
        errors.append(forbidden_field(at, "may not be specified when hostNetwork is true"))
    check_all(names.check_dns_subdomain(override), at, override, errors)
    if len(override) > 64:
        errors.append(FieldError("Too long", at, "", "may not be more than 64 bytes"))


def _rest(spec: Obj, path: str, errors: Errors) -> None:
    priority_class = spec.get("priorityClassName")
    if priority_class:
        at = f"{path}.priorityClassName"
        check_all(names.check_dns_subdomain(priority_class), at, priority_class, errors)
    runtime = spec.get("runtimeClassName")
    if runtime is not None:
        check_all(names.check_dns_subdomain(runtime), f"{path}.runtimeClassName", runtime, errors)
    preemption = spec.get("preemptionPolicy")
    if preemption is not None:
        at = f"{path}.preemptionPolicy"
        known = ("Never", "PreemptLowerPriority")
        if preemption not in known:
            errors.append(not_supported(at, preemption, known) if preemption else required(at))
    for name, text in (spec.get("overhead") or {}).items():
        at = f"{path}.overhead.limits[{name}]"
        container_resource_name(name, at, errors)
        quantity_value(name, text, at, errors)
    grace = spec.get("terminationGracePeriodSeconds")
    if grace is None:
        errors.append(required(f"{path}.terminationGracePeriodSeconds"))
    if "os" in spec:
        _operating_system(spec["os"], f"{path}.os", errors)


def _operating_system(os: Obj, path: str, errors: Errors) -> None:
    name = os.get("name", "")
    if not name:
        errors.append(required(f"{path}.name"))
    else:
        one_of(name, ("linux", "windows"), path, errors)


_CLAIM_SOURCES = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"


def _resource_claims(claims: list[Obj], path: str, errors: Errors) -> list[str]:
    seen: list[str] = []
    for i, claim in enumerate(claims):
        at, name = f"{path}[{i}]", claim.get("name", "")
        if not name:
            errors.append(required(f"{at}.name"))
        elif name in seen:
            errors.append(duplicate(f"{at}.name", name))
        else:
            check_all(names.check_dns_label(name), f"{at}.name", name, errors)
            seen.append(name)
        own, template = claim.get("resourceClaimName"), claim.get("resourceClaimTemplateName")
        shown = {"Name": name, "ResourceClaimName": own, "ResourceClaimTemplateName": template}
        if own is not None and template is not None:
            detail = (
                "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"
            )
            errors.append(invalid_value(at, shown, detail))
        if own is None and template is None:
            errors.append(invalid_value(at, shown, _CLAIM_SOURCES))
        for field in ("resourceClaimName", "resourceClaimTemplateName"):
            value = claim.get(field)
            if value is not None:
                check_all(names.check_dns_subdomain(value), f"{at}.{field}", value, errors)
    return seen


def _dns_config(spec: Obj, path: str, errors: Errors) -> None:
    config = spec.get("dnsConfig")
    if spec.get("dnsPolicy") == "None":
        if config is None:
            detail = "must provide `dnsConfig` when `dnsPolicy` is None"
            errors.append(required(path, detail))
            return
        if not config.get("nameservers"):
            detail = "must provide at least one DNS nameserver when `dnsPolicy` is None"
            errors.append(required(f"{path}.nameservers", detail))
            return
    if config is None:
        return
    servers, searches = config.get("nameservers") or [], config.get("searches") or []
    if len(servers) > 3:
        detail = "must not have more than 3 nameservers"
        errors.append(invalid_value(f"{path}.nameservers", servers, detail))
    for i, server in enumerate(servers):
        ip_address(server, f"{path}.nameservers[{i}]", errors)
    if len(searches) > 32:
        detail = "must not have more than 32 search paths"
        errors.append(invalid_value(f"{path}.searches", searches, detail))
    if len(" ".join(searches)) > 2048:
        detail = "must not have more than 2048 characters (including spaces) in the search list"
        errors.append(invalid_value(f"{path}.searches", searches, detail))
    for i, search in enumerate(searches):
        if search != ".":
            text = search.removesuffix(".").replace("_", "-")
            check_all(names.check_dns_subdomain(text), f"{path}.searches[{i}]", search, errors)
    for i, option in enumerate(config.get("options") or ()):
        if not option.get("name"):
            errors.append(required(f"{path}.options[{i}]", "must not be empty"))


def validate_pod_update(new: Obj, old: Obj) -> list[FieldError]:
    """Images, deadlines, added tolerations and scheduling gates may change; nothing else may."""
    errors: Errors = []
    validate_pod_spec(new["spec"], "spec", errors)
    before, after = old["spec"], new["spec"]
    if before == after:
        return errors
    if len(after.get("containers") or ()) != len(before.get("containers") or ()):
        errors.append(
            forbidden_field("spec.containers", "pod updates may not add or remove containers")
        )
        return errors
    if len(after.get("initContainers") or ()) != len(before.get("initContainers") or ()):
        errors.append(
            forbidden_field("spec.initContainers", "pod updates may not add or remove containers")
        )
        return errors
    _deadline_update(after, before, errors)
    _tolerations_update(after, before, errors)
    _gates_update(after, before, errors)
    like_old = _munge(after, before)
    if like_old != before:
        errors.append(forbidden_field("spec", _MAY_CHANGE + "\n" + _spec_diff(before, like_old)))
    return errors


_MAY_CHANGE = (
    "pod updates may not change fields other than `spec.containers[*].image`,"
    "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions"
    " to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it"
    " was previously negative)"
)


def _deadline_update(after: Obj, before: Obj, errors: Errors) -> None:
    new, old = after.get("activeDeadlineSeconds"), before.get("activeDeadlineSeconds")
    at = "spec.activeDeadlineSeconds"
    if new is not None:
        if not 0 <= new <= _MAX_INT32:
            detail = f"must be between 0 and {_MAX_INT32}, inclusive"
            errors.append(invalid_value(at, new, detail))
        elif old is not None and old < new:
            errors.append(invalid_value(at, new, "must be less than or equal to previous value"))
    elif old is not None:
        errors.append(
            invalid_value(at, None, "must not update from a positive integer to nil value")
        )


def _tolerations_update(after: Obj, before: Obj, errors: Errors) -> None:
    new, old = after.get("tolerations") or [], before.get("tolerations") or []
    for toleration in old:
        if toleration in new:
            continue
        seconds = ("tolerationSeconds",)
        core = {k: v for k, v in toleration.items() if k not in seconds}
        similar = [t for t in new if {k: v for k, v in t.items() if k not in seconds} == core]
        if not similar:
            detail = "existing toleration can not be modified except its tolerationSeconds"
            errors.append(forbidden_field("spec.tolerations", detail))
            return


def _gates_update(after: Obj, before: Obj, errors: Errors) -> None:
    old = {g.get("name") for g in before.get("schedulingGates") or ()}
    for i, gate in enumerate(after.get("schedulingGates") or ()):
        if gate.get("name") not in old:
            detail = "only deletion is allowed, but found new scheduling gate"
            errors.append(
                forbidden_field(f"spec.schedulingGates[{i}]", f"{detail} '{gate.get('name')}'")
            )


def _munge(after: Obj, before: Obj) -> Obj:
    """`after` with all that may change put back as it was."""
    spec = copy(after)
    for field in ("containers", "initContainers"):
        for mine, theirs in zip(spec.get(field) or (), before.get(field) or (), strict=True):
            _put_back(mine, theirs, "image")
    for field in ("activeDeadlineSeconds", "tolerations", "schedulingGates"):
        _put_back(spec, before, field)
    if before.get("terminationGracePeriodSeconds", 0) < 0 and (
        after.get("terminationGracePeriodSeconds") == 1
    ):
        _put_back(spec, before, "terminationGracePeriodSeconds")
    if before.get("schedulingGates"):
        _put_back(spec, before, "nodeSelector")
        _put_back(spec, before, "affinity")
    return spec


def _put_back(mine: Obj, theirs: Obj, field: str) -> None:
    if field in theirs:
        mine[field] = copy(theirs[field])
    else:
        mine.pop(field, None)


def _spec_diff(old: Obj, new: Obj) -> str:
    before, after = _dump(old), _dump(new)
    lines = list(unified_diff(before, after, n=3, lineterm=""))[2:]
    return "\n".join(lines) + "\n"


def _dump(spec: Obj) -> list[str]:
    return json.dumps(spec, indent=1).splitlines()
