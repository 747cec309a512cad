"""Which errors of an update are its own: what was already so is not held against it. Pure."""

from __future__ import annotations

from typing import Any

from k8slite.api.cel.rules import list_counterpart
from k8slite.api.meta import Obj
from k8slite.api.status import REQUIRED, FieldError

__all__ = ["that_are_new"]


def that_are_new(schema: Obj, errors: list[FieldError], new: Obj, old: Obj) -> list[FieldError]:
    """Without errors at values that the old object has in the same place, unchanged."""
    return [error for error in errors if not _was_so(schema, error, new, old)]


def _was_so(schema: Any, error: FieldError, new: Any, old: Any) -> bool:
    """Follow the error's path through both objects, as far as both have it."""
    rest = error.field
    while rest:
        if new is not None and new == old:
            return True  # all below is as it was
        if not isinstance(schema, dict):
            return False
        if rest.startswith("["):
            index, _, rest = rest[1:].partition("]")
            if not isinstance(new, list) or not index.isdigit() or int(index) >= len(new):
                return False
            item = new[int(index)]
            old, new, schema = list_counterpart(schema, item, old), item, schema.get("items")
        else:
            name = _next_name(new, rest)
            if name is None:
                # a field that is not there: its parent has changed, or we had not come here
                return error.type == REQUIRED and new == old
            rest = rest[len(name) :]
            before = old if isinstance(old, dict) else {}
            properties = schema.get("properties") or {}
            schema = properties.get(name, schema.get("additionalProperties"))
            old, new = before.get(name), new[name]
        rest = rest.removeprefix(".")
    return new is not None and bool(new == old)


def _next_name(value: Any, path: str) -> str | None:
    """The key with which the path goes on; keys may have dots in them."""
    if not isinstance(value, dict):
        return None
    found = [
        key
        for key in value
        if path == key or (path.startswith(key) and path[len(key) : len(key) + 1] in (".", "["))
    ]
    return max(found, key=len, default=None)
