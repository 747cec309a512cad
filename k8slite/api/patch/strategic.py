"""Strategic merge patch: lists are merged by the keys that the schema gives them.

Directives: `$patch: replace | delete | merge`, `$deleteFromPrimitiveList/x`, `$setElementOrder/x`,
`$retainKeys`. The behaviour is that of k8s.io/apimachinery/pkg/util/strategicpatch: a field without
a merge strategy is replaced, null deletes, and what a patch adds to a list goes behind what is
there unless `$setElementOrder` says otherwise.
"""

from __future__ import annotations

from typing import Any

from k8slite.api.kinds import Kind
from k8slite.api.meta import Obj, copy
from k8slite.api.schema import Field, Type, type_of
from k8slite.api.status import ApiError, bad_request, unsupported_patch_type

_PATCH = "$patch"
_RETAIN = "$retainKeys"
_DELETE_PRIMITIVE = "$deleteFromPrimitiveList/"
_ORDER = "$setElementOrder/"


def strategic_merge_patch(kind: Kind, obj: Obj, patch: Any) -> Obj:
    """The patched copy. Raises ApiError (400 bad directive, 415 for custom resources)."""
    type_ = type_of(kind)
    if type_ is None:
        raise unsupported_patch_type(
            (
                "application/json-patch+json",
                "application/merge-patch+json",
                "application/apply-patch+yaml",
            )
        )
    if not isinstance(patch, dict):
        raise bad_request(
            "error decoding patch: json: cannot unmarshal the patch into Go value of type"
            " map[string]interface {}"
        )
    return _merge_map(type_, copy(obj), copy(patch))


def _bad(message: str) -> ApiError:
    return bad_request(f"error applying patch: {message}")


def _merge_map(type_: Type | None, original: Obj, patch: Obj) -> Obj:
    """Merges `patch` into `original` (changed in place). `type_` None: a map or unknown data."""
    directive = patch.pop(_PATCH, None)
    if directive == "replace":
        return _stripped_map(patch)
    if directive == "delete":
        return {}
    if directive not in (None, "merge"):
        raise _bad(f"unrecognized directive: {directive}")
    _retain_keys(original, patch)
    _delete_primitives(original, patch)
    orders = {k[len(_ORDER) :]: patch.pop(k) for k in list(patch) if k.startswith(_ORDER)}
    for key, value in patch.items():
        if value is None:
            original.pop(key, None)
            continue
        field = type_.fields.get(key) if type_ is not None else None
        if key not in original:
            original[key] = _fresh(field, value)
        elif isinstance(value, dict) and isinstance(original[key], dict):
            original[key] = _merge_dict(field, original[key], value)
        elif isinstance(value, list) and isinstance(original[key], list):
            order = orders.pop(key, None)
            original[key] = _merge_list(field, original[key], value, order)
        else:
            original[key] = value
    for key, order in orders.items():
        field = type_.fields.get(key) if type_ is not None else None
        if isinstance(original.get(key), list) and field is not None:
            original[key] = _ordered(field, original[key], [], original[key], order)
    return original


def _merge_dict(field: Field | None, original: Obj, value: Obj) -> Obj:
    strategy = field.patch_strategy.split(",") if field is not None else []
    if "replace" in strategy:
        value.pop(_PATCH, None)
        return _stripped_map(value)
    inner = field.type if field is not None and field.code == "@" and not field.shape else None
    return _merge_map(inner, original, value)


def _fresh(field: Field | None, value: Any) -> Any:
    """A value put where nothing was: its directives have nothing to act on and vanish."""
    if isinstance(value, dict):
        return _merge_dict(field, {}, value)
    if isinstance(value, list) and field is not None and "merge" in field.patch_strategy:
        return _merge_list(field, [], value, None)
    return _stripped(value)


def _stripped_map(value: Obj) -> Obj:
    stripped: Obj = _stripped(value)
    return stripped


