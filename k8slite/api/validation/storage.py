"""Persistent volumes and claims."""

from __future__ import annotations

from k8slite.api import names, quantity
from k8slite.api.meta import Obj
from k8slite.api.status import (
    NULL,
    FieldError,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
)
from k8slite.api.validation import scheduling, volumes
from k8slite.api.validation.claims import access_modes, claim_spec
from k8slite.api.validation.common import (
    Errors,
    check_all,
    one_of,
)
from k8slite.api.validation.objectmeta import IMMUTABLE


def validate_claim(o: Obj) -> list[FieldError]:
    errors: Errors = []
    claim_spec(o.get("spec") or {}, "spec", errors)
    return errors


_CLAIM_MUTABLE = frozenset(("volumeName", "resources", "volumeAttributesClassName"))


def validate_claim_update(new: Obj, old: Obj) -> list[FieldError]:
    errors = validate_claim(new)
    spec, was = new.get("spec") or {}, old.get("spec") or {}
    changed = {k for k in spec.keys() | was.keys() if spec.get(k) != was.get(k)}
    bound_now = "volumeName" in changed and not was.get("volumeName")
    if changed - _CLAIM_MUTABLE or ("volumeName" in changed and not bound_now):
        detail = (
            "spec is immutable after creation except resources.requests and"
            " volumeAttributesClassName for bound claims\n"
        )
        errors.append(forbidden_field("spec", detail))
    before = ((was.get("resources") or {}).get("requests") or {}).get("storage", "0")
    after = ((spec.get("resources") or {}).get("requests") or {}).get("storage", "0")
    if quantity.parse(after) < quantity.parse(before):
        detail = "field can not be less than status.capacity"
        errors.append(forbidden_field("spec.resources.requests.storage", detail))
    return errors


_RECLAIM = ("Delete", "Recycle", "Retain")


def validate_persistent_volume(o: Obj) -> list[FieldError]:
    errors: Errors = []
    spec = o.get("spec") or {}
    if spec.get("accessModes"):
        access_modes(spec["accessModes"], "spec.accessModes", errors)
    else:
        errors.append(required("spec.accessModes"))
    capacity = spec.get("capacity") or {}
    if not capacity:
        errors.append(required("spec.capacity"))
    if set(capacity) != {"storage"}:
        errors.append(not_supported("spec.capacity", capacity or NULL, ("storage",)))
    for name, text in capacity.items():
        at = f"spec.capacity[{name}]"
        if quantity.parse(text) <= 0:
            errors.append(invalid_value(at, text, "must be greater than zero"))
    policy = spec.get("persistentVolumeReclaimPolicy")
    if policy:
        one_of(policy, _RECLAIM, "spec.persistentVolumeReclaimPolicy", errors)
    if "nodeAffinity" in spec:
        selector = spec["nodeAffinity"].get("required")
        at = "spec.nodeAffinity.required"
        if selector is None:
            errors.append(required(at, "must specify required node constraints"))
        else:
            scheduling.node_selector(selector, at, errors)
    _volume_source(spec, errors)
    class_name = spec.get("storageClassName")
    if class_name:
        at = "spec.storageClassName"
        check_all(names.check_dns_subdomain(class_name), at, class_name, errors)
    if "volumeMode" in spec:
        one_of(spec["volumeMode"], ("Block", "Filesystem"), "spec.volumeMode", errors)
    attributes = spec.get("volumeAttributesClassName")
    if attributes is not None:
        _attributes_class(spec, attributes, errors)
    return errors


def _attributes_class(spec: Obj, value: str, errors: Errors) -> None:
    at = "spec.volumeAttributesClassName"
    if not value:
        errors.append(required(at, "an empty string is disallowed"))
    else:
        check_all(names.check_dns_subdomain(value), at, value, errors)
    if "csi" not in spec:
        detail = "has to be specified when using volumeAttributesClassName"
        errors.append(required("spec.csi", detail))


