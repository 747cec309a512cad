"""Patch bodies of all types as one function from old to new."""

from __future__ import annotations

from collections.abc import Callable

import orjson

from k8slite.api.codec import check_depth
from k8slite.api.kinds import Kind
from k8slite.api.meta import Obj
from k8slite.api.patch import json_patch, merge_patch, strategic_merge_patch
from k8slite.api.status import bad_request, unsupported_media_type

__all__ = ["apply_patch"]

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
_OPERATIONS_MAX = 10_000


def apply_patch(kind: Kind, media: str, body: bytes) -> Callable[[Obj], Obj]:
    """Old to new; raises ApiError there and here (400, 415, 422)."""
    if media not in (JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH):
        raise unsupported_media_type()
    try:
        given = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise bad_request(f"error decoding patch: {error}") from None
    check_depth(given, body)
    if media == JSON_PATCH:
        if not isinstance(given, list):
            found = "object" if isinstance(given, dict) else type(given).__name__
            raise bad_request(
                f"error decoding patch: json: cannot unmarshal {found} into Go value of type "
                "[]handlers.jsonPatchOp"
            )
        if len(given) > _OPERATIONS_MAX:
            raise bad_request(
                "The allowed maximum operations in a JSON patch is "
                f"{_OPERATIONS_MAX}, got {len(given)}"
            )
        return lambda old: json_patch(old, given)
    if not isinstance(given, dict):
        raise bad_request("error decoding patch: json: cannot unmarshal array into Go value")
    if media == MERGE_PATCH:
        return lambda old: merge_patch(old, given)
    return lambda old: strategic_merge_patch(kind, old, given)
