"""OpenAPI v2 (Swagger): the documents of v3 in one, for clients that know no other. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from k8slite.api.meta import Obj

__all__ = ["swagger"]

_V3 = "#/components/schemas/"
_V2 = "#/definitions/"
_UNKNOWN = frozenset(("oneOf", "anyOf", "not", "nullable"))
"""What v2 has no word for."""
_METHODS = ("get", "post", "put", "patch", "delete")


def swagger(documents: Iterable[Obj]) -> Obj:
    """One document of all groups and versions."""
    definitions: Obj = {}
    paths: Obj = {}
    for document in documents:
        for name, schema in document["components"]["schemas"].items():
            if name not in definitions:
                definitions[name] = _schema(schema)
        for path, item in document["paths"].items():
            paths[path] = _path(item)
    return {
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": "v1.36.0"},
        "paths": paths,
        "definitions": definitions,
    }


def _schema(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_schema(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found: Obj = {}
    for key, value in schema.items():
        if key == "$ref" and isinstance(value, str):
            found[key] = value.replace(_V3, _V2)
        elif key == "allOf" and isinstance(value, list) and len(value) == 1:
            found.update(_schema(value[0]))
        elif key in ("default", "enum", "x-kubernetes-group-version-kind"):
            found[key] = value
        elif key == "properties":  # names, not keywords
            found[key] = {name: _schema(each) for name, each in value.items()}
        elif key not in _UNKNOWN:
            found[key] = _schema(value)
    if "oneOf" in schema and "type" not in found:
        found["type"] = "string"
    return found


def _path(item: Obj) -> Obj:
    found: Obj = {}
    for key, value in item.items():
        if key in _METHODS:
            found[key] = _operation(value)
        elif key == "parameters":
            found[key] = [_parameter(each) for each in value]
    return found


def _parameter(parameter: Obj) -> Obj:
    rest = {key: value for key, value in parameter.items() if key != "schema"}
    return {**parameter.get("schema", {}), **rest}


def _operation(operation: Obj) -> Obj:
    found = {k: v for k, v in operation.items() if k not in ("requestBody", "responses")}
    parameters = [_parameter(each) for each in operation.get("parameters") or ()]
    body = operation.get("requestBody")
    if body is not None:
        media, content = next(iter(body["content"].items()))
        found["consumes"] = list(body["content"]) if media != "*/*" else ["*/*"]
        schema = _schema(content["schema"])
        parameters.append({"name": "body", "in": "body", "required": True, "schema": schema})
    found["parameters"] = parameters
    found["responses"] = {}
    for code, answer in operation["responses"].items():
        content = answer.get("content") or {}
        found["produces"] = list(content)
        told: Obj = {"description": answer.get("description", "OK")}
        for each in content.values():
            told["schema"] = _schema(each["schema"])
            break
        found["responses"][code] = told
    return found
