"""Custom resources: what their definition's schema says takes the place of our own tables."""

from __future__ import annotations

from k8slite.api.custom import CustomKind, apply_schema_defaults, prune, validate_custom
from k8slite.api.meta import Obj
from k8slite.api.status import ApiError, FieldError, bad_request, resource_not_found
from k8slite.api.validation.objectmeta import (
    validate_kept_meta,
    validate_meta_update,
    validate_object_meta,
)
from k8slite.apiserver.call import Call
from k8slite.apiserver.registry.strategy import Strategy

__all__ = ["CustomStrategy", "DefinitionStrategy"]

CLEANUP = "customresourcecleanup.apiextensions.k8s.io"


class CustomStrategy(Strategy):
    """See the module."""

    unconditional_update = False

    def decoded(self, call: Call, obj: Obj, level: str) -> None:
        unknown: list[str] = []
        prune(_definition(call).schema, obj, unknown)
        for path in unknown:
            if level == "Strict":
                shown = ", ".join(f'unknown field "{p}"' for p in unknown)
                raise bad_request(
                    f'{call.kind.kind} in version "{call.kind.version}" cannot be handled as a '
                    f"{call.kind.kind}: strict decoding error: {shown}"
                )
            if level == "Warn":
                call.warn(f'unknown field "{path}"')

    def defaults(self, call: Call, obj: Obj) -> None:
        definition = _definition(call)
        apply_schema_defaults(definition.schema, obj)
        if definition.deprecation_warning:
            call.warn(definition.deprecation_warning)

    def prepare_create(self, call: Call, obj: Obj) -> None:
        if _definition(call).terminating:
            message = "create not allowed while custom resource definition is terminating"
            raise ApiError(405, "MethodNotAllowed", message, {})
        obj["metadata"]["generation"] = 1
        if "status" in call.kind.subresources:
            obj.pop("status", None)

    def prepare_update(self, call: Call, new: Obj, old: Obj) -> None:
        ignored = {"metadata"}
        if "status" in call.kind.subresources:
            ignored.add("status")
            _take(new, old, "status")
        wanted = [{k: v for k, v in obj.items() if k not in ignored} for obj in (new, old)]
        if wanted[0] != wanted[1]:
            new["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1

    def prepare_status(self, call: Call, new: Obj, old: Obj) -> None:
        for key in [*new, *old]:
            if key not in ("status", "apiVersion", "kind"):
                _take(new, old, key)

    def validate_create(self, call: Call, obj: Obj) -> list[FieldError]:
        return [*validate_object_meta(call.kind, obj), *validate_custom(_definition(call), obj)]

    def validate_update(self, call: Call, new: Obj, old: Obj) -> list[FieldError]:
        return [
            *validate_kept_meta(call.kind, new),
            *validate_meta_update(new, old),
            *validate_custom(_definition(call), new, old),
        ]

    def validate_status(self, call: Call, new: Obj, old: Obj) -> list[FieldError]:
        return self.validate_update(call, new, old)


class DefinitionStrategy(Strategy):
    """A definition goes after the last of its resources."""

    unconditional_update = False

    def deletion_finalizers(self, call: Call, obj: Obj) -> tuple[str, ...]:
        spec = obj["spec"]
        cache = call.core.mirror.raw_cache(spec["group"], spec["names"]["plural"])
        return (CLEANUP,) if cache.entries else ()


def _definition(call: Call) -> CustomKind:
    found = call.core.kinds.custom(call.kind)
    if found is None:  # the definition went while the request was on its way
        raise resource_not_found()
    return found


def _take(new: Obj, old: Obj, key: str) -> None:
    if key in old:
        new[key] = old[key]
    else:
        new.pop(key, None)
