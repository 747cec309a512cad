"""OpenAPI v3: the index at /openapi/v3 and one document per group and version.

Documents are made from the schema and the kinds when first asked for and kept as bytes; their hash
is in the index, so that clients may cache them for good. They hold what kubectl reads: schemas with
x-kubernetes-group-version-kind, list types and patch keys, and paths with their query parameters
(kubectl asks whether PATCH takes `fieldValidation`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any

import orjson

from k8slite.api.kinds import KINDS, Kind, Subresource
from k8slite.api.meta import Obj
from k8slite.api.schema import Field, Type, get_type, type_of, type_of_gvk

_SCALARS: dict[str, Obj] = {
    "s": {"type": "string"},
    "i": {"type": "integer", "format": "int32"},
    "l": {"type": "integer", "format": "int64"},
    "b": {"type": "boolean"},
    "n": {"type": "number", "format": "double"},
    "B": {"type": "string", "format": "byte"},
    "a": {"type": "object"},
}
_META = "io.k8s.apimachinery.pkg.apis.meta.v1"
_NAMED: dict[str, tuple[str, Obj]] = {
    "t": (f"{_META}.Time", {"type": "string", "format": "date-time"}),
    "u": (f"{_META}.MicroTime", {"type": "string", "format": "date-time"}),
    "q": (
        "io.k8s.apimachinery.pkg.api.resource.Quantity",
        {"oneOf": [{"type": "string"}, {"type": "number"}]},
    ),
    "x": (
        "io.k8s.apimachinery.pkg.util.intstr.IntOrString",
        {"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]},
    ),
}
_ACTIONS = {
    "get": "get",
    "list": "list",
    "create": "post",
    "update": "put",
    "patch": "patch",
    "delete": "delete",
    "deletecollection": "deletecollection",
}
_JSON = ("application/json", "application/yaml", "application/vnd.kubernetes.protobuf")
_PATCHES = (
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/apply-patch+yaml",
)
_STRATEGIC = "application/strategic-merge-patch+json"
"""Not for custom resources; clients look here to choose."""


def group_path(group: str, version: str) -> str:
    """ "api/v1" or "apis/apps/v1": the document's name in the index and in its URL."""
    return f"apis/{group}/{version}" if group else f"api/{version}"


def index(documents: Iterable[tuple[str, bytes]]) -> Obj:
    """The answer to GET /openapi/v3: group path -> address with the document's hash."""
    return {
        "paths": {
            path: {"serverRelativeURL": f"/openapi/v3/{path}?hash={digest(document)}"}
            for path, document in documents
        }
    }


def digest(document: bytes) -> str:
    """The hash in the index, also the document's ETag."""
    return hashlib.sha512(document).hexdigest().upper()


def built_in_documents() -> Iterator[tuple[str, bytes]]:
    """(group path, document) of every built-in group and version."""
    for group, version in dict.fromkeys((k.group, k.version) for k in KINDS):
        yield group_path(group, version), built_in_document(group, version)


@cache
def built_in_document(group: str, version: str) -> bytes:
    """The document of one built-in group and version. Raises KeyError where there is none."""
    kinds = [k for k in KINDS if k.group == group and k.version == version]
    if not kinds:
        raise KeyError(group_path(group, version))
    return orjson.dumps(document(kinds))


