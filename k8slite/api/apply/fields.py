"""Sets of fields: which paths an object has, how two objects differ, FieldsV1 and back.

A path is a tuple of elements as FieldsV1 writes them: `f:spec`, `k:{"name":"c"}`, `v:"x"`. Sets of
paths are plain sets, so that union, intersection and difference are Python's own.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson

from k8slite.api.apply.shapes import GRANULAR, Shape, element_key
from k8slite.api.meta import Obj

Path = tuple[str, ...]
Paths = set[Path]

_MISSING = object()


def paths_of(shape: Shape, value: Any) -> Paths:
    """The fields that somebody who wrote this value owns."""
    found: Paths = set()
    _collect(shape, value, (), found)
    return found


def _collect(shape: Shape, value: Any, path: Path, found: Paths) -> None:
    if shape.is_leaf(value):
        found.add(path)
    elif shape.kind == GRANULAR:
        for name, item in value.items():
            below = (*path, "f:" + name)
            _collect(shape.child(name), item, below, found)
            if item is None or item == {} or not shape.declares(name):
                found.add(below)
    else:
        for item in value:
            below = (*path, element_key(shape, item))
            _collect(shape.item(), item, below, found)
            found.add(below)


class Difference(NamedTuple):
    added: Paths
    modified: Paths
    removed: Paths


def compare(shape: Shape, old: Any, new: Any) -> Difference:
    """What changed, as paths. A container that is new or gone counts with all its contents."""
    difference = Difference(set(), set(), set())
    _compare(shape, old, new, (), difference)
    return difference


def _compare(shape: Shape, old: Any, new: Any, path: Path, out: Difference) -> None:
    if old == new:
        return
    if old is _MISSING or new is _MISSING:
        side = out.added if old is _MISSING else out.removed
        side.add(path)
        value = new if old is _MISSING else old
        for below, item, inner in _children(shape, value, path):
            pair = (_MISSING, item) if old is _MISSING else (item, _MISSING)
            _compare(inner, *pair, below, out)
        return
    before = {p: (v, s) for p, v, s in _children(shape, old, path)}
    after = {p: (v, s) for p, v, s in _children(shape, new, path)}
    if not before and not after:
        if old != new:
            out.modified.add(path)
        return
    for below, (value, inner) in after.items():
        _compare(inner, before[below][0] if below in before else _MISSING, value, below, out)
    for below, (value, inner) in before.items():
        if below not in after:
            _compare(inner, value, _MISSING, below, out)


def _children(shape: Shape, value: Any, path: Path) -> list[tuple[Path, Any, Shape]]:
    if shape.is_leaf(value):
        return []
    if shape.kind == GRANULAR:
        return [((*path, "f:" + n), v, shape.child(n)) for n, v in value.items()]
    return [((*path, element_key(shape, v)), v, shape.item()) for v in value]


def fields_of_new(shape: Shape, value: Any, base: Any) -> Obj | None:
    """FieldsV1 of what a new value adds to `base`, None for nothing: `to_fields_v1` of the added
    and modified paths that `compare` finds, without making sets of them.
    """
    if value == base:
        return None
    fields: Obj = {}
    if shape.is_leaf(value):
        return fields
    if shape.kind == GRANULAR:
        before = base if isinstance(base, dict) else {}
        for name in sorted(value):
            inner = (
                fields_of_new(shape.child(name), value[name], before[name])
                if name in before
                else _all_fields(shape.child(name), value[name])
            )
            if inner is not None:
                fields["f:" + name] = inner
        return fields if fields or not before else None
    return _items(shape, value, fields)


def _all_fields(shape: Shape, value: Any) -> Obj:
    if shape.is_leaf(value) or not value:
        return {}
    fields: Obj = {".": {}}
    if shape.kind == GRANULAR:
        for name in sorted(value):
            fields["f:" + name] = _all_fields(shape.child(name), value[name])
        return fields
    return _items(shape, value, fields)


def _items(shape: Shape, value: list[Any], fields: Obj) -> Obj:
    found: Obj = {}
    for item in value:
        key = element_key(shape, item)
        inner = _all_fields(shape.item(), item)
        found[key] = {**found[key], **inner} if key in found else inner
    for key in sorted(found):
        fields[key] = found[key]
    return fields


def to_fields_v1(paths: Paths) -> Obj:
    """The trie that managedFields holds: "." marks an inner node that is itself a member."""
    root: Obj = {}
    for path in sorted(paths):
        node = root
        for element in path:
            node = node.setdefault(element, {})
        node["."] = {}
    return _without_dots(root)


def _without_dots(node: Obj) -> Obj:
    if node.keys() == {"."}:
        return {}
    return {k: v if k == "." else _without_dots(v) for k, v in sorted(node.items())}


def from_fields_v1(fields: Obj) -> Paths:
    paths: Paths = set()

    def walk(node: Obj, path: Path) -> None:
        if not node and path:
            paths.add(path)
        for element, inner in node.items():
            if element == ".":
                paths.add(path)
            else:
                walk(inner, (*path, element))

    walk(fields, ())
    return paths


def contains(fields: Obj, path: Path) -> bool:
    """Whether a path is a member, asked of the trie as it is stored."""
    node = fields
    for element in path:
        inner = node.get(element)
        if inner is None:
            return False
        node = inner
    return not node or "." in node


def show(path: Path) -> str:
    """As conflicts name it: `.spec.containers[name="c"].image`."""
    text = ""
    for element in path:
        kind, rest = element[:2], element[2:]
        if kind == "f:":
            text += f".{rest}"
        elif kind == "k:":
            keys = orjson.loads(rest)
            pairs = ",".join(f"{k}={orjson.dumps(v).decode()}" for k, v in keys.items())
            text += f"[{pairs}]"
        else:
            text += f"[={rest}]"
    return text
