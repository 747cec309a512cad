"""Environment variables of containers, and the references that they and volumes make."""

from __future__ import annotations

import re

from k8slite.api import names
from k8slite.api.meta import Obj
from k8slite.api.status import (
    invalid_value,
    not_found_value,
    not_supported,
    required,
)
from k8slite.api.validation.common import (
    Errors,
    check_all,
    one_of,
)
from k8slite.api.validation.probes import PodFacts


def validate_env(env: list[Obj], facts: PodFacts, path: str, errors: Errors) -> None:
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


def validate_env_from(sources: list[Obj], path: str, errors: Errors) -> None:
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