def document(kinds: Sequence[Kind], custom: dict[str, Obj] | None = None) -> Obj:
    """An OpenAPI v3 document of these kinds, all of one group and version.

    `custom`: for custom resources, kind -> its openAPIV3Schema.
    """
    schemas: dict[str, Obj] = {}
    paths: dict[str, Obj] = {}
    for kind in kinds:
        name = schema_name(kind)
        if custom is not None and kind.kind in custom:
            schemas[name] = _custom_schema(kind, custom[kind.kind])
            _add(schemas, get_type("meta.v1.ObjectMeta"))
        else:
            type_ = type_of(kind)
            if type_ is not None:
                _add(schemas, type_)
        _tag(schemas, name, kind.group, kind.version, kind.kind)
        if "list" in kind.verbs:
            schemas[name + "List"] = _list_schema(kind, name)
            _add(schemas, get_type("meta.v1.ListMeta"))
        _add_paths(paths, schemas, kind, name)
    for root in ("meta.v1.Status", "meta.v1.DeleteOptions"):
        _add(schemas, get_type(root))
    _tag(schemas, f"{_META}.DeleteOptions", "", "v1", "DeleteOptions")
    _tag(schemas, f"{_META}.Status", "", "v1", "Status")
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.36.0"},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def schema_name(kind: Kind) -> str:
    type_ = type_of(kind)
    if type_ is not None:
        return type_.open_api_name
    reverse = ".".join(reversed(kind.group.split(".")))
    return f"{reverse}.{kind.version}.{kind.kind}"


def _tag(schemas: dict[str, Obj], name: str, group: str, version: str, kind: str) -> None:
    if name in schemas:
        tag = {"group": group, "version": version, "kind": kind}
        schemas[name]["x-kubernetes-group-version-kind"] = [tag]


def _add(schemas: dict[str, Obj], type_: Type) -> None:
    if type_.open_api_name in schemas:
        return
    schema: Obj = {"type": "object"}
    schemas[type_.open_api_name] = schema
    schema["properties"] = {n: _property(schemas, f) for n, f in type_.fields.items()}
    if type_.required:
        schema["required"] = list(type_.required)


def _property(schemas: dict[str, Obj], field: Field) -> Obj:
    schema = _element(schemas, field)
    for wrapper in reversed(field.shape):
        if wrapper == "[":
            schema = {"type": "array", "items": schema}
        else:
            schema = {"type": "object", "additionalProperties": schema}
    if field.shape[:1] == "[":
        schema["x-kubernetes-list-type"] = field.list_type
        if field.map_keys:
            schema["x-kubernetes-list-map-keys"] = list(field.map_keys)
    if field.map_type:
        schema["x-kubernetes-map-type"] = field.map_type
    if field.patch_strategy:
        schema["x-kubernetes-patch-strategy"] = field.patch_strategy
    if field.merge_key:
        schema["x-kubernetes-patch-merge-key"] = field.merge_key
    return schema


def _element(schemas: dict[str, Obj], field: Field) -> Obj:
    if field.code == "@":
        _add(schemas, field.type)
        reference = f"#/components/schemas/{field.type.open_api_name}"
        return {"allOf": [{"$ref": reference}]} if not field.shape else {"$ref": reference}
    if field.code in _NAMED:
        name, schema = _NAMED[field.code]
        schemas.setdefault(name, dict(schema))
        reference = f"#/components/schemas/{name}"
        return {"allOf": [{"$ref": reference}]} if not field.shape else {"$ref": reference}
    return dict(_SCALARS[field.code])


def _custom_schema(kind: Kind, schema: Obj) -> Obj:
    own = dict(schema)
    properties = dict(own.get("properties") or {})
    properties.setdefault("apiVersion", {"type": "string"})
    properties.setdefault("kind", {"type": "string"})
    reference = f"#/components/schemas/{_META}.ObjectMeta"
    properties["metadata"] = {"allOf": [{"$ref": reference}]}
    own["properties"] = properties
    own.setdefault("type", "object")
    return own


def _list_schema(kind: Kind, name: str) -> Obj:
    tag = {"group": kind.group, "version": kind.version, "kind": kind.list_kind}
    items = {"type": "array", "items": {"$ref": f"#/components/schemas/{name}"}}
    metadata = {"allOf": [{"$ref": f"#/components/schemas/{_META}.ListMeta"}]}
    return {
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string"},
            "items": items,
            "kind": {"type": "string"},
            "metadata": metadata,
        },
        "x-kubernetes-group-version-kind": [tag],
    }


def _query(name: str, type_: str = "string") -> Obj:
    return {"name": name, "in": "query", "schema": {"type": type_, "uniqueItems": True}}


def _path_parameter(name: str) -> Obj:
    schema = {"type": "string", "uniqueItems": True}
    return {"name": name, "in": "path", "required": True, "schema": schema}


