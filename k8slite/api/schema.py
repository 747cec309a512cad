"""The types of all built-in kinds: fields, list types, merge keys, protobuf numbers.

Read once, lazily, from `data/schema.json.gz` (which `generate/schema.py` makes). A `Type` is a
struct of Go, known by its short name ("core.v1.Container"); a `Field` says what it holds.
`normalise` is the decoder's second half: it checks a decoded body against a type, prunes what the
type does not know, drops what Go would omit, and words its complaints as kube-apiserver's decoder.
"""

from __future__ import annotations

import gzip
from functools import cache, lru_cache
from typing import Any

import orjson

from k8slite.api.kinds import Kind, read_data

GO_TYPES = {
    "s": "string",
    "i": "int32",
    "l": "int64",
    "b": "bool",
    "n": "float64",
    "B": "[]uint8",
    "t": "string",
    "u": "string",
    "q": "string",
    "x": "int32",
    "a": "map[string]interface {}",
}


class Field:
    """One field. `shape`: "" (one value), "[" (list), "{" (map), "[{", "{[": nested.

    `code` is the element's scalar code (see generate/schema.py) or "@" for a struct, `type` below.
    """

    __slots__ = (
        "_type",
        "code",
        "embedded",
        "keeps_zero",
        "list_type",
        "map_keys",
        "map_type",
        "merge_key",
        "name",
        "numbers",
        "owner",
        "patch_strategy",
        "shape",
        "type_name",
    )

    def __init__(self, owner: Type, name: str, row: list[Any]) -> None:
        form: str = row[0]
        extras: dict[str, Any] = row[2] if len(row) > 2 else {}
        element = form.lstrip("[{")
        self.owner = owner
        self.name = name
        self.shape = form[: len(form) - len(element)]
        self.code = element[0]
        self.type_name = element[1:]
        self._type: Type | None = None
        self.numbers: tuple[int, ...] = tuple(row[1])
        self.embedded: tuple[str, ...] = tuple(extras.get("E", ()))
        self.keeps_zero: bool = bool(extras.get("p"))
        self.list_type: str = extras.get("lt", "atomic" if self.shape[:1] == "[" else "")
        self.map_keys: tuple[str, ...] = tuple(extras.get("mk", ()))
        self.map_type: str = extras.get("mt", "")
        self.patch_strategy: str = extras.get("ps", "")
        self.merge_key: str = extras.get("pk", "")

    @property
    def type(self) -> Type:
        """The struct that this field (or its elements) hold; only where code is "@"."""
        if self._type is None:
            self._type = get_type(self.type_name)
        return self._type

    @property
    def go_type(self) -> str:
        """As Go prints it in a decoding error: "int32", "[]v1.Container", "map[string]string"."""
        text = self.shape.replace("[", "[]").replace("{", "map[string]")
        if self.code == "@":
            return f"{text}{self.type.version}.{self.type.go_name}"
        return text + GO_TYPES[self.code]


class Type:
    __slots__ = (
        "atomic",
        "fields",
        "go_name",
        "name",
        "open_api_name",
        "required",
        "version",
        "zeros",
    )

    def __init__(self, name: str, entry: dict[str, Any]) -> None:
        self.name = name
        _, self.version, self.go_name = name.rsplit(".", 2)
        self.required: tuple[str, ...] = tuple(entry.get("r", ()))
        self.atomic: bool = "m" in entry  # has one owner, as a whole
        self.open_api_name: str = entry.get("n") or f"io.k8s.api.{name}"
        self.fields: dict[str, Field] = {n: Field(self, n, row) for n, row in entry["f"].items()}
        self.zeros: tuple[tuple[str, int | bool | None], ...] = tuple(
            (n, False if self.fields[n].code == "b" else 0)
            for n in self.required
            if n in self.fields and not self.fields[n].shape and self.fields[n].code in "ilb"
        ) + tuple((n, None) for n, row in entry["f"].items() if len(row) > 2 and "v" in row[2])

    def __repr__(self) -> str:
        return f"Type({self.name})"


@lru_cache(maxsize=1)
def _entries() -> dict[str, dict[str, Any]]:
    entries: dict[str, dict[str, Any]] = orjson.loads(gzip.decompress(read_data("schema.json.gz")))
    return entries


@lru_cache(maxsize=1)
def _by_gvk() -> dict[tuple[str, str, str], str]:
    return {(*e["k"],): name for name, e in _entries().items() if "k" in e}


@cache
def get_type(name: str) -> Type:
    """The type of this short name. Raises KeyError."""
    return Type(name, _entries()[name])


@cache
def type_of_gvk(group: str, version: str, kind: str) -> Type | None:
    name = _by_gvk().get((group, version, kind))
    if name is None:
        name = _META_KINDS.get(kind)
    return get_type(name) if name is not None else None


_META_KINDS = {
    "DeleteOptions": "meta.v1.DeleteOptions",
    "Status": "meta.v1.Status",
    "Binding": "core.v1.Binding",
}


def type_of(kind: Kind) -> Type | None:
    """The type of a built-in kind; None for custom ones, whose schema is in their definition."""
    return type_of_gvk(kind.group, kind.version, kind.kind)
