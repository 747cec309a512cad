"""Containers of a pod: the three sorts, their ports, environment, mounts, probes and handlers."""

from __future__ import annotations

from k8slite.api import names
from k8slite.api.meta import Obj
from k8slite.api.status import (
    duplicate,
    forbidden_field,
    invalid_value,
    not_found_value,
    not_supported,
    required,
)
from k8slite.api.validation import security
from k8slite.api.validation.common import (
    Errors,
    check_all,
    one_of,
    port_number,
)
from k8slite.api.validation.environment import local_path, validate_env, validate_env_from
from k8slite.api.validation.probes import PROBES, PodFacts, validate_lifecycle, validate_probes
from k8slite.api.validation.resources import resource_requirements

PROTOCOLS = ("SCTP", "TCP", "UDP")
PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_EPHEMERAL_FORBIDDEN = (
    "ports",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "resources",
    "resizePolicy",
)


def validate_containers(
    containers: list[Obj] | None, facts: PodFacts, path: str, errors: Errors
) -> None:
    if not containers:
        errors.append(required(path))
        return
    seen: set[str] = set()
    for i, container in enumerate(containers):
        at = f"{path}[{i}]"
        _common(container, facts, at, errors)
        name = container.get("name", "")
        if name and name in seen:
            errors.append(duplicate(f"{at}.name", name))
        seen.add(name)
        if "lifecycle" in container:
            validate_lifecycle(container["lifecycle"], facts, f"{at}.lifecycle", errors)
        validate_probes(container, facts, at, errors)
        _restart_policy(container, at, errors)
    _host_ports(containers, path, errors)


def validate_init_containers(
    containers: list[Obj], regular: list[Obj], facts: PodFacts, path: str, errors: Errors
) -> None:
    seen = {c.get("name", "") for c in regular}
    for i, container in enumerate(containers):
        at = f"{path}[{i}]"
        _common(container, facts, at, errors)
        restartable = container.get("restartPolicy") == "Always"
        _restart_policy(container, at, errors, init=True)
        name = container.get("name", "")
        if name and name in seen:
            errors.append(duplicate(f"{at}.name", name))
        seen.add(name)
        if restartable:
            if "lifecycle" in container:
                validate_lifecycle(container["lifecycle"], facts, f"{at}.lifecycle", errors)
            validate_probes(container, facts, at, errors)
        else:
            for field in ("lifecycle", *PROBES):
                if field in container:
                    detail = "may not be set for init containers without restartPolicy=Always"
                    errors.append(forbidden_field(f"{at}.{field}", detail))


def validate_ephemeral_containers(
    containers: list[Obj], others: list[Obj], facts: PodFacts, path: str, errors: Errors
) -> None:
    taken = {c.get("name", "") for c in others}
    names_of_others = set(taken)
    for i, container in enumerate(containers):
        at = f"{path}[{i}]"
        _common(container, facts, at, errors)
        name = container.get("name", "")
        if name and name in taken:
            errors.append(duplicate(f"{at}.name", name))
        taken.add(name)
        target = container.get("targetContainerName")
        if target and target not in names_of_others:
            errors.append(not_found_value(f"{at}.targetContainerName", target))
        for field in _EPHEMERAL_FORBIDDEN:
            value = container.get(field)
            if value is not None and not (field == "resources" and not value):
                detail = "cannot be set for an Ephemeral Container"
                errors.append(forbidden_field(f"{at}.{field}", detail))
        for j, mount in enumerate(container.get("volumeMounts") or ()):
            for field in ("subPath", "subPathExpr"):
                if mount.get(field):
                    detail = "cannot be set for an Ephemeral Container"
                    errors.append(forbidden_field(f"{at}.volumeMounts[{j}].{field}", detail))


