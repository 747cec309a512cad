"""Whether an object may be stored. One table; a kind without an entry has its metadata checked."""

from __future__ import annotations

from collections.abc import Callable

from k8slite.api.kinds import Kind
from k8slite.api.meta import Obj
from k8slite.api.status import FieldError
from k8slite.api.validation import pods
from k8slite.api.validation.objectmeta import validate_meta_update, validate_object_meta

CREATE: dict[str, Callable[[Obj], list[FieldError]]] = {
    "pods": pods.validate_pod,
}
UPDATE: dict[str, Callable[[Obj, Obj], list[FieldError]]] = {
    "pods": pods.validate_pod_update,
}


def validate_create(kind: Kind, obj: Obj) -> list[FieldError]:
    """Errors of a new object, in kube-apiserver's order; empty: it may be stored."""
    errors = validate_object_meta(kind, obj)
    check = CREATE.get(kind.resource)
    if check is not None:
        errors += check(obj)
    return errors


def validate_update(kind: Kind, new: Obj, old: Obj) -> list[FieldError]:
    errors = validate_meta_update(new, old)
    check = UPDATE.get(kind.resource)
    if check is not None:
        errors += check(new, old)
    return errors