def _stripped(value: Any) -> Any:
    """The value without directives and nulls, which mean nothing outside a merge."""
    if isinstance(value, dict):
        return {
            k: _stripped(v)
            for k, v in value.items()
            if v is not None and not (k in (_PATCH, _RETAIN) or k.startswith(("$set", "$delete")))
        }
    if isinstance(value, list):
        return [_stripped(v) for v in value if not (isinstance(v, dict) and v.keys() == {_PATCH})]
    return value


def _retain_keys(original: Obj, patch: Obj) -> None:
    keys = patch.pop(_RETAIN, None)
    if keys is None:
        return
    if not isinstance(keys, list):
        raise _bad(f"invalid patch format of {_RETAIN}: it must be a list")
    for key, value in patch.items():
        if value is not None and key not in keys and not key.startswith("$"):
            raise _bad(f"the list of retained keys does not hold {key!r}, which the patch sets")
    for key in [k for k in original if k not in keys]:
        del original[key]


def _delete_primitives(original: Obj, patch: Obj) -> None:
    for key in [k for k in patch if k.startswith(_DELETE_PRIMITIVE)]:
        doomed = patch.pop(key)
        name = key[len(_DELETE_PRIMITIVE) :]
        if not isinstance(doomed, list):
            raise _bad(f"invalid patch format of {key}: it must be a list")
        if isinstance(original.get(name), list):
            original[name] = [v for v in original[name] if v not in doomed]


def _merge_list(
    field: Field | None, original: list[Any], patch: list[Any], order: Any
) -> list[Any]:
    if field is None or "merge" not in field.patch_strategy.split(","):
        return list(_stripped(patch))
    key = field.merge_key
    if not key:
        added = [v for v in dict.fromkeys(patch) if v not in original]
        return _ordered(field, original + added, patch, original, order)
    if any(isinstance(e, dict) and e == {_PATCH: "replace"} for e in patch):
        return [_stripped(e) for e in patch if e != {_PATCH: "replace"}]
    items = list(original)
    for element in patch:
        if not isinstance(element, dict):
            raise _bad(f"{field.name}: a list of objects is merged with something else")
        if element.get(_PATCH) not in (None, "merge", "delete", "replace"):
            raise _bad(f"unrecognized directive: {element[_PATCH]}")
        if key not in element:
            raise _bad(f"map: {element} does not contain declared merge key: {key}")
    doomed = [e[key] for e in patch if e.get(_PATCH) == "delete"]
    items = [i for i in items if i.get(key) not in doomed]
    before = list(items)
    kept = [e for e in patch if e.get(_PATCH) != "delete"]
    for element in kept:
        at = _position(items, key, element[key])
        if at is None:
            items.append(_merge_map(field.type, {}, element))
        else:
            items[at] = _merge_map(field.type, items[at], element)
    return _ordered(field, items, kept, before, order)


def _position(items: list[Any], key: str, value: Any) -> int | None:
    for i, item in enumerate(items):
        if isinstance(item, dict) and item.get(key) == value:
            return i
    return None


def _ordered(
    field: Field, merged: list[Any], patch: list[Any], before: list[Any], order: Any
) -> list[Any]:
    """The order that strategicpatch gives a merged list.

    What the patch names stands in the patch's order, or in that of `$setElementOrder`. What only
    the server has keeps its own order, and each such item goes before the first named one that it
    stood before on the server; named items that are new come first.
    """
    if order is not None and not isinstance(order, list):
        raise _bad(f"invalid patch format of {_ORDER}{field.name}: it must be a list")
    key = field.merge_key

    def identity(item: Any) -> str:
        return repr(item.get(key) if key and isinstance(item, dict) else item)

    wanted = {identity(item): i for i, item in enumerate(patch if order is None else order)}
    named = sorted((i for i in merged if identity(i) in wanted), key=lambda i: wanted[identity(i)])
    others = [i for i in merged if identity(i) not in wanted]
    places = {identity(item): i for i, item in enumerate(before)}
    out: list[Any] = []
    while named and others:
        other, first = places.get(identity(others[0])), places.get(identity(named[0]))
        comes_first = other is not None and first is not None and other < first
        out.append((others if comes_first else named).pop(0))
    return out + named + others