_WRITE = ("dryRun", "fieldManager", "fieldValidation")
_LIST = (
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
)
_DELETE = (
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("ignoreStoreReadErrorWithClusterBreakingPotential", "boolean"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
)


def _parameters(verb: str) -> list[Obj]:
    match verb:
        case "create" | "update":
            return [_query(n) for n in _WRITE]
        case "patch":
            return [*(_query(n) for n in _WRITE), _query("force", "boolean")]
        case "list":
            return [_query(n, t) for n, t in _LIST]
        case "delete":
            return [_query(n, t) for n, t in _DELETE]
        case "deletecollection":
            return [_query(n, t) for n, t in (*_LIST[1:-1], *_DELETE)]
    return []


def _operation(verb: str, kind: Kind, name: str, body: str, tag: Obj, suffix: str) -> Obj:
    answer = name + "List" if verb == "list" else name
    if verb in ("delete", "deletecollection"):
        answer, body = f"{_META}.Status", f"{_META}.DeleteOptions"
    content = {t: {"schema": {"$ref": f"#/components/schemas/{answer}"}} for t in _JSON}
    scope = "Namespaced" if kind.namespaced else ""
    operation: Obj = {
        "operationId": f"{verb}{scope}{kind.kind}{suffix}",
        "parameters": _parameters(verb),
        "responses": {"200": {"description": "OK", "content": content}},
        "x-kubernetes-action": _ACTIONS[verb],
        "x-kubernetes-group-version-kind": tag,
    }
    if verb == "patch":
        schema = {"type": "object"}
        types = _PATCHES if type_of(kind) is None else (*_PATCHES, _STRATEGIC)
        operation["requestBody"] = {"content": {t: {"schema": schema} for t in types}}
    elif verb not in ("get", "list"):
        schema = {"$ref": f"#/components/schemas/{body}"}
        operation["requestBody"] = {"content": {"*/*": {"schema": schema}}}
    return operation


_METHODS = {
    "get": "get",
    "list": "get",
    "create": "post",
    "update": "put",
    "patch": "patch",
    "delete": "delete",
    "deletecollection": "delete",
}


def _add_paths(paths: dict[str, Obj], schemas: dict[str, Obj], kind: Kind, name: str) -> None:
    tag: Obj = {"group": kind.group, "version": kind.version, "kind": kind.kind}
    space = "{namespace}" if kind.namespaced else None
    outer = [_path_parameter("namespace")] if kind.namespaced else []
    collection, single = kind.path(space), kind.path(space, "{name}")
    for verb in kind.verbs:
        if verb not in _METHODS:
            continue
        on_collection = verb in ("list", "create", "deletecollection")
        where = collection if on_collection else single
        parameters = outer if on_collection else [_path_parameter("name"), *outer]
        item = paths.setdefault(where, {"parameters": parameters})
        item[_METHODS[verb]] = _operation(verb, kind, name, name, tag, "")
    for sub in kind.subresources.values():
        _add_subresource(paths, schemas, kind, name, sub, [_path_parameter("name"), *outer])


def _add_subresource(
    paths: dict[str, Obj],
    schemas: dict[str, Obj],
    kind: Kind,
    name: str,
    sub: Subresource,
    parameters: list[Any],
) -> None:
    type_ = type_of_gvk(sub.group, sub.version, sub.kind)
    if type_ is None:
        return
    _add(schemas, type_)
    tag: Obj = {"group": sub.group, "version": sub.version, "kind": sub.kind}
    body = type_.open_api_name if sub.kind != kind.kind else name
    _tag(schemas, body, sub.group, sub.version, sub.kind)
    space = "{namespace}" if kind.namespaced else None
    where = kind.path(space, "{name}", sub.name)
    suffix = sub.name.capitalize()
    for verb in sub.verbs:
        if verb in _METHODS:
            item = paths.setdefault(where, {"parameters": parameters})
            item[_METHODS[verb]] = _operation(verb, kind, body, body, tag, suffix)
