"""Containers of a pod: the three sorts, their ports, environment, mounts, probes and handlers."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

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
    not_negative,
    one_of,
    port_number,
    port_number_or_name,
)
from k8slite.api.validation.resources import resource_requirements

PROTOCOLS = ("SCTP", "TCP", "UDP")
PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc", "sleep")
_EPHEMERAL_FORBIDDEN = (
    "ports",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "resources",
    "resizePolicy",
)


class PodFacts(NamedTuple):
    """What a container's checks need to know of its pod."""

    volumes: dict[str, Obj]
    claims: list[str]
    restart_policy: str
    grace_seconds: int
    host_network: bool
    windows: bool


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
            _lifecycle(container["lifecycle"], facts, f"{at}.lifecycle", errors)
        _probes(container, facts, at, errors)
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
                _lifecycle(container["lifecycle"], facts, f"{at}.lifecycle", errors)
            _probes(container, facts, at, errors)
        else:
            for field in ("lifecycle", *_PROBES):
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
        _env(container["env"], facts, f"{path}.env", errors)
    if container.get("envFrom"):
        _env_from(container["envFrom"], f"{path}.envFrom", errors)
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


def _env(env: list[Obj], facts: PodFacts, path: str, errors: Errors) -> None:
    for i, variable in enumerate(env):
        at = f"{path}[{i}]"
        name = variable.get("name")
        if not name:
            errors.append(required(f"{at}.name"))
        else:
            check_all(names.check_env_var_name(name), f"{at}.name", name, errors)
        if "valueFrom" in variable:
            _value_from(variable, facts, f"{at}.valueFrom", errors)


