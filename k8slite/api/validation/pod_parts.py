"""What may change of a pod through pods/ephemeralcontainers and pods/resize. Pure."""

from __future__ import annotations

from typing import Any

from k8slite.api import quantity
from k8slite.api.meta import Obj, copy
from k8slite.api.qos import qos_class
from k8slite.api.status import FieldError, forbidden_field, invalid_value
from k8slite.api.validation.common import Errors
from k8slite.api.validation.objectmeta import validate_meta_update
from k8slite.api.validation.pods import validate_pod_spec

__all__ = ["validate_ephemeral_update", "validate_resize"]

_MIRROR = "kubernetes.io/config.mirror"
_RESIZABLE = ("cpu", "memory")


def validate_ephemeral_update(new: Obj, old: Obj) -> list[FieldError]:
    """They may be added, never changed or removed."""
    errors: Errors = [*validate_meta_update(new, old)]
    validate_pod_spec(new["spec"], "spec", errors)
    path = "spec.ephemeralContainers"
    if _MIRROR in (old["metadata"].get("annotations") or {}):
        errors.append(forbidden_field(path, "static pods do not support ephemeral containers"))
    was = {c["name"]: c for c in old["spec"].get("ephemeralContainers") or ()}
    now: dict[Any, Obj] = {c.get("name"): c for c in new["spec"].get("ephemeralContainers") or ()}
    for name, container in was.items():
        if name not in now:
            detail = f'existing ephemeral containers "{name}" may not be removed\n'
            errors.append(forbidden_field(path, detail))
        elif now[name] != container:
            detail = f'existing ephemeral containers "{name}" may not be changed\n'
            errors.append(forbidden_field(path, detail))
    return errors


def validate_resize(new: Obj, old: Obj) -> list[FieldError]:
    """Requests and limits of cpu and memory may change, as long as the class of the pod stays."""
    errors: Errors = [*validate_meta_update(new, old)]
    validate_pod_spec(new["spec"], "spec", errors)
    if errors:
        return errors
    if (old["spec"].get("os") or {}).get("name") == "windows":
        return [forbidden_field("spec", "windows pods may not be resized")]
    for field in ("containers", "initContainers"):
        before, after = old["spec"].get(field) or [], new["spec"].get(field) or []
        if [c.get("name") for c in before] != [c.get("name") for c in after]:
            detail = "pod updates may not add or remove containers"
            return [forbidden_field(f"spec.{field}", detail)]
        for i, (mine, theirs) in enumerate(zip(after, before, strict=True)):
            _container(mine, theirs, f"spec.{field}[{i}].resources", errors)
    if _without_resources(new["spec"]) != _without_resources(old["spec"]):
        errors.append(forbidden_field("spec", "only cpu and memory resources are mutable"))
    before_class = (old.get("status") or {}).get("qosClass") or qos_class(old)
    if not errors and qos_class(new) != before_class:
        detail = "Pod QOS Class may not change as a result of resizing"
        errors.append(invalid_value("spec", before_class, detail))
    return errors


def _container(mine: Obj, theirs: Obj, path: str, errors: Errors) -> None:
    for part in ("requests", "limits"):
        was = (theirs.get("resources") or {}).get(part) or {}
        now = (mine.get("resources") or {}).get(part) or {}
        errors += [
            forbidden_field(f"{path}.{part}", f"resource {part} cannot be removed")
            for name in _RESIZABLE
            if name in was and name not in now
        ]


def _without_resources(spec: Obj) -> Obj:
    """The spec without what a resize may change; quantities in one form."""
    rest: Obj = copy(spec)
    for field in ("containers", "initContainers"):
        for container in rest.get(field) or ():
            resources = container.pop("resources", None) or {}
            container.pop("resizePolicy", None)
            kept = {
                part: {
                    name: quantity.parse(text)
                    for name, text in (resources.get(part) or {}).items()
                    if name not in _RESIZABLE
                }
                for part in ("requests", "limits")
            }
            container["resources"] = {**kept, "claims": resources.get("claims")}
    return rest