def _volume_source(spec: Obj, errors: Errors) -> None:
    count = 0
    for field, check in PERSISTENT_SOURCES.items():
        source = spec.get(field)
        if source is None:
            continue
        path = f"spec.{_PATHS.get(field, field)}"
        if field == "flexVolume":
            check(source, path, errors)
        elif count:
            at = "spec.cephFS" if field == "cephfs" else f"spec.{field}"
            errors.append(forbidden_field(at, "may not specify more than 1 volume type"))
        else:
            check(source, path, errors)
        count += 1
    if count == 0:
        errors.append(required("spec", "must specify a volume type"))
    if (spec.get("hostPath") or {}).get("path") == "/" and spec.get(
        "persistentVolumeReclaimPolicy"
    ) == "Recycle":
        detail = "may not be 'recycle' for a hostPath mount of '/'"
        errors.append(forbidden_field("spec.persistentVolumeReclaimPolicy", detail))


_PATHS = {"gcePersistentDisk": "persistentDisk"}


def _local(source: Obj, path: str, errors: Errors) -> None:
    where = source.get("path", "")
    if not where:
        errors.append(required(f"{path}.path"))
    elif ".." in where.split("/"):
        errors.append(invalid_value(f"{path}.path", where, "must not contain '..'"))


def _csi(source: Obj, path: str, errors: Errors) -> None:
    volumes.csi_driver_name(source.get("driver", ""), f"{path}.driver", errors)
    if not source.get("volumeHandle"):
        errors.append(required(f"{path}.volumeHandle"))
    for field in (
        "controllerPublishSecretRef",
        "controllerExpandSecretRef",
        "nodePublishSecretRef",
        "nodeExpandSecretRef",
        "nodeStageSecretRef",
    ):
        if field in source:
            _secret_reference(source[field], f"{path}.{field}", errors)


def _secret_reference(reference: Obj, path: str, errors: Errors) -> None:
    for field in ("name", "namespace"):
        value = reference.get(field, "")
        if not value:
            errors.append(required(f"{path}.{field}"))


def _with_secret(check: volumes.Check) -> volumes.Check:
    def both(source: Obj, path: str, errors: Errors) -> None:
        check(source, path, errors)
        if "secretRef" in source:
            _secret_reference(source["secretRef"], f"{path}.secretRef", errors)

    return both


PERSISTENT_SOURCES: dict[str, volumes.Check] = {
    "hostPath": volumes.host_path,
    "gcePersistentDisk": volumes.partitioned("pdName"),
    "awsElasticBlockStore": volumes.partitioned("volumeID"),
    "glusterfs": volumes.needs("endpoints", "path"),
    "flocker": volumes.SOURCES["flocker"],
    "nfs": volumes.nfs,
    "rbd": volumes.needs("monitors", "image"),
    "quobyte": volumes.SOURCES["quobyte"],
    "cephfs": volumes.needs("monitors"),
    "iscsi": volumes.iscsi,
    "cinder": _with_secret(volumes.needs("volumeID")),
    "fc": volumes.SOURCES["fc"],
    "flexVolume": volumes.needs("driver"),
    "azureFile": volumes.needs("secretName", "shareName"),
    "vsphereVolume": volumes.needs("volumePath"),
    "photonPersistentDisk": volumes.needs("pdID"),
    "portworxVolume": volumes.needs("volumeID"),
    "azureDisk": volumes.SOURCES["azureDisk"],
    "scaleIO": volumes.needs("gateway", "system", "volumeName"),
    "local": _local,
    "storageos": volumes.SOURCES["storageos"],
    "csi": _csi,
}


def validate_persistent_volume_update(new: Obj, old: Obj) -> list[FieldError]:
    errors = validate_persistent_volume(new)
    spec, was = new.get("spec") or {}, old.get("spec") or {}
    for field in PERSISTENT_SOURCES:
        if spec.get(field) != was.get(field):
            detail = "spec.persistentvolumesource is immutable after creation\n"
            errors.append(forbidden_field("spec.persistentvolumesource", detail))
            break
    if spec.get("volumeMode") != was.get("volumeMode"):
        errors.append(invalid_value("spec.volumeMode", spec.get("volumeMode"), IMMUTABLE))
    return errors