def _value_from(variable: Obj, facts: PodFacts, path: str, errors: Errors) -> None:
    source = variable["valueFrom"]
    count = 0
    if "fieldRef" in source:
        count += 1
        field_reference(source["fieldRef"], ENV_FIELDS, f"{path}.fieldRef", errors)
    if "resourceFieldRef" in source:
        count += 1
        resource_field_reference(
            source["resourceFieldRef"], f"{path}.resourceFieldRef", errors, False
        )
    for field in ("configMapKeyRef", "secretKeyRef"):
        if field in source:
            count += 1
            _key_reference(source[field], f"{path}.{field}", errors)
    if "fileKeyRef" in source:
        count += 1
        _file_key(source["fileKeyRef"], facts, f"{path}.fileKeyRef", errors)
    if count == 0:
        detail = (
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef`"
            " or `fileKeyRef`"
        )
        errors.append(invalid_value(path, "", detail))
    elif variable.get("value"):
        detail = "may not be specified when `value` is not empty"
        errors.append(invalid_value(path, "", detail))
    elif count > 1:
        detail = "may not have more than one field specified at a time"
        errors.append(invalid_value(path, "", detail))


ENV_FIELDS = (
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
)
VOLUME_FIELDS = (
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
)
RESOURCE_FIELDS = (
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
)
_KNOWN_LABELS = frozenset(
    (
        *ENV_FIELDS,
        *VOLUME_FIELDS,
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.hostNetwork",
        "status.phase",
        "status.nominatedNodeName",
    )
)
_SUBSCRIPT = re.compile(r"(metadata\.(?:labels|annotations))\['(.*)'\]")


def field_reference(reference: Obj, supported: tuple[str, ...], path: str, errors: Errors) -> None:
    """A downward API field: one of a few paths, or one label or annotation by key."""
    if not reference.get("apiVersion"):
        errors.append(required(f"{path}.apiVersion"))
        return
    field = reference.get("fieldPath", "")
    if not field:
        errors.append(required(f"{path}.fieldPath"))
        return
    subscript = _SUBSCRIPT.fullmatch(field)
    if subscript is not None:
        key = subscript[2]
        if subscript[1] == "metadata.annotations":
            key = key.lower()
        check_all(names.check_qualified_name(key), path, subscript[2], errors)
        return
    if field not in _KNOWN_LABELS:
        detail = f"error converting fieldPath: field label not supported: {field}"
        errors.append(invalid_value(f"{path}.fieldPath", field, detail))
        return
    one_of(field, supported, f"{path}.fieldPath", errors)


def resource_field_reference(reference: Obj, path: str, errors: Errors, volume: bool) -> None:
    resource = reference.get("resource", "")
    if volume and not reference.get("containerName"):
        errors.append(required(f"{path}.containerName"))
    elif not resource:
        errors.append(required(f"{path}.resource"))
    elif resource not in RESOURCE_FIELDS and not resource.startswith(
        ("limits.hugepages-", "requests.hugepages-")
    ):
        errors.append(not_supported(f"{path}.resource", resource, RESOURCE_FIELDS))
    divisor = reference.get("divisor", "0")
    if resource in RESOURCE_FIELDS and (not volume or reference.get("containerName")):
        allowed = _DIVISORS["cpu" if resource.endswith("cpu") else "bytes"]
        if divisor not in allowed:
            kind = "cpu" if resource.endswith("cpu") else resource.partition(".")[2]
            errors.append(
                invalid_value(f"{path}.divisor", divisor, _divisor_message(kind, allowed))
            )


_DIVISORS = {
    "cpu": ("0", "1m", "1"),
    "bytes": (
        "0",
        "1",
        "1k",
        "1M",
        "1G",
        "1T",
        "1P",
        "1E",
        "1Ki",
        "1Mi",
        "1Gi",
        "1Ti",
        "1Pi",
        "1Ei",
    ),
}


def _divisor_message(kind: str, allowed: tuple[str, ...]) -> str:
    if kind == "cpu":
        return "only divisor's values 1m and 1 are supported with the cpu resource"
    values = ", ".join(allowed[1:])
    what = "memory" if kind == "memory" else "local ephemeral storage"
    return f"only divisor's values {values} are supported with the {what} resource"


def _key_reference(reference: Obj, path: str, errors: Errors) -> None:
    name = reference.get("name", "")
    check_all(names.check_dns_subdomain(name), f"{path}.name", name, errors)
    key = reference.get("key", "")
    if not key:
        errors.append(required(f"{path}.key"))
    else:
        check_all(names.check_config_key(key), f"{path}.key", key, errors)


def _file_key(reference: Obj, facts: PodFacts, path: str, errors: Errors) -> None:
    key, volume, file = (reference.get(f, "") for f in ("key", "volumeName", "path"))
    if not key:
        errors.append(required(f"{path}.key"))
    else:
        check_all(names.check_env_var_name(key), f"{path}.key", key, errors)
    if not volume:
        errors.append(required(f"{path}.volumeName"))
    else:
        check_all(names.check_dns_label(volume), f"{path}.volumeName", volume, errors)
    if not file:
        errors.append(required(f"{path}.path"))
    else:
        local_path(file, f"{path}.path", errors)
    if volume not in facts.volumes:
        errors.append(not_found_value(f"{path}.volumeName", volume))
    elif "emptyDir" not in facts.volumes[volume]:
        detail = "referenced volume must be of type emptyDir"
        errors.append(invalid_value(f"{path}.volumeName", volume, detail))


def local_path(text: str, path: str, errors: Errors) -> None:
    """A relative path that stays below where it begins."""
    if text.startswith("/"):
        errors.append(invalid_value(path, text, "must be a relative path"))
    if ".." in text.split("/"):
        errors.append(invalid_value(path, text, "must not contain '..'"))


def _env_from(sources: list[Obj], path: str, errors: Errors) -> None:
    for i, source in enumerate(sources):
        at = f"{path}[{i}]"
        prefix = source.get("prefix")
        if prefix:
            check_all(names.check_env_var_name(prefix), f"{at}.prefix", prefix, errors)
        count = 0
        for field in ("configMapRef", "secretRef"):
            if field in source:
                count += 1
                name = source[field].get("name", "")
                where = f"{at}.{field}.name"
                if not name:
                    errors.append(required(where))
                else:
                    check_all(names.check_dns_subdomain(name), where, name, errors)
        if count == 0:
            detail = "must specify one of: `configMapRef` or `secretRef`"
            errors.append(invalid_value(path, "", detail))
        elif count > 1:
            detail = "may not have more than one field specified at a time"
            errors.append(invalid_value(path, "", detail))


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


def _probes(container: Obj, facts: PodFacts, path: str, errors: Errors) -> None:
    for field in _PROBES:
        probe = container.get(field)
        if probe is None:
            continue
        at = f"{path}.{field}"
        _probe(probe, facts, at, errors)
        threshold = probe.get("successThreshold", 1)
        if field != "readinessProbe" and threshold != 1:
            errors.append(invalid_value(f"{at}.successThreshold", threshold, "must be 1"))
        grace = probe.get("terminationGracePeriodSeconds")
        if field == "readinessProbe":
            if grace is not None:
                detail = "must not be set for readinessProbes"
                errors.append(invalid_value(f"{at}.terminationGracePeriodSeconds", grace, detail))
        elif grace is not None and grace <= 0:
            detail = "must be greater than 0"
            errors.append(invalid_value(f"{at}.terminationGracePeriodSeconds", grace, detail))


def _probe(probe: Obj, facts: PodFacts, path: str, errors: Errors) -> None:
    validate_handler(probe, facts, path, errors)
    for field in (
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ):
        not_negative(probe.get(field), f"{path}.{field}", errors)


def validate_handler(handler: Obj, facts: PodFacts, path: str, errors: Errors) -> None:
    """Exactly one of exec, httpGet, tcpSocket, grpc (probes), sleep (lifecycle)."""
    count = 0
    for field in _HANDLERS:
        if field not in handler:
            continue
        at = f"{path}.{field}"
        if count > 0:
            errors.append(forbidden_field(at, "may not specify more than 1 handler type"))
            continue
        count += 1
        action: Any = handler[field]
        if field == "exec":
            if not action.get("command"):
                errors.append(required(f"{at}.command"))
        elif field == "httpGet":
            _http_get(action, at, errors)
        elif field == "tcpSocket":
            port_number_or_name(action.get("port", 0), f"{at}.port", errors)
        elif field == "grpc":
            port_number(action.get("port", 0), f"{at}.port", errors)
        else:
            _sleep(action, facts, at, errors)
    if count == 0:
        errors.append(required(path, "must specify a handler type"))


def _http_get(action: Obj, path: str, errors: Errors) -> None:
    if not action.get("path"):
        errors.append(required(f"{path}.path"))
    port_number_or_name(action.get("port", 0), f"{path}.port", errors)
    one_of(action.get("scheme", ""), ("HTTP", "HTTPS"), f"{path}.scheme", errors)
    for header in action.get("httpHeaders") or ():
        name = header.get("name", "")
        check_all(names.check_http_header_name(name), f"{path}.httpHeaders", name, errors)


def _sleep(action: Obj, facts: PodFacts, path: str, errors: Errors) -> None:
    seconds = action.get("seconds", 0)
    if seconds < 0 or seconds > facts.grace_seconds:
        detail = (
            "must be non-negative and less than terminationGracePeriodSeconds"
            f" ({facts.grace_seconds})"
        )
        errors.append(invalid_value(path, seconds, detail))


def _lifecycle(lifecycle: Obj, facts: PodFacts, path: str, errors: Errors) -> None:
    for field in ("postStart", "preStop"):
        if field in lifecycle:
            validate_handler(lifecycle[field], facts, f"{path}.{field}", errors)
    signal = lifecycle.get("stopSignal")
    if signal is not None:
        if not facts.windows and signal == "":
            errors.append(not_supported(f"{path}.stopSignal", signal, ()))
        errors.append(
            forbidden_field(
                f"{path}.stopSignal", "may not be set for containers with empty `spec.os.name`"
            )
        )