def _common(container: Obj, facts: PodFacts, path: str, errors: Errors) -> None:
    name = container.get("name")
    if not name:
        errors.append(required(f"{path}.name"))
    else:
        check_all(names.check_dns_label(name), f"{path}.name", name, errors)
    image = container.get("image")
    if not image:
        errors.append(required(f"{path}.image"))
    elif image != image.strip():
        detail = "must not have leading or trailing whitespace"
        errors.append(invalid_value(f"{path}.image", image, detail))
    policy = container.get("terminationMessagePolicy")
    if policy not in ("File", "FallbackToLogsOnError"):
        at = f"{path}.terminationMessagePolicy"
        errors.append(
            not_supported(at, policy, ("File", "FallbackToLogsOnError")) if policy else required(at)
        )
    if container.get("ports"):
        _ports(container["ports"], f"{path}.ports", errors)
    if container.get("env"):
        validate_env(container["env"], facts, f"{path}.env", errors)
    if container.get("envFrom"):
        validate_env_from(container["envFrom"], f"{path}.envFrom", errors)
    if container.get("volumeMounts"):
        _mounts(container, facts, f"{path}.volumeMounts", errors)
    if container.get("volumeDevices"):
        _devices(container, facts, f"{path}.volumeDevices", errors)
    pull = container.get("imagePullPolicy")
    if pull not in PULL_POLICIES:
        at = f"{path}.imagePullPolicy"
        errors.append(not_supported(at, pull, PULL_POLICIES) if pull else required(at))
    resources = container.get("resources")
    if resources:
        resource_requirements(resources, facts.claims, f"{path}.resources", errors)
    if container.get("resizePolicy"):
        _resize_policy(container["resizePolicy"], f"{path}.resizePolicy", errors)
    if container.get("securityContext"):
        security.container_security(container["securityContext"], f"{path}.securityContext", errors)


def _restart_policy(container: Obj, path: str, errors: Errors, init: bool = False) -> None:
    policy, rules = container.get("restartPolicy"), container.get("restartPolicyRules")
    if policy is not None:
        one_of(policy, ("Always", "Never", "OnFailure"), f"{path}.restartPolicy", errors)
    if not rules:
        return
    if policy is None:
        detail = "must specify restartPolicy when restart rules are used"
        errors.append(required(f"{path}.restartPolicy", detail))
        if init:
            return
    for i, rule in enumerate(rules):
        at = f"{path}.restartPolicyRules[{i}]"
        one_of(rule.get("action", ""), ("Restart", "RestartAllContainers"), f"{at}.action", errors)
        codes = rule.get("exitCodes")
        if codes is None:
            errors.append(required(f"{at}.exitCodes", "must be specified"))
        else:
            one_of(codes.get("operator", ""), ("In", "NotIn"), f"{at}.exitCodes.operator", errors)


def _ports(ports: list[Obj], path: str, errors: Errors) -> None:
    seen: set[str] = set()
    for i, port in enumerate(ports):
        at = f"{path}[{i}]"
        name = port.get("name")
        if name:
            problems = names.check_port_name(name)
            if problems:
                check_all(problems, f"{at}.name", name, errors)
            elif name in seen:
                errors.append(duplicate(f"{at}.name", name))
            else:
                seen.add(name)
        number = port.get("containerPort", 0)
        if number == 0:
            errors.append(required(f"{at}.containerPort"))
        else:
            port_number(number, f"{at}.containerPort", errors)
        if port.get("hostPort"):
            port_number(port["hostPort"], f"{at}.hostPort", errors)
        protocol = port.get("protocol")
        if protocol not in PROTOCOLS:
            where = f"{at}.protocol"
            errors.append(
                not_supported(where, protocol, PROTOCOLS) if protocol else required(where)
            )


def _host_ports(containers: list[Obj], path: str, errors: Errors) -> None:
    """No two containers of a pod take the same port of the node."""
    taken: set[str] = set()
    for i, container in enumerate(containers):
        for j, port in enumerate(container.get("ports") or ()):
            host_port = port.get("hostPort")
            if not host_port:
                continue
            key = f"{port.get('protocol', '')}/{port.get('hostIP', '')}/{host_port}"
            if key in taken:
                errors.append(duplicate(f"{path}[{i}].ports[{j}].hostPort", key))
            taken.add(key)


