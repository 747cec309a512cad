"""How values are merged: the schema as server-side apply sees it.

A `Shape` says of one place in an object whether it is a leaf, a struct or map whose fields have
owners of their own, or a list whose items do. It is made from the built-in schema, from the schema
of a custom resource, or, where there is none, from the value alone.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import orjson

from k8slite.api.kinds import Kind
from k8slite.api.meta import Obj
from k8slite.api.schema import Field, Type, get_type, type_of

LEAF, GRANULAR, KEYED_LIST, SET = "leaf", "granular", "keyed list", "set"

KEY_DEFAULTS: dict[str, Any] = {"protocol": "TCP"}
"""Keys of list items that the API fills in where a client leaves them out."""


class Shape:
    """One place. `kind` is one of the constants above."""

    __slots__ = ("keys", "kind")

    def __init__(self, kind: str, keys: tuple[str, ...] = ()) -> None:
        self.kind = kind
        self.keys = keys

    def child(self, name: str) -> Shape:
        """Of a field of a struct or map."""
        return DEDUCED

    def item(self) -> Shape:
        """Of an item of a list."""
        return DEDUCED

    def declares(self, name: str) -> bool:
        """True for a field that the type names; False for a key of a map."""
        return False

    def is_leaf(self, value: Any) -> bool:
        if self.kind == GRANULAR:
            return not isinstance(value, dict)
        if self.kind in (KEYED_LIST, SET):
            return not isinstance(value, list)
        return True


class _Deduced(Shape):
    """Of data without a schema: maps are granular, everything else is a leaf."""

    __slots__ = ()


DEDUCED: Shape = _Deduced(GRANULAR)
ATOM = Shape(LEAF)


class _Struct(Shape):
    __slots__ = ("children", "type")

    def __init__(self, type_: Type) -> None:
        super().__init__(GRANULAR)
        self.type = type_
        self.children: dict[str, Shape] = {}

    def child(self, name: str) -> Shape:
        found = self.children.get(name)
        if found is None:
            field = self.type.fields.get(name)
            if field is None:
                return DEDUCED
            found = self.children[name] = _of_field(field, field.shape)
        return found

    def declares(self, name: str) -> bool:
        return name in self.type.fields


class _Container(Shape):
    """A map or a list of a built-in field's elements."""

    __slots__ = ("element",)

    def __init__(self, kind: str, keys: tuple[str, ...], element: Shape) -> None:
        super().__init__(kind, keys)
        self.element = element

    def child(self, name: str) -> Shape:
        return self.element

    def item(self) -> Shape:
        return self.element


@cache
def _of_field(field: Field, remaining: str) -> Shape:
    if field.map_type == "atomic" and remaining == field.shape:
        return ATOM
    if not remaining:
        if field.code == "@":
            return _of_type(field.type)
        return DEDUCED if field.code == "a" and field.name == "data" else ATOM
    if remaining[0] == "{":
        return _Container(GRANULAR, (), _of_field(field, remaining[1:]))
    if field.list_type == "map":
        return _Container(KEYED_LIST, field.map_keys, _of_field(field, remaining[1:]))
    if field.list_type == "set":
        return _Container(SET, (), ATOM)
    return ATOM


@cache
def _of_type(type_: Type) -> Shape:
    return ATOM if type_.atomic else _Struct(type_)


class _Structural(Shape):
    """Of a custom resource, by its definition's schema."""

    __slots__ = ("schema",)

    def __init__(self, schema: Obj) -> None:
        kind, keys = GRANULAR, ()
        if schema.get("type") == "array":
            list_type = schema.get("x-kubernetes-list-type", "atomic")
            kind = {"map": KEYED_LIST, "set": SET}.get(list_type, LEAF)
            keys = tuple(schema.get("x-kubernetes-list-map-keys") or ())
        elif schema.get("x-kubernetes-map-type") == "atomic":
            kind = LEAF
        super().__init__(kind, keys)
        self.schema = schema

    def child(self, name: str) -> Shape:
        properties = self.schema.get("properties") or {}
        if name in properties:
            return _Structural(properties[name])
        extra = self.schema.get("additionalProperties")
        return _Structural(extra) if isinstance(extra, dict) else DEDUCED

    def item(self) -> Shape:
        items = self.schema.get("items")
        return _Structural(items) if isinstance(items, dict) else DEDUCED

    def declares(self, name: str) -> bool:
        return name in (self.schema.get("properties") or {})


class _CustomRoot(_Structural):
    __slots__ = ()

    def child(self, name: str) -> Shape:
        if name == "metadata":
            return _of_type(get_type("meta.v1.ObjectMeta"))
        return super().child(name)

    def declares(self, name: str) -> bool:
        return name in ("metadata", "apiVersion", "kind") or super().declares(name)


def shape_of(kind: Kind, schema: Obj | None = None) -> Shape:
    """The shape of a kind's objects; `schema` is a custom resource's openAPIV3Schema."""
    type_ = type_of(kind)
    return _of_type(type_) if type_ is not None else _CustomRoot(schema or {})


def element_key(shape: Shape, item: Any) -> str:
    """The path element of a list's item, as FieldsV1 writes it: `k:{"name":"c"}` or `v:"x"`."""
    if shape.kind == SET or not isinstance(item, dict):
        return "v:" + orjson.dumps(item).decode()
    keys = {k: item.get(k, KEY_DEFAULTS.get(k)) for k in sorted(shape.keys)}
    found = {k: v for k, v in keys.items() if v is not None}
    return "k:" + orjson.dumps(found).decode()
