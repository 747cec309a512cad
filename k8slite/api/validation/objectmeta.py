"""metadata of any object: names, labels, owners, finalizers; what an update may change of them."""

from __future__ import annotations

from k8slite.api import names
from k8slite.api.kinds import Kind
from k8slite.api.meta import Obj
from k8slite.api.status import (
    FieldError,
    forbidden_field,
    invalid_value,
    required,
)

ANNOTATIONS_MAX_BYTES = 256 * 1024
IMMUTABLE = "field is immutable"
_STANDARD_FINALIZERS = frozenset(("kubernetes", "orphan", "foregroundDeletion"))

_PATH_NAMES = (
    "roles.rbac.authorization.k8s.io",
    "rolebindings.rbac.authorization.k8s.io",
    "clusterroles.rbac.authorization.k8s.io",
    "clusterrolebindings.rbac.authorization.k8s.io",
    "apiservices.apiregistration.k8s.io",
)
NAME_CHECKS: dict[str, names.Check] = {
    "namespaces": names.check_dns_label,
    "services": names.check_dns_label,
    **dict.fromkeys(_PATH_NAMES, names.check_path_segment),
}
"""Kinds whose names are no DNS subdomain."""


def validate_object_meta(kind: Kind, o: Obj) -> list[FieldError]:
    check = NAME_CHECKS.get(kind.resource, names.check_dns_subdomain)
    return validate_meta(o["metadata"], kind.namespaced, check, "metadata")


def validate_kept_meta(kind: Kind, o: Obj) -> list[FieldError]:
    """Errors of the metadata of an update; its name was good enough once."""
    return validate_meta(o["metadata"], kind.namespaced, names.check_path_segment, "metadata")


def validate_meta(
    metadata: Obj, namespaced: bool, check: names.Check, path: str
) -> list[FieldError]:
    """Errors of one ObjectMeta. `check` is the grammar of the kind's names."""
    errors: list[FieldError] = []
    prefix = metadata.get("generateName")
    if prefix:
        for message in check(names.as_prefix(prefix)):
            errors.append(invalid_value(f"{path}.generateName", prefix, message))
    name = metadata.get("name")
    if not name:
        errors.append(required(f"{path}.name", "name or generateName is required"))
    else:
        for message in check(name):
            errors.append(invalid_value(f"{path}.name", name, message))
    space = metadata.get("namespace")
    if namespaced:
        if not space:
            errors.append(required(f"{path}.namespace"))
        else:
            for message in names.check_dns_label(space):
                errors.append(invalid_value(f"{path}.namespace", space, message))
    elif space:
        errors.append(forbidden_field(f"{path}.namespace", "not allowed on this type"))
    generation = metadata.get("generation")
    if generation is not None and generation < 0:
        message = "must be greater than or equal to 0"
        errors.append(invalid_value(f"{path}.generation", generation, message))
    _validate_tags(metadata, path, errors)
    if metadata.get("finalizers"):
        _validate_finalizers(metadata["finalizers"], f"{path}.finalizers", errors)
    return errors


def _validate_tags(metadata: Obj, path: str, errors: list[FieldError]) -> None:
    if metadata.get("labels"):
        validate_labels(metadata["labels"], f"{path}.labels", errors)
    if metadata.get("annotations"):
        validate_annotations(metadata["annotations"], f"{path}.annotations", errors)
    if metadata.get("ownerReferences"):
        _validate_owners(metadata["ownerReferences"], f"{path}.ownerReferences", errors)


def validate_labels(labels: dict[str, str], path: str, errors: list[FieldError]) -> None:
    for key, value in labels.items():
        for message in names.check_qualified_name(key):
            errors.append(invalid_value(path, key, message))
        for message in names.check_label_value(value):
            errors.append(invalid_value(path, value, message))


def validate_annotations(annotations: dict[str, str], path: str, errors: list[FieldError]) -> None:
    size = 0
    for key, value in annotations.items():
        for message in names.check_qualified_name(key.lower()):
            errors.append(invalid_value(path, key, message))
        size += len(key.encode()) + len(value.encode())
    if size > ANNOTATIONS_MAX_BYTES:
        detail = f"may not be more than {ANNOTATIONS_MAX_BYTES} bytes"
        errors.append(FieldError("Too long", path, "", detail))


def _validate_owners(owners: list[Obj], path: str, errors: list[FieldError]) -> None:
    controller = ""
    for owner in owners:
        group, _, version = owner.get("apiVersion", "").rpartition("/")
        if not version:
            errors.append(
                invalid_value(
                    f"{path}.apiVersion", owner.get("apiVersion", ""), "version must not be empty"
                )
            )
        for field in ("kind", "name", "uid"):
            if not owner.get(field):
                errors.append(invalid_value(f"{path}.{field}", "", "must not be empty"))
        if group == "" and version == "v1" and owner.get("kind") == "Event":
            shown = f"{owner['apiVersion']}, Kind={owner['kind']}"
            errors.append(invalid_value(path, owner, f"{shown} is disallowed from being an owner"))
        if owner.get("controller"):
            if controller:
                message = (
                    'Only one reference can have Controller set to true. Found "true" in'
                    " references for"
                    f" {controller} and {owner.get('name', '')}"
                )
                errors.append(invalid_value(path, owners, message))
            else:
                controller = owner.get("name", "")


def _validate_finalizers(finalizers: list[str], path: str, errors: list[FieldError]) -> None:
    for i, name in enumerate(finalizers):
        for message in check_finalizer(name):
            errors.append(invalid_value(f"{path}[{i}]", name, message))
    if "orphan" in finalizers and "foregroundDeletion" in finalizers:
        message = "finalizer orphan and foregroundDeletion cannot be both set"
        errors.append(invalid_value(path, finalizers, message))


def check_finalizer(name: str) -> list[str]:
    problems = names.check_qualified_name(name)
    if not problems and "/" not in name and name not in _STANDARD_FINALIZERS:
        problems.append("name is neither a standard finalizer name nor is it fully qualified")
    return problems


def validate_meta_update(new: Obj, old: Obj) -> list[FieldError]:
    """What may not change. The server has filled in what the client left out (uid, times)
    before.
    """
    errors: list[FieldError] = []
    now, was = new["metadata"], old["metadata"]
    if now.get("generation", 0) < was.get("generation", 0):
        errors.append(
            invalid_value(
                "metadata.generation", now.get("generation", 0), "must not be decremented"
            )
        )
    if was.get("deletionTimestamp"):
        added = sorted(set(now.get("finalizers") or ()) - set(was.get("finalizers") or ()))
        if added:
            shown = ", ".join(f'"{f}"' for f in added)
            detail = (
                "no new finalizers can be added if the object is being deleted, found new"
                f" finalizers []string{{{shown}}}"
            )
            errors.append(forbidden_field("metadata.finalizers", detail))
    for field in ("name", "namespace", "uid", "creationTimestamp", "deletionTimestamp"):
        if (now.get(field) or None) != (was.get(field) or None):
            errors.append(invalid_value(f"metadata.{field}", now.get(field), IMMUTABLE))
    if now.get("deletionGracePeriodSeconds") != was.get("deletionGracePeriodSeconds"):
        value = now.get("deletionGracePeriodSeconds")
        errors.append(invalid_value("metadata.deletionGracePeriodSeconds", value, IMMUTABLE))
    _validate_tags(now, "metadata", errors)
    return errors