def _mounts(container: Obj, facts: PodFacts, path: str, errors: Errors) -> None:
    seen: set[str] = set()
    devices = {d.get("name"): d.get("devicePath") for d in container.get("volumeDevices") or ()}
    for i, mount in enumerate(container["volumeMounts"]):
        at = f"{path}[{i}]"
        name, where = mount.get("name", ""), mount.get("mountPath", "")
        if not name:
            errors.append(required(f"{at}.name"))
        if name not in facts.volumes:
            errors.append(not_found_value(f"{at}.name", name))
        if not where:
            errors.append(required(f"{at}.mountPath"))
        if where in seen:
            errors.append(invalid_value(f"{at}.mountPath", where, "must be unique"))
        seen.add(where)
        if name and name in devices:
            detail = "must not already exist in volumeDevices"
            errors.append(invalid_value(f"{at}.name", name, detail))
        if where and where in devices.values():
            detail = "must not already exist as a path in volumeDevices"
            errors.append(invalid_value(f"{at}.mountPath", where, detail))
        if mount.get("subPath"):
            local_path(mount["subPath"], f"{at}.subPath", errors)
        if mount.get("subPathExpr"):
            if mount.get("subPath"):
                detail = "subPathExpr and subPath are mutually exclusive"
                errors.append(invalid_value(f"{at}.subPathExpr", mount["subPathExpr"], detail))
            local_path(mount["subPathExpr"], f"{at}.subPathExpr", errors)
        if "mountPropagation" in mount:
            _propagation(mount["mountPropagation"], container, f"{path}.mountPropagation", errors)
        if "recursiveReadOnly" in mount:
            _recursive_read_only(mount, f"{path}.recursiveReadOnly", errors)


def _propagation(value: str, container: Obj, path: str, errors: Errors) -> None:
    one_of(value, ("Bidirectional", "HostToContainer", "None"), path, errors)
    privileged = (container.get("securityContext") or {}).get("privileged")
    if value == "Bidirectional" and not privileged:
        detail = "Bidirectional mount propagation is available only to privileged containers"
        errors.append(forbidden_field(path, detail))


def _recursive_read_only(mount: Obj, path: str, errors: Errors) -> None:
    value = mount["recursiveReadOnly"]
    if value not in ("Disabled", "Enabled", "IfPossible"):
        errors.append(not_supported(path, value, ("Disabled", "Enabled", "IfPossible")))
    elif value != "Disabled":
        if not mount.get("readOnly"):
            detail = "may only be specified when readOnly is true"
            errors.append(forbidden_field(path, detail))
        if mount.get("mountPropagation", "None") != "None":
            detail = "may only be specified when mountPropagation is None or not specified"
            errors.append(forbidden_field(path, detail))


def _devices(container: Obj, facts: PodFacts, path: str, errors: Errors) -> None:
    seen_names: set[str] = set()
    seen_paths: set[str] = set()
    mounted = {m.get("name"): m.get("mountPath") for m in container.get("volumeMounts") or ()}
    for i, device in enumerate(container["volumeDevices"]):
        at = f"{path}[{i}]"
        name, where = device.get("name", ""), device.get("devicePath", "")
        if not name:
            errors.append(required(f"{at}.name"))
        if name in seen_names:
            errors.append(invalid_value(f"{at}.name", name, "must be unique"))
        if name in facts.volumes:
            volume = facts.volumes[name]
            if not ({"persistentVolumeClaim", "ephemeral"} & volume.keys()):
                detail = (
                    "can only use volume source type of PersistentVolumeClaim or Ephemeral for"
                    " block mode"
                )
                errors.append(invalid_value(f"{at}.name", name, detail))
        else:
            errors.append(not_found_value(f"{at}.name", name))
        if not where:
            errors.append(required(f"{at}.devicePath"))
        if where and where in seen_paths:
            errors.append(invalid_value(f"{at}.devicePath", where, "must be unique"))
        if ".." in where.split("/"):
            detail = "can not contain backsteps ('..')"
            errors.append(invalid_value(f"{at}.devicePath", where, detail))
        else:
            seen_paths.add(where)
        if name and name in mounted:
            detail = "must not already exist in volumeMounts"
            errors.append(invalid_value(f"{at}.name", name, detail))
        if where and where in mounted.values():
            detail = "must not already exist as a path in volumeMounts"
            errors.append(invalid_value(f"{at}.devicePath", where, detail))
        if name:
            seen_names.add(name)


def _resize_policy(policies: list[Obj], path: str, errors: Errors) -> None:
    seen: set[str] = set()
    for i, policy in enumerate(policies):
        name, restart = policy.get("resourceName", ""), policy.get("restartPolicy", "")
        if name in seen:
            errors.append(duplicate(f"{path}[{i}]", name))
        seen.add(name)
        if name not in ("cpu", "memory"):
            errors.append(not_supported(path, name, ("cpu", "memory")) if name else required(path))
        if restart not in ("NotRequired", "RestartContainer"):
            known = ("NotRequired", "RestartContainer")
            errors.append(not_supported(path, restart, known) if restart else required(path))
