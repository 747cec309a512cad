"""JSON merge patch (RFC 7386): maps are merged, null deletes, all else replaces."""

from __future__ import annotations

from typing import Any

from k8slite.api.meta import Obj, copy


def merge_patch(obj: Any, patch: Any) -> Any:
    """A new value; neither argument is changed, and the result shares nothing with the patch."""
    if not isinstance(patch, dict):
        return copy(patch)
    out: Obj = dict(obj) if isinstance(obj, dict) else {}
    for key, value in patch.items():
        if value is None:
            out.pop(key, None)
        elif isinstance(value, dict):
            out[key] = merge_patch(out.get(key), value)
        else:
            out[key] = copy(value)
    return out


def create_merge_patch(old: Obj, new: Obj) -> Obj:
    """The smallest merge patch that makes `new` of `old` (lists are replaced whole)."""
    patch: Obj = {key: None for key in old if key not in new}
    for key, value in new.items():
        if key not in old:
            patch[key] = copy(value)
        elif old[key] != value:
            both = isinstance(value, dict) and isinstance(old[key], dict)
            patch[key] = create_merge_patch(old[key], value) if both else copy(value)
    return patch
