"""The spec of a persistent volume claim, on its own or as a template."""

from __future__ import annotations

from k8slite.api import names
from k8slite.api.meta import Obj
from k8slite.api.status import (
    forbidden_field,
    invalid_value,
    required,
)
from k8slite.api.validation.common import (
    Errors,
    check_all,
    label_selector,
    one_of,
    quantity_not_negative,
)

ACCESS_MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")


def access_modes(modes: list[str] | None, path: str, errors: Errors) -> None:
    if not modes:
        errors.append(required(path, "at least 1 access mode is required"))
    for mode in modes or ():
        one_of(mode, ACCESS_MODES, path, errors)
    if modes and "ReadWriteOncePod" in modes and len(set(modes)) > 1:
        detail = "may not use ReadWriteOncePod with other access modes"
        errors.append(forbidden_field(path, detail))


def claim_spec(spec: Obj, path: str, errors: Errors) -> None:
    """The spec of a persistent volume claim, also as a template."""
    access_modes(spec.get("accessModes"), f"{path}.accessModes", errors)
    if spec.get("selector"):
        label_selector(spec["selector"], f"{path}.selector", errors)
    storage = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    if storage is None:
        errors.append(required(f"{path}.resources[storage]"))
    else:
        quantity_not_negative(storage, f"{path}.resources[storage]", errors)
        if not any(c in "123456789" for c in storage):
            detail = "must be greater than zero"
            errors.append(invalid_value(f"{path}.resources[storage]", storage, detail))
    class_name = spec.get("storageClassName")
    if class_name:
        check_all(
            names.check_dns_subdomain(class_name), f"{path}.storageClassName", class_name, errors
        )
    if "volumeMode" in spec:
        one_of(spec["volumeMode"], ("Block", "Filesystem"), f"{path}.volumeMode", errors)
    _data_source(spec.get("dataSource"), f"{path}.dataSource", errors, False)
    _data_source(spec.get("dataSourceRef"), f"{path}.dataSourceRef", errors, True)
    attributes = spec.get("volumeAttributesClassName")
    if attributes:
        at = f"{path}.volumeAttributesClassName"
        check_all(names.check_dns_subdomain(attributes), at, attributes, errors)


def _data_source(source: Obj | None, path: str, errors: Errors, _reference: bool) -> None:
    if source is None:
        return
    group, kind = source.get("apiGroup") or "", source.get("kind", "")
    if not source.get("name"):
        errors.append(required(f"{path}.name"))
    if not kind:
        errors.append(required(f"{path}.kind"))
    if not group and kind != "PersistentVolumeClaim":
        detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup"
        errors.append(invalid_value(path, kind, detail))
    if group:
        check_all(names.check_dns_subdomain(group), f"{path}.apiGroup", group, errors)
